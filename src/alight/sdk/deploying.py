"""What ``app.deploy()`` does, in order: begin → resolve and upload → build every image → publish, all at once.

Until the last step nobody sees a thing, so that whatever goes wrong here leaves the version before serving. What the
server does with the last step is in its ``services/deployments.py``.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any, List, Mapping, Optional, Tuple

from alight.sdk import progress
from alight.sdk.client import Client, default_client
from alight.sdk.object import checked_name, environment_or_default
from alight.sdk.run import Plan, Run
from alight.sdk.running import RunningApp
from alight.sdk.sync import call_blocking
from alight.wire import ambient, deploying, errors, messages
from alight.wire.ids import check_environment
from alight.wire.record import dataclass, field
from alight.wire.version import __version__

if TYPE_CHECKING:
    from alight.sdk.app import App
    from alight.sdk.reports import AppInfo

_GIT_SECONDS = 5.0
_TAG_MOST = 50


@dataclass(frozen=True)
class Deployed:
    """What an app knows of its last deploy. ``function_ids`` are by function name."""

    client: Client
    app_id: str
    name: str
    environment: str
    done: deploying.DeployDone
    function_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wish:
    """How an app is deployed."""

    name: str
    environment: str = ""
    tag: str = ""
    strategy: str = deploying.ROLLING
    staged: bool = False


async def deploy(app: App, wish: Wish, client: Optional[Client]) -> Deployed:
    """Publish an app's functions as its next version. Raises what keeps it from being one."""
    _check(app, wish)
    classes = {made._service.info_name: made._service for made in app._classes.values()}  # noqa: SLF001
    functions = {**app._functions, **classes}  # noqa: SLF001  of this package
    if not functions:
        raise errors.InvalidError(
            f"the app {wish.name} has no functions to deploy", hint="decorate one with @app.function()"
        )
    plan = Plan(client or default_client(), wish.name, environment=wish.environment, tags=app._tags)  # noqa: SLF001
    deployed = await _Deploy(plan, functions, wish).run()
    for one in [app, *app._all_included()]:  # noqa: SLF001  of this package
        # Handles reach their ids by way of the apps that declared them.
        one._deployed, one._app_id, one._description = deployed, deployed.app_id, wish.name  # noqa: SLF001
    for function in functions.values():
        function._known = None  # noqa: SLF001  of this package
    return deployed


class _Deploy(Run):
    """One deploy of one app."""

    def __init__(self, plan: Plan, functions: Mapping[str, Any], wish: Wish) -> None:
        super().__init__(plan, functions)
        self._wish = wish

    async def run(self) -> Deployed:
        """All of it."""
        plan, wish = self._plan, self._wish
        progress.current().phase(f"Deploying {wish.name}")
        begin = deploying.DeployBegin(wish.name, wish.environment)
        begun = await plan.client.call("deploy.begin", begin, deploying.DeployBegun)
        created = messages.AppCreated(begun.app_id, begun.environment)
        is_new = not begun.version and not begun.found
        self._running = running = RunningApp(plan.client, created, detach=False)
        try:
            if is_new:  # it is held until it has a version
                await running.watch()
            specs = await self._resolve(running)
            await self._build(running, specs)
            progress.current().phase(f"{'Trying' if wish.staged else 'Publishing'} {wish.name}")
            commit, dirty = commit_of(_folder(self._functions))
            message = deploying.DeployPublish(
                begun.app_id,
                wish.name,
                begun.version,
                uuid.uuid4().hex,
                tuple(specs.values()),
                tags=dict(plan.tags) or None,
                tag=wish.tag,
                strategy=wish.strategy,
                commit=commit,
                dirty=dirty,
                client=__version__,
                staged=wish.staged,
            )
            done = await plan.client.call("deploy.publish", message, deploying.DeployDone)
        except BaseException as error:
            if is_new:
                await _drop(running, error)
            raise
        running.leave()
        for one in done.functions:
            if one.impossible is not None:
                progress.current().warn(f"{one.name} cannot run here: {errors.from_wire(one.impossible)}")
            elif one.warning:
                progress.current().note(f"{one.name}: {one.warning}")
        for note in done.notes:
            progress.current().note(note)
        found = {one.name: one.function_id for one in done.functions if one.function_id}
        return Deployed(plan.client, done.app_id, wish.name, begun.environment, done, found)


async def find(
    name: str, client: Optional[Client], environment: Optional[str], *, create: bool
) -> deploying.AppDescribed:
    """The app of a name or id. Raises NotFoundError."""
    message = deploying.AppFind(name, environment_or_default(environment), create_if_missing=create)
    return await (client or default_client()).call("app.find", message, deploying.AppDescribed)


