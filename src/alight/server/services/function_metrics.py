"""A function over time: what its containers used together, and what became of its inputs. Pure."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alight.server.series import FIELDS, Point
from alight.server.tally import MINUTE, Minute, percentile

_FIRST = 10.0  # seconds that a measurement speaks for when nothing was measured before it
_LONGEST = 60.0  # and at most
_SUMS = {  # of all containers, over time
    "cpu_cores": "cpu",
    "memory_bytes": "memory_bytes",
    "net_rx": "net_rx",
    "net_tx": "net_tx",
    "disk_read": "disk_read",
    "disk_write": "disk_write",
    "gpu_memory_bytes": "gpu_memory_bytes",
    "gpu_power_watts": "gpu_power_watts",
}
_PEAKS = {"cpu_cores_max": "cpu", "memory_bytes_max": "memory_bytes"}

Columns = dict[str, list[float | None]]


@dataclass(frozen=True)
class Sampled:
    """What there is of a function: measurements by container, its containers' rows, its minutes."""

    points: Mapping[str, Sequence[Point]]
    containers: Sequence[Any]
    minutes: Sequence[tuple[int, Minute]]


def over_time(sampled: Sampled, since: float, until: float, step: float) -> tuple[list[float], Columns]:
    """The ends of the steps, and columns by the names of ``wire.measures.METRICS``."""
    count = max(1, math.ceil((until - since) / step))
    ends = [min(until, since + step * (number + 1)) for number in range(count)]
    columns = _used(sampled.points, since, step, ends)
    columns.update(_there(sampled.containers, ends))
    columns.update(_ended(sampled.minutes, since, step, count))
    return ends, columns


def _used(points: Mapping[str, Sequence[Point]], since: float, step: float, ends: Sequence[float]) -> Columns:
    """Each measurement stands for the time since the one before: a container that was there for a part of a step counts
    with that part."""
    count = len(ends)
    sums = {name: [0.0] * count for name in _SUMS}
    peaks: Columns = {name: [None] * count for name in _PEAKS}
    known = {name: [False] * count for name in _SUMS}
    busy, busy_for = [0.0] * count, [0.0] * count
    place_of = {name: index for index, name in enumerate(FIELDS)}
    for row in points.values():
        before = None
        for at, means, most in row:
            seconds = _FIRST if before is None else min(_LONGEST, at - before)
            before = at
            if not since <= at <= ends[-1]:
                continue
            place = min(count - 1, int((at - since) / step))
            for name, field in _SUMS.items():
                value = means[place_of[field]]
                if not math.isnan(value):
                    sums[name][place] += value * seconds
                    known[name][place] = True
            for name, field in _PEAKS.items():
                value, top = most[place_of[field]], peaks[name][place]
                if not math.isnan(value):
                    peaks[name][place] = value if top is None else max(top, value)
            value = means[place_of["gpu_utilization"]]
            if not math.isnan(value):
                busy[place] += value * seconds
                busy_for[place] += seconds
    columns: Columns = {}
    for name, column in sums.items():
        lengths = [end - since - step * number for number, end in enumerate(ends)]
        columns[name] = [
            value / max(1.0, lengths[number]) if known[name][number] else None for number, value in enumerate(column)
        ]
    columns["gpu_utilization"] = [value / long if long else None for value, long in zip(busy, busy_for, strict=True)]
    return {**columns, **peaks}


def _there(containers: Sequence[Any], ends: Sequence[float]) -> Columns:
    begun = sorted(row["created_at"] for row in containers)
    over = sorted(row["ended_at"] for row in containers if row["ended_at"])
    ready: list[float] = []
    ready_over: list[float] = []
    for row in containers:
        at = row["created_at"] + row["total"] if row["total"] is not None else None
        if at is None and row["state"] == "ready":
            at = row["created_at"]
        if at is not None:
            ready.append(at)
            if row["ended_at"]:
                ready_over.append(max(at, row["ended_at"]))
    ready.sort()
    ready_over.sort()

    def there(begins: Sequence[float], gone: Sequence[float], moment: float) -> int:
        return bisect.bisect_right(begins, moment) - bisect.bisect_right(gone, moment)

    up: list[float | None] = [there(ready, ready_over, end) for end in ends]
    starting: list[float | None] = [max(0, there(begun, over, end) - there(ready, ready_over, end)) for end in ends]
    return {"containers_ready": up, "containers_starting": starting}


def _ended(minutes: Sequence[tuple[int, Minute]], since: float, step: float, count: int) -> Columns:
    """A minute counts where it begins; one that a step cuts is not cut."""
    wholes = [Minute() for _ in range(count)]
    for minute, one in minutes:
        wholes[min(count - 1, max(0, int((minute * MINUTE - since) / step)))].add(one)
    return {
        "inputs_success": [one.success for one in wholes],
        "inputs_failure": [one.failure for one in wholes],
        "inputs_timeout": [one.timeout for one in wholes],
        "queue_time_p50": [percentile(one.queue, 0.5) for one in wholes],
        "queue_time_p95": [percentile(one.queue, 0.95) for one in wholes],
        "run_time_p50": [percentile(one.run, 0.5) for one in wholes],
        "run_time_p95": [percentile(one.run, 0.95) for one in wholes],
    }
