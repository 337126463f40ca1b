"""Measurements as people look at them: series, what became of inputs in a stretch of time, machines, GPUs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence

from alight.server.auth import OWNER, Principal
from alight.server.series import FIELDS, Point, in_buckets
from alight.server.services import function_metrics
from alight.server.services.container_views import percentile as exact_percentile
from alight.server.services.function_metrics import Sampled
from alight.server.services.functions import Functions
from alight.server.services.measures import Measures
from alight.server.services.published import is_server, shown_name
from alight.server.tally import MINUTE, Minute, from_text, percentile
from alight.server.web_tally import WebMinute
from alight.store.base import Row, Store
from alight.wire import errors
from alight.wire.measures import (
    METRICS,
    AppAsked,
    AppReport,
    FunctionAsked,
    FunctionMetrics,
    FunctionReport,
    SeriesAsked,
    SeriesOf,
)
from alight.wire.messages import FunctionStats

_HOUR = 3600.0
_LONGEST = 7 * 86400.0
_POINTS = 2000
_CONTAINERS = 5000  # of one function and window, the newest
_SHARES = {"50": 0.5, "90": 0.9, "95": 0.95, "99": 0.99}
_APPS = 1


class MeasureViews:
    """Looks, and changes nothing. ``now_of`` counts what a function does at this moment."""

    def __init__(
        self, store: Store, measures: Measures, functions: Functions, now_of: Callable[[str], FunctionStats]
    ) -> None:
        self._store = store
        self._measures = measures
        self._functions = functions
        self._now_of = now_of

    async def series(self, asked: SeriesAsked) -> SeriesOf:
        """What was measured of one container, machine or GPU."""
        self._measures.look()
        since, until = window(asked.since, asked.until)
        found = await asyncio.to_thread(self._measures.series.read, {asked.object_id}, since, until)
        return columns(found.get(asked.object_id, []), since, until, asked.points)

    async def find(self, asked: FunctionAsked, who: Principal) -> list[Row]:
        """A function and its variants, itself first. Raises NotFoundError, the same for one of somebody else."""
        function_id = asked.function_id
        owner = "" if who.kind == OWNER else who.owner
        if not function_id:
            row = await self._store.one(
                "function_by_place", environment=asked.environment, owner=owner, app=asked.app, name=asked.name
            )
            if row is None:
                raise errors.NotFoundError(
                    f"there is no function {asked.name!r} in an app {asked.app!r}",
                    hint=f"`alight app info {asked.app}` shows what it has, `alight app list` which apps there are",
                )
            function_id = row["function_id"]
        rows = await self._store.read("function_measured", function_id=function_id)
        if not rows or (owner and rows[0]["owner"] != owner):
            raise errors.NotFoundError(
                f"there is no function {function_id}", hint="`alight app info APP` shows the functions of an app"
            )
        # A variant that was asked for by its id stands for itself.
        return sorted(rows, key=lambda row: bool(row["function_id"] != function_id))

    async def report(self, asked: FunctionAsked, who: Principal) -> FunctionReport:
        """What became of a function's inputs and containers."""
        since, until = window(asked.since, asked.until)
        rows = await self.find(asked, who)
        await self._measures.flush()
        await self._store.flush()
        chosen = rows if asked.all_variants else rows[:1]
        return await self._report(rows[0], chosen, since, until, asked)

    async def app(self, asked: AppAsked, owner: str) -> AppReport:
        """The same of all functions of an app."""
        since, until = window(asked.since, asked.until)
        await self._measures.flush()
        await self._store.flush()
        apps = await self._store.read(
            "apps_recent", environment=asked.environment, owner=owner, name_or_id=asked.app, limit=_APPS
        )
        if not apps:
            raise errors.NotFoundError(f"there is no app {asked.app!r}", hint="`alight app list` shows what there is")
        app = apps[0]
        rows = await self._store.read("functions_of_app_measured", apps=json.dumps([app["app_id"]]))
        named: dict[str, list[Row]] = {}
        for row in rows:
            named.setdefault(row["name"].partition("#")[0], []).append(row)
        everything = FunctionAsked(all_variants=True)
        reports = [await self._report(found[0], found, since, until, everything) for _, found in sorted(named.items())]
        deployed = await self._store.one("deployments_between", app_id=app["app_id"], since=since, until=until)
        servers = tuple(
            one.name
            for one in reports
            if one.function_id in self._functions.by_id and is_server(self._functions.by_id[one.function_id].spec)
        )
        return AppReport(
            app["app_id"],
            app["name"] or app["description"],
            since,
            until,
            tuple(reports),
            servers,
            deployed["count"] if deployed is not None else 0,
        )

    async def metrics(self, asked: FunctionAsked, who: Principal) -> FunctionMetrics:
        """What a function's containers used over time, together, and what became of its inputs."""
        since, until = window(asked.since, asked.until)
        groups = asked.groups or tuple(METRICS)
        wrong = [one for one in groups if one not in METRICS]
        if wrong:
            raise errors.InvalidError(f"{wrong[0]!r} is no group of metrics", hint=f"there are: {', '.join(METRICS)}")
        step = max(10.0, asked.step)
        if (until - since) / step > _POINTS:
            raise errors.InvalidError(
                f"that is more than {_POINTS} points", hint="ask for less time, or take a larger bucket"
            )
        rows = await self.find(asked, who)
        chosen = rows if asked.all_variants else rows[:1]
        named = json.dumps([row["function_id"] for row in chosen])
        containers = await self._containers(rows[0]["app_id"], named, since, until, asked.container)
        points: dict[str, list[Point]] = {}
        if set(groups) - {"containers", "calls"}:
            ids = {row["container_id"] for row in containers}
            points = await asyncio.to_thread(self._measures.series.read, ids, since - 60.0, until)
        minutes: list[tuple[int, Minute]] = []
        if "calls" in groups:
            await self._measures.flush()
            minutes = await self._minutes(named, since, until)
        sampled = Sampled(points, containers, minutes)
        at, series = function_metrics.over_time(sampled, since, until, step)
        wanted = {name for group in groups for name in METRICS[group]}
        shown = {name: tuple(column) for name, column in series.items() if name in wanted}
        return FunctionMetrics(rows[0]["function_id"], since, until, step, tuple(at), shown)

    async def _report(
        self, row: Row, chosen: Sequence[Row], since: float, until: float, asked: FunctionAsked
    ) -> FunctionReport:
        ids = [one["function_id"] for one in chosen]
        named = json.dumps(ids)
        whole = Minute()
        for _, one in await self._minutes(named, since, until):
            whole.add(one)
        containers = await self._containers(row["app_id"], named, since, until, asked.container)
        stats = [self._now_of(one) for one in ids if one in self._functions.by_id]
        started = [one for one in containers if one["created_at"] >= since]
        cold = sorted(float(one["total"]) for one in started if one["total"] is not None)
        bad = [one for one in containers if one["ended_at"] and one["ended_at"] <= until and _went_wrong(one)]
        spreads = {"queue_time": spread_of(whole.queue), "run_time": spread_of(whole.run)}
        asked_of = await self._web(named, since, until) if self._may_be_web(ids) else WebMinute()
        latency = spread_of(asked_of.latency)
        starts = {share: exact_percentile(cold, value) for share, value in _SHARES.items()} if cold else {}
        return FunctionReport(
            row["function_id"],
            shown_name(row["name"], "").removesuffix(".*"),
            row["app_id"],
            since,
            until,
            whole.success,
            whole.failure,
            whole.timeout,
            whole.cancelled,
            sum(one.running for one in stats),
            sum(one.backlog for one in stats),
            {name: found for name, found in spreads.items() if found},
            len(started),
            len(bad),
            sum(one["state"] == "starting" for one in containers),
            len(containers),
            {"cold_start": starts} if starts else {},
            len(ids),
            asked.all_variants,
            {str(status): count for status, count in sorted(asked_of.statuses.items())},
            {"latency": latency} if latency else {},
        )

    async def _containers(self, app_id: str, named: str, since: float, until: float, only: str) -> list[Row]:
        rows = await self._store.read(
            "containers_measured", app_id=app_id, functions=named, since=since, until=until, limit=_CONTAINERS
        )
        return [row for row in rows if not only or row["container_id"] == only]

    def _may_be_web(self, ids: Sequence[str]) -> bool:
        known = self._functions.by_id
        return any(one not in known or known[one].spec.is_web for one in ids)

    async def _web(self, named: str, since: float, until: float) -> WebMinute:
        whole = WebMinute()
        for row in await self._store.read(
            "web_minutes_of_functions", functions=named, since=int(since // MINUTE), until=int(until // MINUTE)
        ):
            one = WebMinute()
            one.statuses, one.latency = from_text(row["statuses"]), from_text(row["latency"])
            whole.add(one)
        return whole

    async def _minutes(self, named: str, since: float, until: float) -> list[tuple[int, Minute]]:
        rows = await self._store.read(
            "minutes_of_functions", functions=named, since=int(since // MINUTE), until=int(until // MINUTE)
        )
        return [(row["minute"], minute_of(row)) for row in rows]


def window(since: float, until: float) -> tuple[float, float]:
    """From when to when: an hour until now where nothing is said. Raises InvalidError."""
    end = min(until or time.time(), time.time())
    begin = since or end - _HOUR
    if not begin < end:
        raise errors.InvalidError("this stretch of time ends before it begins", hint="--since comes before --until")
    if end - begin > _LONGEST + 60.0:
        raise errors.InvalidError("that is more than 7 days", hint="measurements are kept for a week: ask for less")
    return begin, end


def columns(points: Sequence[Point], since: float, until: float, most: int) -> SeriesOf:
    """Points in as many steps as there may be, no finer than what was measured. Pure."""
    count = max(1, min(most, _POINTS))
    step = (until - since) / count
    if len(points) > 1:
        gaps = sorted(after[0] - one[0] for one, after in zip(points, points[1:], strict=False))
        step = max(step, min(60.0, 1.1 * gaps[len(gaps) // 2]))
    count = max(1, int((until - since) / step))
    step = (until - since) / count
    found = in_buckets(points, since, step, count)
    at = tuple(since + step * (number + 1) for number in range(count))
    series = {name: tuple(found[name][0]) for name in FIELDS if name in found}
    return SeriesOf(step, at, series, {name: tuple(found[name][1]) for name in FIELDS if name in found})


def spread_of(spread: dict[int, int]) -> dict[str, float]:
    """Percentiles by their number; nothing of nothing."""
    found = {name: percentile(spread, share) for name, share in _SHARES.items()}
    return {name: value for name, value in found.items() if value is not None}


def minute_of(row: Row) -> Minute:
    """See ``measures.minute_row``."""
    one = Minute(row["minute"])
    one.success, one.failure = row["success"], row["failure"]
    one.timeout, one.cancelled = row["timeout"], row["cancelled"]
    one.queue, one.run = from_text(row["queue"]), from_text(row["run"])
    one.queue_seconds, one.run_seconds = row["queue_seconds"], row["run_seconds"]
    return one


def _went_wrong(row: Row) -> bool:
    """It never took an input, or ended by itself and not well."""
    return row["total"] is None or row["exit_code"] not in (None, 0)
