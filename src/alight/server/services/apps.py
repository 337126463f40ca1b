"""Apps: from the moment a client makes one until it is stopped.

An ephemeral app (``running``) lives while a client holds it; detached and deployed ones need no holder. A stopped app
is gone from memory; its rows, logs and results stay for their time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from alight.scheduler.events import AppEnded
from alight.server.auth import CONTAINER, OWNER, Principal
from alight.server.events import Inbox
from alight.server.leases import Leases
from alight.server.services.functions import Functions
from alight.server.services.hub import Hub
from alight.server.services.published import is_variant
from alight.store.base import Statement, Store
from alight.wire import errors, ids
from alight.wire.messages import AppCreate, AppCreated, AppList, AppListed, AppSummary
from alight.wire.states import AppState

log = logging.getLogger(__name__)
_APP_ID = re.compile(rf"{ids.APP}-[0-9A-Za-z]{{22}}")
_KINDS = {AppState.RUNNING, AppState.DETACHED, AppState.DEPLOYED}


@dataclass
class App:
    """A living app."""

    app_id: str
    name: str
    description: str
    environment: str
    state: str
    owner: str
    created_at: float
    tags: dict[str, str] = field(default_factory=dict)
    version: int = 0
    deployed_at: float | None = None
    deployed_by: str = ""


class Apps:
    """Verbs on apps. ``on_stop`` lets calls and images end what belongs to a stopped app."""

    def __init__(self, store: Store, functions: Functions, hub: Hub, inbox: Inbox, grace: float) -> None:
        self._store = store
        self._functions = functions
        self._hub = hub
        self._inbox = inbox
        self._grace = grace
        self._tasks: set[asyncio.Task[None]] = set()
        self.leases = Leases(grace, self._holder_is_gone)
        self.alive: dict[str, App] = {}
        self.on_stop: list[Callable[[str, str], None]] = []
        self.on_start: list[Callable[[], None]] = []

    async def load(self) -> None:
        """Take up the apps of an earlier server process; holders of ephemeral ones have their time to come back."""
        for row in await self._store.read("apps_alive"):
            app = App(
                row["app_id"],
                row["name"],
                row["description"],
                row["environment"],
                row["state"],
                row["owner"],
                row["created_at"],
                json.loads(row["tags"]),
                row["version"],
                row["deployed_at"],
                row["deployed_by"],
            )
            self.alive[app.app_id] = app
            if app.state == AppState.RUNNING:
                self.leases.begin(app.app_id)
        for row in await self._store.read("functions_of_living_apps"):
            owner = self.alive.get(row["app_id"])
            if owner is not None:
                deployed = owner.state == AppState.DEPLOYED
                self._functions.restore(row, owner.environment, owner.owner, deployed=deployed)

    async def create(self, asked: AppCreate, environment: str, who: Principal) -> AppCreated:
        """A new app, or with ``reuse`` the living one of this name."""
        if asked.kind not in _KINDS:
            raise errors.InvalidError(f"an app cannot begin as {asked.kind!r}")
        ids.check_environment(environment)
        if asked.name:
            ids.check_name(asked.name, "app")
        if asked.reuse:
            for app in self.alive.values():
                if app.name == asked.name and app.environment == environment and _may(who, app.owner):
                    return AppCreated(app.app_id, environment)
        now = time.time()
        app = App(
            ids.new_id(ids.APP),
            asked.name,
            asked.description or asked.name,
            environment,
            asked.kind,
            who.owner,
            now,
            dict(asked.tags),
        )
        row = {
            "app_id": app.app_id,
            "name": app.name,
            "description": app.description,
            "environment": environment,
            "state": app.state,
            "owner": app.owner,
            "tags": json.dumps(app.tags),
            "now": now,
        }
        new_environment = {"name": environment, "owner": who.owner, "now": now}
        try:
            await self._store.write([("environment_add", new_environment), ("app_add", row)])
        except errors.AlreadyExistsError:
            raise errors.AlreadyExistsError(
                f"there is a deployed app {app.name!r} in the environment {environment!r} already",
                hint="choose another name",
            ) from None
        self.alive[app.app_id] = app
        if app.state == AppState.RUNNING:
            self.leases.begin(app.app_id)
        for look in self.on_start:
            look()
        return AppCreated(app.app_id, environment)

    def get(self, app_id: str, who: Principal) -> App:
        """A living app that this principal may touch. Raises NotFoundError, the same for those of others."""
        app = self.alive.get(app_id)
        if app is None or not may_touch(who, app):
            raise errors.NotFoundError(
                f"there is no running app {app_id}", hint="`alight app list` shows those there are"
            )
        return app

    def named(self, name: str, environment: str, who: Principal) -> list[App]:
        """Living apps of this name (or id) whose functions a principal may use: deployed ones first, then the newest.

        Raises NotFoundError naming those there are.
        """
        theirs = [app for app in self.alive.values() if app.environment == environment and _may(who, app.owner)]
        found = [app for app in theirs if name in {app.name, app.app_id} or (not app.name and name == app.description)]
        if not found:
            names = ", ".join(sorted({app.name or app.description for app in theirs} - {""}))
            raise errors.NotFoundError(
                f"there is no running or deployed app {name!r} in the environment {environment!r}",
                hint=f"there is: {names}" if names else "`alight deploy` makes one that stays",
            )
        found.sort(key=lambda app: (app.state == AppState.DEPLOYED, app.created_at), reverse=True)
        return found

    def with_names(self, text: str) -> str:
        """A sentence that names apps by their ids, with the names that they have; a command in it stays one."""

        def named(found: re.Match[str]) -> str:
            app = self.alive.get(found.group())
            name = app.name or app.description if app is not None else ""
            return f"{name} ({found.group()})" if name else found.group()

        parts = text.split("`")
        parts[::2] = [_APP_ID.sub(named, part) for part in parts[::2]]
        return "`".join(parts)

    async def owner_of(self, app_id: str) -> tuple[str, str] | None:
        """Owner and environment of an app, stopped ones too."""
        app = self.alive.get(app_id)
        if app is not None:
            return app.owner, app.environment
        row = await self._store.one("app_by_id", app_id=app_id)
        return (row["owner"], row["environment"]) if row is not None else None

    async def detach(self, app_id: str, who: Principal) -> None:
        """From now on the app needs no holder."""
        app = self.get(app_id, who)
        if app.state == AppState.RUNNING:
            await self._store.write([("app_set_state", {"app_id": app_id, "state": AppState.DETACHED})])
            app.state = AppState.DETACHED
        self.leases.forget(app_id)

    def deployed(self, name: str, environment: str) -> App | None:
        """The deployed app of this name, whoever's it is: there is one in an environment."""
        return next(
            (
                app
                for app in self.alive.values()
                if app.state == AppState.DEPLOYED and app.name == name and app.environment == environment
            ),
            None,
        )

    async def stop(self, app_id: str, reason: str, who: str = "") -> None:
        """End an app: what waits is cancelled, containers stop. Nothing happens when it has ended already."""
        app = self.alive.pop(app_id, None)
        if app is None:
            return
        was, app.state = app.state, AppState.STOPPED
        self.leases.forget(app_id)
        self._inbox.put(AppEnded(app_id))
        self._functions.forget_app(app_id)
        for stopped in self.on_stop:
            stopped(app_id, reason)
        self._hub.stopped(app_id, reason)
        message = f"the app was stopped{f': {reason}' if reason else ''}"
        cancelled = {"app_id": app_id, "now": time.time(), "error": json.dumps({"code": "remote", "message": message})}
        ending: list[Statement] = [
            ("app_stop", {"app_id": app_id, "now": time.time(), "reason": reason, "who": who}),
            ("inputs_cancel_of_app", cancelled),
            ("app_secrets_delete", {"app_id": app_id}),
        ]
        try:
            await self._store.write(ending)
        except errors.ResourceExhaustedError as error:
            if was != AppState.RUNNING:
                raise
            # Nobody holds it: after a restart it ends by itself. Its client must not fail for that.
            log.error("the end of app %s could not be recorded: %s", app_id, error)

    async def list(self, asked: AppList, environment: str, who: Principal) -> AppListed:
        """Apps, newest first; a user sees their own."""
        rows = await self._store.read(
            "apps_recent",
            environment=environment,
            owner="" if who.kind == OWNER else who.owner,
            name_or_id=asked.name_or_id,
            limit=max(1, min(asked.limit, 1000)),
        )
        return AppListed(
            tuple(
                AppSummary(
                    row["app_id"],
                    row["name"],
                    row["description"],
                    row["state"],
                    row["environment"],
                    row["containers"],
                    row["created_at"],
                    row["stopped_at"],
                    tuple(name for name in json.loads(row["functions"]) if not is_variant(name)),
                    row["version"],
                    row["deployed_at"],
                )
                for row in rows
            )
        )

    def _holder_is_gone(self, app_id: str) -> None:
        if app_id not in self.alive:
            return
        reason = f"its client was gone for {self._grace:g} s"
        log.info("app %s ends: %s", app_id, reason)
        task = asyncio.get_running_loop().create_task(self._stop_quietly(app_id, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stop_quietly(self, app_id: str, reason: str) -> None:
        try:
            await self.stop(app_id, reason)
        except errors.Error as error:
            log.error("the end of app %s could not be recorded: %s", app_id, error)


def may_touch(who: Principal, app: App) -> bool:
    """Whether a principal may use an app: the server's owner any, users their own, a container its own."""
    if who.kind == CONTAINER:
        return app.app_id == who.app_id
    return _may(who, app.owner)


def _may(who: Principal, owner: str) -> bool:
    return who.kind == OWNER or who.owner == owner