async def describe(app: App, client: Optional[Client] = None) -> deploying.AppDescribed:
    """What the server knows of an app that runs, is deployed or was looked up."""
    message = deploying.AppFind(app_id_of(app))
    return await (client or default_client()).call("app.find", message, deploying.AppDescribed)


async def set_tags(app: App, tags: Mapping[str, str], client: Optional[Client]) -> None:
    """Other tags for an app, here and on the server. Raises InvalidError for what no tag can be."""
    message = deploying.AppTags(app_id_of(app), dict(tags))
    await (client or default_client()).do("app.tags", message)
    app._tags = dict(tags)  # noqa: SLF001  of this package


def app_id_of(app: App) -> str:
    """Raises ExecutionError for an app that is only declared."""
    if app.app_id is None:
        raise errors.ExecutionError(
            "the app is neither running nor deployed: the server knows nothing of it",
            hint="App.lookup(name) finds a deployed one",
        )
    return app.app_id


def info(found: deploying.AppDescribed) -> AppInfo:
    """As the public type. Functions are their ids by name, and so are servers (``@app.server``)."""
    from alight.sdk import reports  # noqa: PLC0415  only who asks for it
    from alight.sdk.secret import moment  # noqa: PLC0415  only who asks for it

    states = {"running": "ephemeral"}
    lifecycle = reports.AppLifecycle(
        state=reports.AppState(states.get(found.state, found.state)),
        version=found.version or None,
        created_at=moment(found.created_at),
        created_by=found.created_by or None,
        deployed_at=moment(found.deployed_at) if found.deployed_at is not None else None,
        deployed_by=found.deployed_by or None,
        stopped_at=moment(found.stopped_at) if found.stopped_at is not None else None,
        stopped_by=found.stopped_by or None,
    )
    functions = {one.name: one.function_id for one in found.functions if not one.is_server}
    servers = {one.name.removesuffix(".*"): one.function_id for one in found.functions if one.is_server}
    return reports.AppInfo(found.app_id, found.description, lifecycle, functions, servers)


def commit_of(folder: str) -> Tuple[str, bool]:
    """The commit that a folder's git repository is at, and whether anything in it differs; ("", False) without one."""
    import subprocess  # noqa: PLC0415  only who deploys

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", folder, *words],
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
        return done.stdout.decode(errors="replace").strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", False


def _folder(functions: Mapping[str, Any]) -> str:
    files: List[str] = []
    for function in functions.values():
        raw = function._raw  # noqa: SLF001  of this package
        code = getattr(raw, "__code__", None)
        file = code.co_filename if code is not None else _file_of_class(raw)
        if file and os.path.exists(file):
            files.append(file)
    return os.path.dirname(os.path.abspath(files[0])) if files else os.getcwd()


def _file_of_class(raw: Any) -> str:
    import sys  # noqa: PLC0415  classes only

    return str(getattr(sys.modules.get(getattr(raw, "__module__", "")), "__file__", "") or "")


def _check(app: App, wish: Wish) -> None:
    if not wish.name:
        raise errors.InvalidError("an app needs a name to be deployed", hint='App("name"), or --name NAME')
    checked_name(wish.name, "app")
    if wish.environment:
        check_environment(wish.environment)
    if wish.strategy not in deploying.STRATEGIES:
        raise errors.InvalidError(
            f"{wish.strategy!r} is no strategy of a deploy", hint=f"it is {' or '.join(deploying.STRATEGIES)}"
        )
    if len(wish.tag) > _TAG_MOST:
        raise errors.InvalidError(f"the tag of a version has at most {_TAG_MOST} characters")
    if app._running is not None:  # noqa: SLF001  of this package
        raise errors.ExecutionError("the app is running: it cannot be deployed from within its run")
    if ambient.importing:
        raise errors.ExecutionError(
            "app.deploy() was called while the script is imported: the container imports it, too, and would deploy it",
            hint='put it under `if __name__ == "__main__":`',
        )


async def _drop(running: RunningApp, error: BaseException) -> None:
    """Nothing came of a new app."""
    try:
        stop = running.stop(f"it was not deployed: {type(error).__name__}")
        if isinstance(error, (Exception, KeyboardInterrupt)):
            await stop
        else:
            # The caller's event loop is cancelling us: it is not there for another wait.
            call_blocking(stop)
    except errors.Error:
        running.leave()  # the server stops it soon, since nobody holds it
