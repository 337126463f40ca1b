"""Schedules of deployed functions: runs begin at their moments, each once, whatever happens to the server.

What is due is decided in ``scheduler/schedules.py`` from what the store has. A run is written down before its call is
made, with the id that the call will have: a server that dies in between leaves a run that the next one makes under the
same id, which is never two. A run is a call without arguments that nobody waits for; earlier ones may still go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from alight.scheduler import schedules as timetables
from alight.server import faults
from alight.server.auth import OWNER, Principal
from alight.server.services.apps import App, Apps
from alight.server.services.call import Call
from alight.server.services.call_views import CallViews
from alight.server.services.calls import Calls
from alight.server.services.functions import Functions
from alight.server.services.hub import Hub
from alight.server.services.published import Published
from alight.server.services.schedule_entry import Entry, from_row
from alight.store.base import Statement, Store
from alight.wire import errors, ids, payload
from alight.wire.calling import CallStart
from alight.wire.messages import AppEvent
from alight.wire.scheduling import ScheduleRan, ScheduleSummary
from alight.wire.states import AppState

log = logging.getLogger(__name__)

VERB = "schedule"
_NOTHING = payload.dumps_bytes(((), {}))  # a call without arguments
_LONGEST = 60.0  # seconds without a look: the clock on the wall may jump
_AGAIN = 10.0  # seconds until something that failed is tried again
_KEPT = "waiting", "running"


class Schedules:
    """Runs what is due, and answers for it. ``late``: how old a missed run may be that is made up."""

    def __init__(  # noqa: PLR0913  everything that a call needs, and the words about it
        self,
        store: Store,
        apps: Apps,
        functions: Functions,
        calls: Calls,
        views: CallViews,
        hub: Hub,
        *,
        late: float | None,
    ) -> None:
        self._store = store
        self._apps = apps
        self._functions = functions
        self._calls = calls
        self._views = views
        self._hub = hub
        self._late = late
        self.is_held: Callable[[str], bool] = lambda app_id: False  # whether an app's budget is used up
        self._entries: dict[str, Entry] = {}
        self._changing = asyncio.Lock()
        self._news = asyncio.Event()
        self._stale = True
        self._tasks: set[asyncio.Task[None]] = set()
        calls.outcomes.on_over = self._on_over

    async def open(self) -> None:
        """Take up what an earlier server process left, and begin."""
        for row in await self._store.read("schedules_all"):
            entry = from_row(row)
            if entry is not None:
                self._entries[entry.function_id] = entry
        for entry in list(self._entries.values()):
            if entry.call_id and entry.begun and not entry.status and entry.call_id not in self._calls.live:
                await self._settle(entry.call_id, entry.function_id)
        self._begin_task(self._forever())

    def close(self) -> None:
        """Begin no more runs."""
        for task in self._tasks:
            task.cancel()

    def look(self) -> None:
        """Apps were deployed, or stopped."""
        self._stale = True
        self._news.set()

    # asking

    async def listed(self, app: str, environment: str, who: Principal) -> list[ScheduleSummary]:
        """Schedules of one app or of all, by app and function. Raises NotFoundError for an app that there is not."""
        async with self._changing:
            await self._sync(time.time())
        only = {one.app_id for one in self._apps.named(app, environment or "main", who)} if app else None
        found = []
        for entry in self._entries.values():
            owner = self._apps.alive.get(entry.app_id)
            if owner is None or not (who.kind == OWNER or owner.owner == who.owner):
                continue
            if (environment or owner.environment) == owner.environment and (only is None or owner.app_id in only):
                found.append(await self._summary(entry))
        return sorted(found, key=lambda one: (one.environment, one.app, one.function))

    async def run_now(self, app: str, function: str, environment: str, who: Principal) -> ScheduleRan:
        """One run beside those that come, also of a schedule that is paused."""
        async with self._changing:
            entry, published = await self._find(app, function, environment, who)
            await self._run(entry, None, entry.done, time.time())
            if not entry.begun:
                raise errors.ServiceError(
                    f"the run could not begin: {entry.error}", hint="the server tries again; `alight schedule list`"
                )
            return ScheduleRan(published.spec.name, entry.call_id)

    async def pause(
        self, app: str, function: str, environment: str, who: Principal, *, paused: bool
    ) -> ScheduleSummary:
        """No runs until it is resumed; what was due meanwhile is not made up."""
        async with self._changing:
            entry, _ = await self._find(app, function, environment, who)
            if entry.paused != paused:
                done = max(entry.done, time.time())
                row = {"function_id": entry.function_id, "paused": int(paused), "done": done}
                await self._store.write([("schedule_pause", row)])
                entry.paused, entry.done = paused, done
        self._news.set()
        return await self._summary(entry)

    # inside, keeping time

    async def _forever(self) -> None:
        while True:
            self._news.clear()
            now = time.time()
            try:
                when = await self._step(now)
            except errors.Error as error:
                log.error("schedules wait: %s", error)
                when = now + _AGAIN
            except Exception:  # one fault must not stop the schedules of everybody
                log.exception("fault %s in the schedules", os.urandom(4).hex())
                when = now + _AGAIN
            try:
                await asyncio.wait_for(self._news.wait(), min(_LONGEST, max(0.001, when - time.time())))
            except asyncio.TimeoutError:
                continue

    async def _step(self, now: float) -> float:
        """Begin what is due; returns when to look again."""
        async with self._changing:
            await self._sync(now)
            when, work = now + _LONGEST, []
            for entry in self._entries.values():
                found = timetables.look(entry.table, entry.since, entry.done, now, self._late)
                if found.run is not None and not entry.paused and await self._waits_for_a_budget(entry):
                    work.append(self._skip(entry, found.run, found.done, "another one waits for its app's budget"))
                elif found.run is not None and not entry.paused:
                    work.append(self._run(entry, found.run, found.done, now))
                elif found.skipped is not None and not entry.paused:
                    work.append(self._skip(entry, found.skipped, found.done, "it is too old to be made up"))
                elif not entry.begun and entry.again <= now:
                    work.append(self._begin(entry))
                if found.next is not None and not entry.paused:
                    when = min(when, found.next)
            # Together: they share the commits.
            for failed in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(failed, errors.Error):
                    log.error("a scheduled run could not begin: %s", failed)
                    when = min(when, now + _AGAIN)
                elif isinstance(failed, BaseException):
                    raise failed
            return min([when, *(entry.again for entry in self._entries.values() if not entry.begun)])

    async def _waits_for_a_budget(self, entry: Entry) -> bool:
        """Whether a run of it waits that may not begin: a month of those would all run when the next one begins."""
        return self.is_held(entry.app_id) and entry.begun and await self._status(entry) == "waiting"

    async def _skip(self, entry: Entry, moment: float, done: float, why: str) -> None:
        row = {"function_id": entry.function_id, "done": done, "was": entry.done}
        await self._store.write([("schedule_skip", row)])
        entry.done = done
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
        log.info("%s: the run of %s is left out: %s", self._name(entry), at, why)

    async def _run(self, entry: Entry, due: float | None, done: float, now: float) -> None:
        """Write down that a run begins, then make its call. Whoever else has begun it has it."""
        call_id = ids.new_id(ids.CALL)
        row = {
            "function_id": entry.function_id,
            "call_id": call_id,
            "due": due,
            "now": now,
            "done": done,
            "was": entry.done,
            "last": entry.call_id,
        }
        changed = await self._store.write([("schedule_run", row)])
        if not changed[0]:
            rows = await self._store.read("schedules_all")
            known = [from_row(row) for row in rows if row["function_id"] == entry.function_id]
            self._entries.update((one.function_id, one) for one in known if one is not None)
            raise errors.ConflictError(f"a run of {self._name(entry)} was begun by another server on the same state")
        entry.call_id, entry.run_at, entry.done = call_id, now, done
        entry.begun, entry.status, entry.error = False, "", ""
        faults.at("scheduled")
        await self._begin(entry)

    async def _begin(self, entry: Entry) -> None:
        """Make the call of a run that is written down."""
        asked = CallStart(entry.call_id, entry.function_id, verb=VERB, wait=False, resend=True)
        try:
            await self._calls.accepting.start(asked, _NOTHING, self._functions.get(entry.function_id))
        except errors.Error as error:
            entry.error, entry.again = str(error), time.time() + _AGAIN
            log.error("%s: its run could not begin: %s", self._name(entry), error)
            return
        entry.begun, entry.error = True, ""
        begun = {"function_id": entry.function_id, "call_id": entry.call_id}
        self._store.write_soon([("schedule_begun", begun)])

    # inside, what there is

    async def _sync(self, now: float) -> None:
        """Schedules are those of the functions that are deployed."""
        if not self._stale:
            return
        self._stale = False
        try:
            statements, gone = [], set(self._entries)
            for function, app in self._scheduled():
                gone.discard(function.function_id)
                entry = self._renewed(function, app, now)
                if entry is not None:
                    self._entries[function.function_id] = entry
                    statements.append(("schedule_put", entry.row()))
            drop: list[Statement] = [("schedule_drop", {"function_id": function_id}) for function_id in gone]
            if statements or drop:
                await self._store.write([*statements, *drop])
            for function_id in gone:
                del self._entries[function_id]
        except BaseException:
            self._stale = True
            raise

    def _scheduled(self) -> Iterable[tuple[Published, App]]:
        for function in self._functions.by_id.values():
            app = self._apps.alive.get(function.app_id)
            if app is None or app.state != AppState.DEPLOYED:
                continue
            if function.spec.schedule and not function.base and not function.gone:
                yield function, app

    def _renewed(self, function: Published, app: App, now: float) -> Entry | None:
        """The entry of a function where it is new or counts anew, else None."""
        old, plain = self._entries.get(function.function_id), dict(function.spec.schedule)
        since = app.deployed_at or now
        if old is not None and old.plain == plain and old.version == app.version:
            return None
        table = timetables.parse(plain, function.spec.name)
        if old is None:
            return Entry(function.function_id, function.app_id, plain, table, app.version, since, since)
        old.deployed(app.version, plain, table, since)
        return old

    async def _find(self, app: str, function: str, environment: str, who: Principal) -> tuple[Entry, Published]:
        await self._sync(time.time())
        apps = {one.app_id for one in self._apps.named(app, environment, who)}
        here = [
            (entry, self._functions.get(entry.function_id))
            for entry in self._entries.values()
            if entry.app_id in apps and self._functions.by_id.get(entry.function_id) is not None
        ]
        found = [one for one in here if function in {"", one[1].spec.name}]
        names = ", ".join(sorted(f"{app}/{one.spec.name}" for _, one in here))
        if not found:
            what = (
                f"the function {function!r} of {app!r} has no schedule" if function else f"nothing in {app!r} has one"
            )
            raise errors.NotFoundError(
                f"there is no such schedule: {what}",
                hint=f"there is: {names}" if names else "schedules run in deployed apps: `alight deploy`",
            )
        if len(found) > 1:
            raise errors.InvalidError(
                f"{app!r} has {len(found)} schedules, and none was named", hint=f"one of: {names}"
            )
        return found[0]

    async def _summary(self, entry: Entry) -> ScheduleSummary:
        app = self._apps.alive.get(entry.app_id)
        function = self._functions.by_id.get(entry.function_id)
        return ScheduleSummary(
            entry.app_id,
            (app.name or app.description) if app is not None else "",
            entry.function_id,
            function.spec.name if function is not None else "",
            app.environment if app is not None else "",
            dict(entry.plain),
            entry.next(time.time()),
            entry.paused,
            entry.run_at,
            entry.call_id,
            await self._status(entry),
            entry.error,
        )

    async def _status(self, entry: Entry) -> str:
        if entry.status or not entry.call_id:
            return entry.status
        counts = self._calls.counts(entry.call_id)
        return "running" if counts is not None and counts["running"] else "waiting"

    def _name(self, entry: Entry) -> str:
        function, app = self._functions.by_id.get(entry.function_id), self._apps.alive.get(entry.app_id)
        named = function.spec.name if function is not None else entry.function_id
        return f"{app.name}/{named}" if app is not None and app.name else named

    # inside, what came of runs

    def _on_over(self, call: Call) -> None:
        if call.verb == VERB:
            self._begin_task(self._settle(call.call_id, call.function_id))

    async def _settle(self, call_id: str, function_id: str) -> None:
        """Keep what came of a run, and say it when it failed."""
        try:
            status, error = await self._outcome(call_id)
            entry = self._entries.get(function_id)
            if status in _KEPT or entry is None:
                return
            if status == "failed":
                log.warning("the scheduled run %s of %s failed: %s", call_id, self._name(entry), error)
                function = self._functions.by_id.get(function_id)
                name = function.spec.name if function is not None else ""
                text = f"the scheduled run of {name}() failed: {error} (`alight call show {call_id}`)"
                self._hub.tell(entry.app_id, AppEvent("system", function=name, text=text))
            if entry.call_id == call_id:
                entry.status, entry.error = status, error
                ended = {"function_id": function_id, "call_id": call_id, "status": status, "error": error}
                await self._store.write([("schedule_ended", ended)], urgent=False)
        except errors.Error as failed:
            log.error("what came of the scheduled run %s could not be kept: %s", call_id, failed)

    async def _outcome(self, call_id: str) -> tuple[str, str]:
        await self._store.flush()
        try:
            details = await self._views.show(await self._views.row(call_id))
        except errors.NotFoundError:
            return "unknown", ""
        if details.call.state != "done":
            return details.call.state, ""
        if details.call.cancelled:
            return "cancelled", ""
        words = next((words for _, words in details.failed), "")
        return ("failed" if details.call.failed else "succeeded"), words

    def _begin_task(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
