"""Functions as people look at them: what was declared, what it does now, how long its calls took, over time.

Looks at the newest rows only: what is shown costs the same for a function that was called a million times.
"""

from __future__ import annotations

import bisect
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from alight.server.auth import OWNER, Principal
from alight.server.services.container_views import percentile
from alight.server.services.functions import Functions
from alight.server.services.published import scaled_spec, shown_name
from alight.store.base import Row, Store
from alight.wire import errors
from alight.wire.dashboard import FunctionSeries, FunctionShown, SeriesShown, Spread
from alight.wire.messages import FunctionStats
from alight.wire.spec import FunctionSpec
from alight.wire.urls import WebUrl

_CALLS = 1000  # that latencies are made of, the newest
_STARTS = 1000
_OVER_TIME = 20_000  # rows that a series is made of, the newest
_POINTS = 500
_HOUR = 3600.0
_HIDDEN = ("env", "parameters", "serialized", "files", "image")


class FunctionViews:
    """Looks at functions and changes nothing."""

    def __init__(self, store: Store, functions: Functions, stats: Callable[[str], FunctionStats]) -> None:
        self._store = store
        self._functions = functions
        self._stats = stats

    async def row(self, function_id: str, who: Principal) -> Row:
        """What the store has of a function. Raises NotFoundError, the same for one of somebody else."""
        row = await self._store.one("function_shown", function_id=function_id)
        if row is None or (who.kind != OWNER and who.owner != row["owner"]):
            raise errors.NotFoundError(
                f"there is no function {function_id}", hint="`alight app list` shows the apps, and they their functions"
            )
        return row

    async def show(self, row: Row) -> FunctionShown:
        """A function with its variants."""
        ids = await self._with_variants(row)
        named = json.dumps(ids)
        calls = await self._store.read("calls_timed", functions=named, since=0.0, limit=_CALLS)
        starts = await self._store.read("starts_of_functions", functions=named, limit=_STARTS)
        published = self._functions.by_id.get(row["function_id"])
        spec = published.spec if published is not None else msgspec.json.decode(row["spec"], type=FunctionSpec)
        scaled = published.scaled if published is not None else {}
        declared = msgspec.to_builtins(spec)
        web: tuple[WebUrl, ...] = ()
        scaling = msgspec.to_builtins(scaled_spec(spec, scaled).autoscaling)
        if published is not None:
            web = self._functions.urls(published)
        declared["env_names"] = sorted(spec.env)
        for name in _HIDDEN:
            declared.pop(name, None)
        now = [self._stats(one) for one in ids if one in self._functions.by_id]
        return FunctionShown(
            row["function_id"],
            shown_name(row["name"]).removesuffix(".*"),
            row["app_id"],
            row["app"] or "",
            row["environment"],
            row["state"],
            row["gone"],
            declared,
            scaling,
            web,
            len(ids) - 1,
            FunctionStats(
                sum(one.backlog for one in now),
                sum(one.containers for one in now),
                sum(one.running for one in now),
                sum(one.headroom for one in now),
            ),
            spread([one["done_at"] - one["created_at"] for one in calls if one["done_at"] and one["accepted"] == 1]),
            sum(one["succeeded"] for one in calls),
            sum(one["failed"] for one in calls),
            spread([one["total"] for one in starts if one["total"] is not None]),
            dict(Counter(one["how"] for one in starts if one["how"])),
        )

    async def series(self, asked: FunctionSeries, row: Row) -> SeriesShown:
        """Containers and calls of a function over time."""
        until = min(asked.until or time.time(), time.time())
        since = asked.since or until - _HOUR
        if not since < until:
            raise errors.InvalidError("a series ends after it begins", hint="since and until are unix seconds")
        points = max(1, min(asked.points, _POINTS))
        named = json.dumps(await self._with_variants(row))
        calls = await self._store.read("calls_timed", functions=named, since=since, limit=_OVER_TIME)
        containers = await self._store.read(
            "containers_timed", app_id=row["app_id"], functions=named, since=since, limit=_OVER_TIME
        )
        return over_time(calls, containers, since, until, points)

    async def _with_variants(self, row: Row) -> list[str]:
        rows = await self._store.read("function_and_variants", app_id=row["app_id"], name=row["name"])
        return [one["function_id"] for one in rows]


def spread(seconds: list[float]) -> Spread:
    """Percentiles of what is there."""
    if not seconds:
        return Spread()
    seconds.sort()
    return Spread(len(seconds), percentile(seconds, 0.5), percentile(seconds, 0.95), percentile(seconds, 0.99))


def over_time(calls: Sequence[Row], containers: Sequence[Row], since: float, until: float, points: int) -> SeriesShown:
    """Columns with one value for each step. Pure.

    Containers are counted at the end of a step, calls by when they began, latencies by when they ended.
    """
    step = (until - since) / points
    ends = [since + step * (number + 1) for number in range(points)]

    def place(at: float) -> int:
        return min(points - 1, max(0, int((at - since) / step)))

    begun, failed = [0] * points, [0] * points
    took: list[list[float]] = [[] for _ in ends]
    for one in calls:
        begun[place(one["created_at"])] += one["accepted"]
        failed[place(one["done_at"] or one["created_at"])] += one["failed"]
        if one["done_at"] and one["accepted"] == 1 and one["done_at"] <= until:
            took[place(one["done_at"])].append(one["done_at"] - one["created_at"])
    there = _there([one["created_at"] for one in containers], [one["ended_at"] for one in containers], ends)
    ready_at = [_ready_at(one) for one in containers]
    ready = _there(ready_at, [one["ended_at"] for one in containers], ends)
    for seconds in took:
        seconds.sort()
    columns: dict[str, Sequence[float | None]] = {
        "ready": ready,
        "starting": [max(0, all_ - up) for all_, up in zip(there, ready, strict=True)],
        "inputs": begun,
        "failed": failed,
        "p50": [percentile(one, 0.5) if one else None for one in took],
        "p95": [percentile(one, 0.95) if one else None for one in took],
        "p99": [percentile(one, 0.99) if one else None for one in took],
    }
    return SeriesShown(step, tuple(ends), {name: tuple(values) for name, values in columns.items()})


def _ready_at(row: Any) -> float | None:
    if row["total"] is not None:
        return float(row["created_at"] + row["total"])
    return float(row["created_at"]) if row["state"] == "ready" else None


def _there(begins: Sequence[float | None], ends: Sequence[float | None], moments: Sequence[float]) -> list[int]:
    """How many had begun and not ended at each moment."""
    begun = sorted(one for one in begins if one is not None)
    over = sorted(end for begin, end in zip(begins, ends, strict=True) if begin is not None and end is not None)
    return [bisect.bisect_right(begun, at) - bisect.bisect_right(over, at) for at in moments]
