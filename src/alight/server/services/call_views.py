"""Calls as people look at them: the store's rows together with what the scheduler knows of them just now.

Looking costs what is shown: a list reads as many rows as it shows, whether a thousand calls are open or a million.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

from alight.scheduler import state as scheduled
from alight.scheduler import why
from alight.scheduler.state import State
from alight.server.services.apps import Apps
from alight.server.services.functions import Functions
from alight.server.services.published import shown_name
from alight.store.base import Row, Store
from alight.wire import errors, ids
from alight.wire.calling import CallDetails, CallList, CallListed, CallSummary, CallUpdate, RunningInput, Waiting
from alight.wire.messages import FunctionStats
from alight.wire.record import replace
from alight.wire.states import ResultStatus

_MOST = 10_000  # calls in one answer
_NAMESAKES = 200  # apps or functions of one name that are looked through, the newest
_LONG = 64  # calls in a line that are too many to count them for each
_FAR = 1000  # places in a line that are told one by one
_FRESH = 0.5  # seconds that a look along a line is good for
_SHOWN = 20  # running inputs, and failures, of one call
_decode_update = msgspec.json.Decoder(CallUpdate).decode


class Counting(Protocol):
    """What the service of calls knows before it is written down."""

    def counts(self, call_id: str) -> dict[str, int] | None:
        """Inputs of a call in memory by state, None for one that is in the store alone."""
        ...

    def line(self, function_id: str) -> tuple[int, int]:
        """How many inputs of a function wait, in memory or not, and how many lie in containers."""
        ...


class CallViews:
    """Looks at calls and changes nothing."""

    def __init__(self, store: Store, state: State, functions: Functions, apps: Apps, calls: Counting) -> None:
        self._store = store
        self._state = state
        self._functions = functions
        self._apps = apps
        self._calls = calls
        self._seen: dict[str, tuple[float, why.Facts | None, dict[str, int]]] = {}  # lines by function, as they were

    async def listed(self, asked: CallList, owner: str) -> CallListed:
        """Calls, the newest first. ``owner`` '' means everybody's."""
        limit = max(1, min(asked.limit, _MOST))
        chosen = await self._chosen(asked, owner)
        place = await self._store.one("call_place", call_id=asked.before) if asked.before else None
        if asked.before and place is None:
            raise errors.NotFoundError(f"there is no call {asked.before} to go on after")
        if asked.state == "done":
            rows = await self._rows(asked, owner, chosen, "done", limit + 1, place)
        elif asked.state:
            rows = await self._open_rows(asked, owner, chosen, limit + 1, place)
        else:
            rows = await self._rows(asked, owner, chosen, "", limit + 1, place)
        waiting, running = self._totals(asked, owner, chosen)
        shown = tuple(self.summary(row) for row in rows[:limit])
        return CallListed(shown, len(rows) > limit, waiting, running)

    async def show(self, row: Row) -> CallDetails:
        """One call with what runs of it, why the rest waits, and what failed last."""
        call = self.summary(row)
        failed = await self._store.read("outputs_failed", call_id=call.call_id, limit=_SHOWN)
        updates = [_decode_update(one["head"]) for one in failed]
        words = [(int(one["position"]), _words(update)) for one, update in zip(failed, updates, strict=True)]
        if call.total == 1 and any(update.status == ResultStatus.CANCELLED for update in updates):
            call = replace(call, cancelled=True)  # its row says only that it failed
        if row["error"]:
            words.insert(0, (-1, str(json.loads(row["error"]).get("message", ""))))
        waiting = await self._waiting(row, call) if call.state != "done" and call.waiting else None
        return CallDetails(call, waiting, tuple(self.running(call.call_id)[:_SHOWN]), tuple(words))

    async def row(self, call_id: str) -> Row:
        """What the store has of a call. Raises NotFoundError."""
        rows = await self._store.read("calls_by_ids", call_ids=json.dumps([call_id]))
        if not rows or (rows[0]["done_at"] is None and self._calls.counts(call_id) is None):
            await self._store.flush()  # it may have begun, or ended, just now
            rows = await self._store.read("calls_by_ids", call_ids=json.dumps([call_id]))
        if not rows:
            raise errors.NotFoundError(
                f"there is no call {call_id}",
                hint="it may have expired, or belong to another server: `alight call list`",
            )
        return rows[0]

    def summary(self, row: Row) -> CallSummary:
        """A row with what runs of it now."""
        done = row["done_at"] is not None
        now = None if done else self._calls.counts(row["call_id"])
        succeeded, failed = (now["succeeded"], now["failed"]) if now else (row["succeeded"], row["failed"])
        left = sum((now["waiting"], now["running"])) if now else max(0, row["accepted"] - succeeded - failed)
        running = 0 if done else min(left, len(self.running(row["call_id"])))
        parent = ids.input_id(row["parent_call"], row["parent_position"]) if row["parent_call"] else ""
        return CallSummary(
            row["call_id"],
            shown_name(row["function"] or row["function_id"], row["method"]),
            row["function_id"],
            row["app_id"],
            row["app"] or "",
            row["verb"],
            "done" if done else ("running" if running else "waiting"),
            row["created_at"],
            row["done_at"],
            succeeded + failed + left,
            row["total"],
            left - running,
            running,
            succeeded,
            failed,
            row["status"] == "cancelled",
            bool(row["caller_gone"]),
            parent,
        )

    def running(self, call_id: str) -> list[RunningInput]:
        """The inputs of a call that run, oldest first. What a container was given ahead of its turn waits still."""
        call = self._state.calls.get(call_id)
        function = self._state.functions.get(call.function_id) if call is not None else None
        if call is None or function is None:
            return []
        slots, found = function.slots, []
        for container_id in call.containers:
            container = self._state.containers[container_id]
            # One at a time: the head of its line runs since the one before it was answered.
            since = container.moved if slots == 1 else 0.0
            for one, position, attempt in _begun(container, slots):
                if one == call_id:
                    input_id = ids.input_id(call_id, position)
                    found.append(RunningInput(position, input_id, container_id, since, attempt))
        found.sort(key=lambda one: one.position)
        return found

    def sentence(self, call_id: str) -> str:
        """Why inputs of a call wait, in one line for whoever waits for them; "" when none does.

        Ten thousand callers may ask this twice a second: in a long line they share one look at it.
        """
        now = time.time()
        call = self._state.calls.get(call_id)
        function = self._state.functions.get(call.function_id) if call is not None else None
        if call is None or function is None:
            return ""
        first = ""
        if len(function.line) > _LONG and call_id in function.line:
            facts, places = self._look_along(function, now)
            place = places.get(call_id, 0)
            if place:
                first = f"{place:,} calls come first" if place <= _FAR else f"more than {_FAR:,} calls come first"
        else:
            facts = why.waiting_of(self._state, call_id, now)
            if facts is not None and facts.ahead and "ahead" not in facts.why:
                first = f"{facts.ahead:,} {'input comes' if facts.ahead == 1 else 'inputs come'} first"
        if facts is None:
            return ""
        needs = f"it needs {facts.needs}" if facts.needs and facts.holders else ""
        return "; ".join(words for words in (self._apps.with_names(facts.why), first, needs) if words)

    def _look_along(self, function: scheduled.Function, now: float) -> tuple[why.Facts | None, dict[str, int]]:
        """What the first of a line waits for, and everybody's place in it."""
        seen = self._seen.get(function.function_id)
        if seen is None or not 0 <= now - seen[0] < _FRESH:
            self._seen = {name: one for name, one in self._seen.items() if 0 <= now - one[0] < _FRESH}
            places = {call_id: place for place, call_id in enumerate(function.line)}
            facts = why.waiting_of(self._state, next(iter(function.line)), now)
            seen = self._seen[function.function_id] = (now, facts, places)
        return seen[1], seen[2]

    def stats(self, function_id: str) -> FunctionStats:
        """What a function does now."""
        found = why.stats(self._state, function_id)
        backlog = max(0, sum(self._calls.line(function_id)) - found.running)
        return FunctionStats(backlog, found.containers, found.running, found.headroom)

    def totals(self, owner: str) -> tuple[int, int]:
        """Inputs that wait and that run, of everybody or of one owner."""
        return self._totals(CallList(), owner, None)

    # which calls

    async def _chosen(self, asked: CallList, owner: str) -> list[str] | None:
        """The ids of the functions that were asked for, stopped apps' too; None when none was named."""
        if not asked.function:
            return None
        whose = {"environment": asked.environment, "owner": owner, "app": asked.app}
        name, method = _without_method(asked.function)
        rows = await self._store.read("functions_named", **whose, name=asked.function, limit=_NAMESAKES)
        if not rows and method:
            rows = await self._store.read("functions_named", **whose, name=name, limit=_NAMESAKES)
        return [row["function_id"] for row in rows]

    async def _rows(
        self, asked: CallList, owner: str, chosen: list[str] | None, state: str, limit: int, place: Row | None
    ) -> list[Row]:
        before = place["seq"] if place is not None else 0
        if chosen is not None:
            return await self._newest(
                "calls_recent_of_function", "function_id", chosen, limit, state=state, before=before
            )
        whose = {"environment": asked.environment, "owner": owner}
        if asked.app or asked.environment or owner:
            rows = await self._store.read("apps_named", **whose, app=asked.app, limit=_NAMESAKES + 1)
            if asked.app or len(rows) <= _NAMESAKES:
                apps = [row["app_id"] for row in rows[:_NAMESAKES]]
                return await self._newest("calls_recent_of_app", "app_id", apps, limit, state=state, before=before)
        if state == "done":
            ended = (place["done_at"] or 0) if place is not None else 0
            return list(await self._store.read("calls_done_last", **whose, before=ended, limit=limit))
        return list(await self._store.read("calls_recent", **whose, state=state, before=before, limit=limit))

    async def _open_rows(
        self, asked: CallList, owner: str, chosen: list[str] | None, limit: int, place: Row | None
    ) -> list[Row]:
        """Calls that wait, or that run: the store knows which are open, the scheduler which of them run."""
        here = self._matching(asked, owner, chosen)
        held = [one.call_id for one in self._state.calls.values() if one.containers and one.function_id in here]
        running = {call_id for call_id in held if self.running(call_id)}
        if asked.state == "running":
            newest = sorted(running, reverse=True)
            newest = [one for one in newest if not asked.before or one < asked.before][: limit + _SHOWN]
            rows = await self._store.read("calls_by_ids", call_ids=json.dumps(newest))
            return [row for row in rows if row["done_at"] is None][:limit]
        known = {one.function_id for one in self._state.calls.values()} & here
        before = place["seq"] if place is not None else 0
        rows = await self._newest(
            "calls_open_of_function", "function_id", sorted(known), limit + len(running), before=before
        )
        return [row for row in rows if row["call_id"] not in running][:limit]

    async def _newest(self, query: str, key: str, values: Iterable[str], limit: int, **params: Any) -> list[Row]:
        """The newest of what a query gives for each of these values."""
        rows: list[Row] = []
        for value in values:
            rows += await self._store.read(query, **{key: value}, **params, limit=limit)
        rows.sort(key=lambda row: row["seq"], reverse=True)
        return rows[:limit]

    def _matching(self, asked: CallList, owner: str, chosen: list[str] | None) -> set[str]:
        """Functions of living apps that were asked for."""
        found = set()
        for one in self._functions.by_id.values():
            if chosen is not None and one.function_id not in chosen:
                continue
            if (asked.environment or one.environment) != one.environment or (owner or one.owner) != one.owner:
                continue
            app = self._apps.alive.get(one.app_id)
            if asked.app and (app is None or asked.app not in {app.app_id, app.name, app.description}):
                continue
            found.add(one.function_id)
        return found

    def _totals(self, asked: CallList, owner: str, chosen: list[str] | None) -> tuple[int, int]:
        """Inputs that wait and that run, of all calls that match and not only of those that are shown."""
        waiting = running = 0
        for function_id in self._matching(asked, owner, chosen):
            now = self.stats(function_id)
            running += now.running
            waiting += now.backlog
        return waiting, running

    # why one waits

    async def _waiting(self, row: Row, call: CallSummary) -> Waiting | None:
        now = time.time()
        facts = why.waiting_of(self._state, call.call_id, now)
        if facts is not None or call.running:
            return self._told(facts) if facts is not None else None
        # It is in the store alone until its turn comes near. What keeps those before it keeps this one too.
        before = await self._store.one("calls_open_before", function_id=row["function_id"], seq=row["seq"])
        ahead = int(before["inputs"]) if before is not None else 0
        function = self._state.functions.get(row["function_id"])
        first = next(iter(function.line), "") if function is not None else ""
        facts = why.waiting_of(self._state, first, now) if first else None
        if facts is None:
            return Waiting(call.created_at, "waiting for the calls that came before it", ahead=ahead)
        return replace(self._told(facts), since=call.created_at, ahead=ahead)

    def _told(self, facts: why.Facts) -> Waiting:
        """The scheduler's facts for people, who know apps by their names."""
        named = self._apps.with_names
        return Waiting(
            facts.since,
            named(facts.why),
            facts.needs,
            facts.ahead,
            tuple(named(one) for one in facts.holders),
            facts.starts_when,
            facts.never,
        )


def _begun(container: scheduled.Container, slots: int) -> Iterator[tuple[str, int, int]]:
    """Call, position and attempt of what a container has begun, as far as anybody knows: its oldest."""
    runs = sorted((run for runs in container.runs.values() for run in runs), key=lambda run: run.order)
    positions = (
        (run.call_id, position, run.attempt)
        for run in runs
        for start, stop in scheduled.spans(run)
        for position in range(start, stop)
    )
    return itertools.islice(positions, slots)


def _without_method(name: str) -> tuple[str, str]:
    head, dot, method = name.rpartition(".")
    return (head, method) if dot else (name, "")


def _words(update: CallUpdate) -> str:
    """One line for an input that failed."""
    if update.failure is not None:
        return f"{update.failure.type.rpartition('.')[2]}: {update.failure.message}"
    if update.error is not None:
        return str(update.error.get("message", update.status))
    return update.status
