"""Deployed apps: versions, one after the other, each published as a whole and only if it comes up.

A publish is one transaction. After it the scheduler starts containers of changed functions (``services/trials.py`` says
of which) and lets the old ones serve until they are ready (``scheduler/publishing.py``); when one does not come up,
everything is as it was before and the version stays in the history as one that failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from alight.server.auth import OWNER, Principal
from alight.server.services.apps import App, Apps
from alight.server.services.containers import Containers
from alight.server.services.deployment_rows import Wish, row_of, rows_of, version_of
from alight.server.services.functions import Functions, Trial
from alight.server.services.published import Change, shown_name, spoken_name
from alight.server.services.staging import Staging
from alight.server.services.trials import Attempt, Before, outcome, taken_up
from alight.store.base import Statement, Store
from alight.wire import deploying, errors, ids
from alight.wire.codec import from_plain
from alight.wire.deploying import (
    DeployBack,
    DeployBegin,
    DeployBegun,
    DeployDone,
    DeployHistory,
    DeployOver,
    DeployPublish,
    DeployVersions,
)
from alight.wire.messages import AppCreate
from alight.wire.spec import FunctionSpec
from alight.wire.states import AppState

log = logging.getLogger(__name__)

TAG_MOST = 50  # characters of the tag of a version
#: Sees that the images of these functions are there. Raises what keeps them from being made.
Ensure = Callable[[tuple[FunctionSpec, ...], App], Awaitable[None]]


class Deployments:
    """Verbs on deployed apps. ``ensure`` has images made; ``most`` versions of an app can be gone back to."""

    def __init__(  # noqa: PLR0913  what it depends on
        self,
        store: Store,
        apps: Apps,
        functions: Functions,
        containers: Containers,
        staging: Staging,
        ensure: Ensure,
        *,
        most: int,
    ) -> None:
        self._store = store
        self._staging = staging
        self._containers = containers
        self._apps = apps
        self._functions = functions
        self._ensure = ensure
        self._most = most
        self._under_way: dict[str, tuple[str, asyncio.Task[DeployDone]]] = {}  # by app: whose, and what comes of it
        self.on_change: Callable[[], None] = lambda: None  # an app has another version, or not after all
        self.on_word: Callable[[str, str], None] = lambda app_id, text: None  # what is worth a line in the app's log

    async def begin(self, asked: DeployBegin, environment: str, who: Principal) -> DeployBegun:
        """The deployed app of a name, or a new one that is nobody's to find yet. Raises InvalidError for a bad name."""
        if not asked.name:
            raise errors.InvalidError("an app needs a name to be deployed", hint='App("name"), or --name')
        ids.check_name(asked.name, "app")
        ids.check_environment(environment)
        found = self._apps.deployed(asked.name, environment)
        if found is not None:
            self._check_mine(found, who)
            return DeployBegun(found.app_id, environment, found.version, found=True)
        create = AppCreate(description=f"{asked.name} (being deployed)", environment=environment)
        created = await self._apps.create(create, environment, who)
        return DeployBegun(created.app_id, environment)

    async def publish(self, asked: DeployPublish, who: Principal) -> DeployDone:
        """The next version of an app. Returns when it serves, or has come up where it is only ``staged``.

        Raises ConflictError when somebody else was faster, InvalidError for what cannot be, and what kept it from
        coming up: then the version before serves on.
        """
        known = await self._known(asked.deploy_id)
        if known is not None:
            return known
        app = self._apps.get(asked.app_id, who)
        self._check_mine(app, who)
        ids.check_name(asked.name, "app")
        if not asked.functions:
            raise errors.InvalidError(
                f"the app {asked.name} has no functions to deploy", hint="decorate one with @app.function()"
            )
        if len(asked.tag) > TAG_MOST:
            raise errors.InvalidError(
                f"the tag of a version has at most {TAG_MOST} characters, and this one has {len(asked.tag)}"
            )
        self._check_free(app, asked.name)
        if asked.base != app.version:
            at = time.strftime("%H:%M:%S", time.localtime(app.deployed_at or 0))
            raise errors.ConflictError(
                f"{asked.name} was deployed by somebody else meanwhile: {app.deployed_by or 'they'} published "
                f"v{app.version} at {at}",
                hint="look at `alight app history`, and deploy again if yours is still what should run",
            )
        row = {
            "deploy_id": asked.deploy_id,
            "tag": asked.tag,
            "git_commit": asked.commit,
            "dirty": int(asked.dirty),
            "client": asked.client,
            "origin": 0,
        }
        wish = Wish(app, who, asked.name, asked.functions, _strategy(asked.strategy), asked.tags, row)
        return await self._alone(wish, self._stage(wish) if asked.staged else self._make(wish))

    async def promote(self, asked: DeployBack, app: App, who: Principal) -> DeployDone:
        """A staged version serves, as a new one. Raises as ``rollback``, and ConflictError for what was not staged."""
        return await self.rollback(asked, app, who, staged=True)

    async def rollback(self, asked: DeployBack, app: App, who: Principal, *, staged: bool = False) -> DeployDone:
        """An earlier version again, as a new one. Raises NotFoundError for one that there is not, or not any more."""
        known = await self._known(asked.deploy_id)
        if known is not None:
            return known
        self._check_mine(app, who)
        self._check_free(app, app.name)
        version = asked.version or await self._before(app)
        found = await self._store.one("deployment_of_app", app_id=app.app_id, version=version)
        if found is None:
            raise errors.NotFoundError(f"{app.name} has no version v{version}", hint=f"alight app history {app.name}")
        if found["failed"]:
            raise errors.ConflictError(f"v{version} of {app.name} did not come up when it was deployed")
        if bool(found["staged"]) != staged:
            what, verb = ("was only staged", "promote") if found["staged"] else ("has served already", "rollback")
            raise errors.ConflictError(
                f"v{version} of {app.name} {what}", hint=f"alight app {verb} {app.name} v{version}"
            )
        if found["specs"] is None:
            raise errors.NotFoundError(
                f"v{version} of {app.name} is too old to go back to: the last {self._most} are kept",
                hint="deploy it again from its source",
            )
        specs = tuple(from_plain(FunctionSpec, one) for one in json.loads(found["specs"]))
        await self._ensure(specs, app)
        row = {
            "deploy_id": asked.deploy_id,
            "tag": found["tag"],
            "git_commit": found["git_commit"],
            "dirty": found["dirty"],
            "client": asked.client,
            "origin": version,
        }
        tags = json.loads(found["tags"])
        wish = Wish(app, who, app.name, specs, _strategy(asked.strategy), tags, row)
        return await self._alone(wish, self._make(wish))

    async def rollover(self, asked: DeployOver, app: App, who: Principal) -> DeployDone:
        """The same version in fresh containers. Raises what keeps them from coming up: then the old ones serve on."""
        self._check_mine(app, who)
        self._check_free(app, app.name)
        specs = tuple(one.spec for one in self._functions.of_app(app.app_id))
        wish = Wish(app, who, app.name, specs, _strategy(asked.strategy), renew=True)
        return await self._alone(wish, self._make(wish))

    async def resume(self) -> None:
        """Go on with the trials that an earlier server process did not see the end of."""
        for row in await self._store.read("trials_open"):
            app = self._apps.alive.get(row["app_id"])
            if app is None:
                await self._store.write([("trial_over", {"app_id": row["app_id"]})])
                continue
            attempt = taken_up(row, app, self._functions.by_id)
            log.info("app %s: the trial of %s goes on", app.app_id, attempt.what)
            trials = self._functions.resume(attempt.change)
            task = self._under_way_from(app.app_id, attempt.who, self._prove(attempt, trials))
            task.add_done_callback(_said_in_the_log)

    async def history(self, asked: DeployHistory, environment: str, who: Principal) -> DeployVersions:
        """Versions of an app, newest first; of stopped ones, too. Raises NotFoundError."""
        rows = await self._store.read(
            "apps_recent",
            environment=environment,
            owner="" if who.kind == OWNER else who.owner,
            name_or_id=asked.app,
            limit=1000,
        )
        rows = [row for row in rows if row["version"] or row["state"] == AppState.DEPLOYED]
        if not rows:
            raise errors.NotFoundError(
                f"there is no deployed app {asked.app!r} in the environment {environment!r}",
                hint="`alight app list` shows what there is",
            )
        app = next((row for row in rows if row["state"] == AppState.DEPLOYED), rows[0])
        limit = max(1, min(asked.limit, 10_000))
        found = await self._store.read("deployments_of_app", app_id=app["app_id"], limit=limit)
        return DeployVersions(app["app_id"], app["name"], app["version"], tuple(version_of(row) for row in found))

    # inside

    def _check_mine(self, app: App, who: Principal) -> None:
        if who.kind != OWNER and app.owner != who.owner:
            raise errors.PermissionDeniedError(
                f"the app {app.name!r} in the environment {app.environment!r} belongs to somebody else",
                hint="deploy yours under another name, or in another environment: -e NAME",
            )

    def _check_free(self, app: App, name: str) -> None:
        under_way = self._under_way.get(app.app_id)
        if under_way is not None:
            raise errors.ConflictError(
                f"{name} is being deployed just now, by {under_way[0]}", hint="try again when that has ended"
            )

    async def _known(self, deploy_id: str) -> DeployDone | None:
        """What came of a deploy whose client lost its connection and asks again."""
        row = await self._store.one("deployment_by_id", deploy_id=deploy_id) if deploy_id else None
        if row is None:
            return None
        under_way = self._under_way.get(row["app_id"])
        if under_way is not None:
            return await asyncio.shield(under_way[1])
        if row["failed"]:
            raise errors.RemoteError(row["failed"])
        if row["staged"]:
            return DeployDone(row["app_id"], row["version"], staged=True)
        named = self._functions.of_app(row["app_id"])
        return DeployDone(row["app_id"], row["version"], functions=tuple(self._functions.answer(one) for one in named))

    async def _before(self, app: App) -> int:
        rows = await self._store.read("deployments_of_app", app_id=app.app_id, limit=10_000)
        earlier = [
            row["version"] for row in rows if row["version"] < app.version and not row["failed"] and not row["staged"]
        ]
        if not earlier:
            raise errors.NotFoundError(f"{app.name} has one version only: there is nothing to go back to")
        return int(earlier[0])

    async def _alone(self, wish: Wish, work: Coroutine[Any, Any, DeployDone]) -> DeployDone:
        """One at a time for each app; it goes on when whoever asked for it is gone."""
        return await asyncio.shield(self._under_way_from(wish.app.app_id, wish.who.owner, work))

    def _under_way_from(self, app_id: str, who: str, work: Coroutine[Any, Any, DeployDone]) -> asyncio.Task[DeployDone]:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way[app_id] = (who, task)
        task.add_done_callback(lambda _: (self._under_way.pop(app_id, None), self.on_change()))
        return task

    async def _plan(self, wish: Wish) -> tuple[int, Change, dict[str, str]]:
        """The number that comes next, and what is different in it: functions, and the app's tags."""
        app = wish.app
        last = await self._store.one("deployment_last", app_id=app.app_id)
        following = (last["version"] if last is not None else 0) + 1
        change = self._functions.plan(
            app.app_id,
            app.environment,
            app.owner,
            wish.specs,
            gone=f"%s is not in v{following} of {wish.name} any more",
            renew=wish.renew,
            deployed=True,
        )
        return following, change, app.tags if wish.tags is None else wish.tags

    async def _stage(self, wish: Wish) -> DeployDone:
        """See whether a version would come up, and keep it. Raises what keeps it from doing so."""
        app = wish.app
        async with self._functions.changing:
            number, change, tags = await self._plan(wish)
        if app.version and not change.is_new and tags == app.tags:
            return DeployDone(app.app_id, app.version, changed=False, staged=True)
        tried = await self._staging.try_out(app, f"{wish.name} v{number}", wish.specs, wish.who)
        if app.app_id not in self._apps.alive:
            raise errors.ConflictError(f"{wish.name} was stopped while it was deployed")
        is_first = app.state != AppState.DEPLOYED
        statements = [row_of(wish, number, tags, staged=True)]
        if tried.failed is not None:
            function, error = tried.failed
            said = str(error.get("message") or "nobody knows why")
            why = f"v{number} of {wish.name} did not come up: {function} ended before it could take an input"
            failure = {"app_id": app.app_id, "version": number, "failed": f"{why}: {said}"}
            if not is_first:
                await self._store.write([*statements, ("deployment_failed", failure)])
            hint = f"nothing has changed; `alight app logs {tried.app_id}` has what it printed"
            raise errors.RemoteError(f"{why}\n{said}", hint=f"{error['hint']}; {hint}" if error.get("hint") else hint)
        if is_first:  # from now on it has its name, and waits
            nothing = {"app_id": app.app_id, "version": 0, "now": None, "who": "", "tags": json.dumps(tags)}
            statements.append(("app_deploy", {**nothing, "name": wish.name}))
        await self._publish([*statements, ("deployments_too_old", {"app_id": app.app_id, "most": self._most})], wish)
        if is_first:
            app.name = app.description = wish.name
            app.state, app.tags = AppState.DEPLOYED, dict(tags)
            self._apps.leases.forget(app.app_id)
        gone = tuple(shown_name(one.key) for one in change.gone if not one.base)
        return DeployDone(app.app_id, number, functions=tried.functions, gone=gone, notes=tried.notes, staged=True)

    async def _make(self, wish: Wish) -> DeployDone:
        app, before = wish.app, Before.of(wish.app)
        async with self._functions.changing:
            number = app.version
            following, change, tags = await self._plan(wish)
            new = not wish.renew and (change.is_new or not app.version or tags != app.tags or bool(wish.row["origin"]))
            statements = change.statements
            if new:
                number = following
                statements += rows_of(wish, number, tags)
            attempt = Attempt(app, wish.name, number, wish.who.owner, before, change, wish.renew)
            if new or wish.renew:
                statements.append(attempt.begin)
            if statements:
                await self._publish(statements, wish)
            if app.app_id not in self._apps.alive:
                raise errors.ConflictError(f"{wish.name} was stopped while it was deployed")
            if new:
                self._take(app, wish, number, tags)
            trial = new or wish.renew
            trials = self._functions.carry_out(change, trial=trial, recreate=wish.strategy == deploying.RECREATE)
        if not trial:
            return self._done(attempt, ())
        return await self._prove(attempt, trials)

    async def _publish(self, statements: list[Statement], wish: Wish) -> None:
        try:
            await self._store.write(statements)
        except errors.AlreadyExistsError:
            raise errors.ConflictError(
                f"another app {wish.name!r} was deployed meanwhile, in the environment {wish.app.environment!r}",
                hint=f"look at `alight app history {wish.name}`, and deploy again to become its next version",
            ) from None

    async def _prove(self, attempt: Attempt, trials: dict[str, Trial]) -> DeployDone:
        """See whether a version comes up. Raises what keeps it from doing so, once everything is as it was before."""
        named = {one.function_id: spoken_name(one.key) for one in attempt.change.changed}
        failed, notes = await outcome({key: (named[key], trial) for key, trial in trials.items()})
        if failed is not None:
            await self._take_back(attempt, failed)
        too_old = {"app_id": attempt.app.app_id, "most": self._most}  # not before: until now it could be gone back to
        await self._store.write([attempt.over, ("deployments_too_old", too_old)])
        return self._done(attempt, notes)

    def _done(self, attempt: Attempt, notes: tuple[str, ...]) -> DeployDone:
        app, change = attempt.app, attempt.change
        changed = attempt.renew or attempt.number != attempt.before.version
        gone = tuple(shown_name(one.key) for one in change.gone if not one.base)
        answers = tuple(self._functions.answer(one) for one in change.named)
        return DeployDone(app.app_id, attempt.number, changed=changed, functions=answers, gone=gone, notes=notes)

    def _take(self, app: App, wish: Wish, number: int, tags: dict[str, str]) -> None:
        app.name = app.description = wish.name
        app.state, app.version, app.tags = AppState.DEPLOYED, number, dict(tags)
        app.deployed_at, app.deployed_by = time.time(), wish.who.owner
        self.on_word(app.app_id, f"v{number} of {wish.name} is deployed by {wish.who.owner or 'the owner'}")
        self._apps.leases.forget(app.app_id)

    async def _take_back(self, attempt: Attempt, failed: tuple[str, dict[str, Any]]) -> None:
        """The version did not come up: all is as it was before. Raises what kept it from coming up."""
        app, number, before, (function, error) = attempt.app, attempt.number, attempt.before, failed
        said = str(error.get("message") or "nobody knows why")
        why = f"{attempt.what} did not come up: {function} ended before it could take an input"
        log.warning("app %s: %s: %s", app.app_id, why, said.splitlines()[0])
        self.on_word(app.app_id, f"{why}: {said.splitlines()[0]}")
        if app.app_id in self._apps.alive:
            async with self._functions.changing:
                back = self._functions.back(attempt.change, f"v{number} of {attempt.name} did not come up")
                statements = [*back.statements, *self._containers.again(attempt.change.before, back), attempt.over]
                if not attempt.renew:
                    failure = {"app_id": app.app_id, "version": number, "failed": f"{why}: {said}"}
                    statements.append(("deployment_failed", failure))
                    statements.append(("app_version", {"app_id": app.app_id, **before.row}))
                await self._store.write(statements)
                before.restore(app)
                self._functions.carry_back(back)
            staged = await self._has_versions(app)
            if not before.version and not staged:
                await self._apps.stop(app.app_id, f"its first version did not come up: {said}", attempt.who)
        hint = f"v{before.version} serves on" if before.version else "nothing was deployed"
        if error.get("hint"):
            hint = f"{error['hint']}; {hint}"
        raise errors.RemoteError(f"{why}\n{said}", hint=hint)

    async def _has_versions(self, app: App) -> bool:
        rows = await self._store.read("deployments_of_app", app_id=app.app_id, limit=10_000)
        return any(not row["failed"] for row in rows)


def _said_in_the_log(task: asyncio.Task[DeployDone]) -> None:
    if not task.cancelled() and task.exception() is not None and not isinstance(task.exception(), errors.RemoteError):
        log.error("a trial that went on ended with an error", exc_info=task.exception())


def _strategy(text: str) -> str:
    if text not in deploying.STRATEGIES:
        raise errors.InvalidError(f"{text!r} is no strategy of a deploy", hint=f"{' or '.join(deploying.STRATEGIES)}")
    return text
