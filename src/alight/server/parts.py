"""The services of one server, made in the order in which they need each other."""

from __future__ import annotations

from dataclasses import dataclass

from alight.scheduler import place
from alight.scheduler.state import State
from alight.server.events import Inbox
from alight.server.logs import Logs
from alight.server.loop import Hands, Loop
from alight.server.services.access import ProxyTokens
from alight.server.services.apps import App, Apps
from alight.server.services.blobs import Blobs
from alight.server.services.calls import Calls
from alight.server.services.containers import Containers
from alight.server.services.deployments import Deployments
from alight.server.services.dials import Dials
from alight.server.services.ephemeral import Ephemeral
from alight.server.services.functions import Functions
from alight.server.services.hub import Hub
from alight.server.services.images import Images
from alight.server.services.node_reports import Around
from alight.server.services.nodes import Nodes
from alight.server.services.secrets import Secrets
from alight.server.services.setup import Setup
from alight.server.services.shared import Shared
from alight.server.services.shared_store import SharedStore
from alight.server.services.staging import Staging
from alight.server.services.tokens import Tokens
from alight.server.services.vault import Vault
from alight.server.services.volume_users import VolumeUsers
from alight.server.services.volume_versions import VolumeVersions
from alight.server.services.volumes import Volumes
from alight.server.services.web_names import WebNames
from alight.server.settings import Settings
from alight.server.web import Around as WebAround
from alight.server.web import Web
from alight.store import SqliteStore
from alight.wire import ids
from alight.wire.messages import AppEvent
from alight.wire.spec import FunctionSpec


@dataclass
class Parts:
    """The services of one server."""

    store: SqliteStore
    inbox: Inbox
    hub: Hub
    functions: Functions
    apps: Apps
    names: WebNames
    access: ProxyTokens
    deployments: Deployments
    calls: Calls
    containers: Containers
    nodes: Nodes
    images: Images
    volumes: Volumes
    ephemeral: Ephemeral
    shared: Shared
    secrets: Secrets
    tokens: Tokens
    blobs: Blobs
    setup: Setup
    logs: Logs
    dials: Dials
    web: Web
    loop: Loop


def make_parts(settings: Settings, store: SqliteStore) -> Parts:
    """Every service, each with the ones that it needs."""
    inbox, hub = Inbox(), Hub()
    state = State(make_id=lambda: ids.new_id(ids.CONTAINER), aliases=settings.gpu_aliases)
    functions = Functions(store, inbox, lambda name, need: place.check_possible(state, name, need))
    apps = Apps(store, functions, hub, inbox, settings.holder_grace)
    functions.names = names = WebNames(functions, apps.alive)
    calls = Calls(store, functions, inbox, settings.bodies_in_memory, settings.holder_grace)
    containers = Containers(store, functions, hub)
    functions.used = containers.has
    logs = Logs(settings.state / "logs", settings.log_bytes)
    nodes = Nodes(Around(store, inbox, containers, calls, logs, hub), settings.node_grace)
    secrets = Secrets(store, Vault(settings.state / "key"))
    images = Images(store, nodes, secrets)

    async def ensure(specs: tuple[FunctionSpec, ...], app: App) -> None:
        async def tell(event: AppEvent) -> None:
            hub.tell(app.app_id, event)

        for spec in {(spec.image.digest, spec.python_version): spec for spec in specs}.values():
            await images.ensure_anywhere(spec.image, spec.python_version, (app.app_id, app.environment), tell)

    access = ProxyTokens(store, functions.owner_of)
    ephemeral, blobs = Ephemeral(store), Blobs(settings.state / "blobs")
    dials = Dials(containers, nodes, settings.run)
    web = Web(inbox, WebAround(functions.by_id, names, access, hub, calls.init_failures), dials.dial, settings.web)
    loop = Loop(state, inbox, Hands(apps, functions, calls, containers, nodes, images, secrets, hub, web))
    staging = Staging(store, apps, functions, secrets)
    return Parts(
        store=store,
        inbox=inbox,
        hub=hub,
        functions=functions,
        apps=apps,
        names=names,
        access=access,
        deployments=Deployments(store, apps, functions, containers, staging, ensure, most=settings.versions_kept),
        calls=calls,
        containers=containers,
        nodes=nodes,
        images=images,
        volumes=Volumes(
            store, nodes, VolumeVersions(store, nodes, containers), VolumeUsers(containers, apps), ephemeral
        ),
        ephemeral=ephemeral,
        shared=Shared(store, SharedStore(settings.state / "shared.db"), blobs, ephemeral),
        secrets=secrets,
        tokens=Tokens(store),
        blobs=blobs,
        setup=Setup(""),
        logs=logs,
        dials=dials,
        web=web,
        loop=loop,
    )
