"""Who knows whom. Everything is made once, here, and passed in; nothing looks anything up by name."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from alight.gateway.table import Names
from alight.link.dial import Answers, serve
from alight.server import http, web_listen
from alight.server.app import Front
from alight.server.changes import Changes
from alight.server.dashboard import Around as DashboardAround
from alight.server.dashboard import Dashboard
from alight.server.http_calls import HttpCalls
from alight.server.janitor import Janitor
from alight.server.listening import bind, bracketed, users_group
from alight.server.measuring import Measuring
from alight.server.parts import Parts, make_parts
from alight.server.prices import PriceFile
from alight.server.request import QuickRoutes, Routes
from alight.server.revive import Reviver
from alight.server.routes import apps as apps_routes
from alight.server.routes import backup as backup_routes
from alight.server.routes import billing as billing_routes
from alight.server.routes import blobs as blobs_routes
from alight.server.routes import call_views as call_views_routes
from alight.server.routes import calls as calls_routes
from alight.server.routes import containers as containers_routes
from alight.server.routes import dashboard as dashboard_routes
from alight.server.routes import deployments as deployments_routes
from alight.server.routes import dicts as dicts_routes
from alight.server.routes import ephemeral as ephemeral_routes
from alight.server.routes import execs as execs_routes
from alight.server.routes import functions as functions_routes
from alight.server.routes import images as images_routes
from alight.server.routes import info as info_routes
from alight.server.routes import logs as logs_routes
from alight.server.routes import nodes as nodes_routes
from alight.server.routes import queues as queues_routes
from alight.server.routes import schedules as schedules_routes
from alight.server.routes import secrets as secrets_routes
from alight.server.routes import setup as setup_routes
from alight.server.routes import terminals as terminals_routes
from alight.server.routes import tokens as tokens_routes
from alight.server.routes import volume_history as volume_history_routes
from alight.server.routes import volumes as volumes_routes
from alight.server.routes import web as web_routes
from alight.server.services.ahead import Ahead
from alight.server.services.audits import Audits
from alight.server.services.backup import Backup
from alight.server.services.billing import Billing
from alight.server.services.blob_users import BlobUsers
from alight.server.services.budgets import BudgetKeeper
from alight.server.services.call_views import CallViews
from alight.server.services.container_views import ContainerViews
from alight.server.services.environments import Environments
from alight.server.services.execs import Execs
from alight.server.services.function_views import FunctionViews
from alight.server.services.input_views import InputViews
from alight.server.services.json_calls import JsonCalls
from alight.server.services.log_failures import FailureLines
from alight.server.services.log_views import LogViews
from alight.server.services.schedules import Schedules
from alight.server.services.stored_usage import StoredUsage
from alight.server.services.system_log import SystemLog
from alight.server.services.terminals import Terminals
from alight.server.services.usage import Usage
from alight.server.settings import LOOPBACK, Settings
from alight.server.web_directory import Directory
from alight.store import SqliteStore, open_store
from alight.wire import ids
from alight.wire.commands import Command
from alight.wire.messages import ServerInfo
from alight.wire.version import __version__

if TYPE_CHECKING:
    from alight.server.web_tls import Certificates

log = logging.getLogger(__name__)
_SHUTDOWN_SECONDS = 40.0


class Server:
    """A running control plane. Made by ``start``; ``close`` flushes and lets go of everything."""

    def __init__(self, settings: Settings, server_id: str) -> None:
        self.settings = settings
        self.server_id = server_id
        self.started_at = time.time()
        self.address = ""
        self.web_address = ""
        self.fingerprint = ""
        self.stop_asked = asyncio.Event()
        self.parts: Parts
        self.front: Front
        self.measuring: Measuring
        self.dashboard: Dashboard
        self._usage: Usage
        self._billing: Billing
        self._stored: StoredUsage
        self._budgets: BudgetKeeper
        self._schedules: Schedules
        self.blob_users: BlobUsers
        self._janitor: Janitor
        self._reviver: Reviver
        self._listeners: list[asyncio.AbstractServer] = []
        self._certificates: Certificates | None = None

    def info(self) -> ServerInfo:
        """What ``alight server status`` shows."""
        return ServerInfo(
            self.server_id,
            __version__,
            os.getpid(),
            self.started_at,
            str(self.settings.home),
            self.address,
            self.fingerprint,
            self.parts.nodes.summaries(),
        )

    async def stop(self) -> None:
        """End machines with all their containers, then this process (``alight server stop``)."""
        nodes = self.parts.nodes
        for node_id in list(nodes.sessions):
            nodes.send(node_id, Command("shutdown"))
        await nodes.wait_nobody(_SHUTDOWN_SECONDS)
        # The answer goes out before the listeners close.
        asyncio.get_running_loop().call_later(0.05, self.stop_asked.set)

    async def listen_unix(self) -> None:
        """The local socket, for this machine's users as far as its mode lets them."""
        path = self.settings.run / "server.sock"
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.bind(str(path))
        group = users_group() if os.getuid() == 0 else None
        if group is None:
            path.chmod(0o600)
        else:  # the system's server: members of the group are its users
            os.chown(self.settings.run, 0, group)
            self.settings.run.chmod(0o710)
            os.chown(path, 0, group)
            path.chmod(0o660)
        self._listeners.append(await serve(sock, self._answers()))

    async def listen_tcp(self) -> None:
        """TCP with TLS, where the settings say so."""
        wanted = self.settings.listen_address()
        if wanted is None:
            return
        from alight.server import tls  # noqa: PLC0415  a server for the local socket alone does not pay for ssl

        sock = bind(wanted, may_move=not self.settings.listen)
        host, port = sock.getsockname()[:2]
        names = tuple(dict.fromkeys(("localhost", LOOPBACK, "::1", socket.gethostname(), host)))
        certificate = await asyncio.to_thread(tls.load, self.settings.state, names)
        self._listeners.append(await serve(sock, self._answers(), tls=certificate.context))
        self.address, self.fingerprint = f"{bracketed(host)}:{port}", certificate.fingerprint
        self.parts.setup.use_certificate(certificate.fingerprint)

    async def listen_web(self) -> None:
        """The web gateway: its port, and for containers a socket that their machine leads them to."""
        web, names = self.parts.web, self.parts.names
        made = await web_listen.listen(self.settings, web.gateway.client, bind)
        self._listeners += made.listeners
        self._certificates = made.certificates
        if made.base.address:
            self.web_address = made.base.address
            web.gateway.api = self._http_calls().answer
            web.gateway.site = self.dashboard
            web.gateway.directory = Directory(names, self.parts.access, self.parts.tokens).answer
            names.base = made.base
            web.table.names = Names(made.base.domain, made.hosts)

    async def close(self) -> None:
        """Stop taking requests, write down what is under way, close the store."""
        for listener in self._listeners:
            listener.close()
        if self._certificates is not None:
            self._certificates.close()
        parts = self.parts
        self.dashboard.close()
        self._schedules.close()
        self._janitor.close()
        self._reviver.close()
        parts.loop.close()
        self.measuring.close()
        self._stored.close()
        await self._usage.close()
        parts.apps.leases.close()
        parts.nodes.close()
        await parts.calls.drain()
        await self.front.close()
        await parts.shared.store.close()
        await parts.store.close()
        parts.logs.close()
        for name in ("server.sock", "web.sock"):
            (self.settings.run / name).unlink(missing_ok=True)

    def routes(self) -> Routes:
        """Every method that this server answers."""
        parts = self.parts
        running = parts.nodes.reports.running
        watching = apps_routes.Watching(parts.store, parts.hub, parts.logs, parts.containers)
        return {
            **info_routes.routes(self.info, self.stop),
            **apps_routes.routes(parts.apps, parts.functions, parts.containers, watching),
            **calls_routes.routes(parts.calls, parts.functions, parts.apps, self._views().sentence),
            **call_views_routes.routes(self._views(), parts.store),
            **containers_routes.routes(self._container_views(), parts.containers, parts.nodes, parts.inbox),
            **billing_routes.routes(self._usage, self._billing, self._budgets, parts.apps, self._views()),
            **dashboard_routes.routes(
                self.dashboard.link,
                FunctionViews(parts.store, parts.functions, self._views().stats),
                self._views(),
                InputViews(parts.store, self._views(), parts.calls, parts.functions),
                self._audits,
            ),
            **deployments_routes.routes(
                parts.deployments,
                Environments(parts.store, parts.apps),
                deployments_routes.Describer(parts.store, parts.apps, parts.functions, parts.containers),
            ),
            **dicts_routes.routes(parts.shared.dict_names, parts.shared.dicts),
            **queues_routes.routes(parts.shared.queue_names, parts.shared.queues),
            **ephemeral_routes.routes(parts.ephemeral),
            **execs_routes.routes(Execs(parts.containers, parts.nodes, parts.secrets), parts.apps, parts.containers),
            **functions_routes.routes(parts.apps, parts.functions, self._views().stats),
            **self.measuring.routes(self._container_views()),
            **images_routes.routes(parts.images, parts.apps),
            **logs_routes.routes(LogViews(parts.store, parts.logs, parts.hub, parts.containers, running)),
            **volumes_routes.routes(parts.volumes, parts.containers),
            **volume_history_routes.routes(parts.volumes, parts.volumes.versions),
            **nodes_routes.routes(parts.nodes),
            **blobs_routes.routes(parts.blobs),
            **backup_routes.routes(self._backup()),
            **schedules_routes.routes(self._schedules),
            **secrets_routes.routes(parts.secrets, parts.store),
            **setup_routes.routes(parts.setup, parts.tokens),
            **terminals_routes.routes(Terminals(), parts.apps, parts.containers),
            **tokens_routes.routes(parts.tokens),
            **web_routes.routes(parts.functions, parts.names, self._inside(), parts.access, parts.web.gateway),
        }

    def _backup(self) -> Backup:
        parts = self.parts
        return Backup(self.settings, self.server_id, parts.store, parts.blobs, parts.secrets, parts.nodes)

    def _http_calls(self) -> HttpCalls:
        parts = self.parts
        calls = JsonCalls(parts.calls, parts.functions, parts.apps, parts.blobs)
        return HttpCalls(calls, parts.access, parts.tokens)

    def _make_accounts(self) -> None:
        """Who accounts for what containers have, what it costs, and what it may cost."""
        parts, prices = self.parts, PriceFile(self.settings.home)
        self._usage = Usage(parts.store, parts.functions, parts.loop.state, prices)
        self._stored = StoredUsage(parts.store, parts.volumes, self._usage)
        self._billing = Billing(parts.store, self._usage, prices)
        self._budgets = BudgetKeeper(parts.store, parts.apps, self._usage, parts.inbox, parts.hub)
        parts.containers.accounts, parts.loop.accounts = self._usage, self._usage.after_step
        parts.nodes.reports.on_usage.append(self._usage.on_usage)
        parts.apps.on_start.append(self._budgets.look)

    def _make_dashboard(self) -> Dashboard:
        parts = self.parts
        changes = Changes(parts.loop.state, parts.functions.by_id, parts.apps.alive, self._views())
        return Dashboard(
            DashboardAround(
                parts.store,
                parts.tokens,
                parts.names,
                self._audits,
                changes,
                parts.loop,
                self.server_id,
                self.settings.web_terminal,
            )
        )

    def _inside(self) -> web_routes.Inside:
        return web_routes.Inside(self.parts.containers, self.parts.nodes, str(self.settings.run / "web.sock"))

    def _views(self) -> CallViews:
        parts = self.parts
        return CallViews(parts.store, parts.loop.state, parts.functions, parts.apps, parts.calls)

    def _container_views(self) -> ContainerViews:
        return ContainerViews(self.parts.store, self.parts.nodes)

    def quick_routes(self) -> QuickRoutes:
        """The methods that are asked so often that a task for each would be most of their cost."""
        parts = self.parts
        return {
            **calls_routes.quick_routes(parts.calls, parts.functions, self._views().sentence),
            **dicts_routes.quick_routes(parts.shared.dict_names, parts.shared.dicts),
            **queues_routes.quick_routes(parts.shared.queue_names, parts.shared.queues),
        }

    async def assemble(self, store: SqliteStore) -> None:
        """Make every part and take up what an earlier process left."""
        self.parts = parts = make_parts(self.settings, store)
        late = self.settings.schedules_late
        self._schedules = Schedules(
            store, parts.apps, parts.functions, parts.calls, self._views(), parts.hub, late=late
        )
        self._schedules.is_held = lambda app_id: app_id in parts.loop.state.budgets
        self._audits = Audits(store, parts.hub)
        self.measuring = Measuring(parts, self.settings, self._views().stats)
        self._make_accounts()
        self.dashboard = self._make_dashboard()
        routes = self.dashboard.routes = self.routes()
        self.front = Front(self.server_id, routes, self.quick_routes(), parts.containers, parts.tokens)
        parts.blobs.open()
        parts.calls.outcomes.let_go = parts.blobs.let_go
        parts.apps.on_stop += [parts.calls.forget_app, lambda app_id, why: self._schedules.look()]
        ahead = Ahead(parts.apps, parts.functions, parts.images, parts.secrets, parts.nodes)

        def changed() -> None:
            self._schedules.look()
            ahead.look()

        parts.deployments.on_change, parts.nodes.on_join = changed, ahead.look
        words = SystemLog(parts.logs, parts.hub, parts.apps.alive)
        parts.apps.on_stop.append(words.ended)
        parts.deployments.on_word = words.say
        parts.calls.outcomes.on_failed = FailureLines(words, parts.functions.by_id).failed
        parts.containers.starts.on_wait = partial(words.waiting, parts.functions)
        await parts.secrets.load()
        await parts.apps.load()
        await parts.access.load()
        await parts.ephemeral.open()
        await parts.containers.load()
        await self._usage.load()
        await self._budgets.load()
        self._stored.start()
        machines = {record.node_id for record in parts.containers.alive.values()}
        taken_up = await parts.calls.load()
        await parts.deployments.resume()
        for node_id in machines:
            parts.nodes.expect(node_id)
        if not machines:
            parts.calls.release()
        await self._schedules.open()
        self._reviver = Reviver(self.settings.home)
        parts.nodes.on_leave = self._reviver.look
        self._reviver.look()
        if taken_up or parts.apps.alive:
            log.info("took up %d apps and %d unfinished inputs", len(parts.apps.alive), taken_up)
        self._janitor = Janitor(store, parts.blobs, parts.logs, parts.images, self.settings)
        self.blob_users = BlobUsers(store, parts.blobs, self.settings)
        self.blob_users.claimed.append(parts.shared.dicts.blobs)
        self._janitor.more += [parts.ephemeral.expire, parts.shared.clean, self.blob_users.sweep, self._audits.forget]
        self._janitor.more += [parts.secrets.forget_unused, self.measuring.measures.sweep]
        self._janitor.more += [self._usage.forget, self._budgets.forget]
        self.measuring.open()
        self._janitor.start()

    def _answers(self) -> Answers:
        return Answers(
            on_stream=self.front.on_stream,
            at_once=self.front.at_once,
            on_hello=self.front.on_hello,
            on_close=self.front.on_close,
            http=lambda: http.Greeter(self.dashboard.rest, self._http_calls(), self.measuring.page),
        )


async def start(settings: Settings) -> Server:
    """A server with its state, before it listens. The caller holds the lock of the state directory."""
    for folder in (settings.home, settings.run, settings.state, settings.log):
        folder.mkdir(parents=True, exist_ok=True)
    settings.run.chmod(0o700)
    settings.state.chmod(0o700)
    store = await open_store(settings.state / "alight.db")
    try:
        await store.write([("meta_set", {"key": "server_id", "value": ids.new_id("sv")})])
        row = await store.one("meta_get", key="server_id")
        server = Server(settings, str(row["value"]) if row is not None else "")
        await server.assemble(store)
    except BaseException:
        await store.close()
        raise
    return server
