"""Measurements as they arrive: into series on disk, and counts of inputs into the store, minute by minute."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from alight.server.series import Series
from alight.server.services.node_session import Session
from alight.server.services.nodes import Nodes
from alight.server.tally import MINUTE, Minute, Tally, to_text
from alight.server.web_tally import WebMinute, WebTally
from alight.store.base import Statement, Store
from alight.wire import errors
from alight.wire.commands import Command

log = logging.getLogger(__name__)

_FLUSH = 10.0  # seconds between two writes of what was counted
_LOOK = 20.0  # seconds for which machines measure every second once somebody looks
_LOOK_AGAIN = 10.0
_KEPT = 8 * 86400.0
_APART = 0.5  # seconds: two measurements that are nearer than this say no pace
_COUNTERS = (
    ("cpu", "cpu_seconds"),
    ("net_rx", "net_rx_bytes"),
    ("net_tx", "net_tx_bytes"),
    ("disk_read", "disk_read_bytes"),
    ("disk_write", "disk_write_bytes"),
)
_AS_IT_IS = ("memory_bytes", "memory_peak_bytes", "pids", "gpu_utilization", "gpu_memory_bytes", "gpu_power_watts")


class Measures:
    """Hears of measurements and keeps them. ``open`` before use."""

    def __init__(self, store: Store, nodes: Nodes, series: Series, tally: Tally) -> None:
        self._store = store
        self._nodes = nodes
        self.series = series
        self.tally = tally
        self.web = WebTally()
        self._before: dict[str, dict[str, float]] = {}
        self._part = time.time_ns() // 1_000_000  # a server that is killed may be back within the second
        self._task: asyncio.Task[None] | None = None
        self._looked = 0.0
        self._refused = False

    def open(self) -> None:
        """Begin to listen."""
        self._nodes.reports.on_usage.append(self.on_usage)
        self._nodes.reports.on_machine.append(self.on_machine)
        self._task = asyncio.get_running_loop().create_task(self._forever())

    def close(self) -> None:
        """Stop; what was counted is on its way to the store."""
        if self._task is not None:
            self._task.cancel()
            self._write()
        self.series.close()

    def look(self) -> None:
        """Somebody looks at numbers: have them every second for a while."""
        now = time.monotonic()
        if now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        for session in self._nodes.sessions.values():
            session.send(Command("measure", grace=_LOOK))

    def on_usage(self, container_id: str, at: float, usage: dict[str, float]) -> None:
        """See ``Nodes.on_usage``. Adds the pace (``cpu`` in cores, bytes a second) to what it is given."""
        over = bool(usage.get("final"))
        before = self._before.pop(container_id, None)
        if over and before is None:
            return  # said again, or gone before anything could be measured
        values = paces(before, usage)
        usage.update(values)
        if not over:
            self._before[container_id] = usage
            values.update({name: usage[name] for name in _AS_IT_IS if name in usage})
        if values:
            self._add(container_id, at, values)

    def on_machine(self, session: Session, at: float) -> None:
        """See ``Nodes.on_machine``."""
        said = session.machine
        values: dict[str, float] = {name: said[name] for name in ("cpu", "memory_bytes") if name in said}
        self._add(session.hello.node_id, at, values)
        for gpu in session.gpus.values():
            known = {
                "gpu_utilization": gpu.utilization,
                "gpu_memory_bytes": gpu.memory,
                "gpu_power_watts": gpu.power,
                "gpu_temperature": gpu.temperature,
            }
            self._add(gpu.uuid, at, {name: value for name, value in known.items() if value is not None})

    async def flush(self) -> None:
        """Return when all that was counted can be read from the store."""
        statements = self._statements()
        if statements:
            await self._store.write(statements)

    async def sweep(self, now: float) -> None:
        """Fold and drop what is old."""
        await asyncio.to_thread(self.series.sweep, now)
        before = {"before": int((now - _KEPT) // MINUTE)}
        await self._store.write([("minutes_forget", before), ("web_minutes_forget", before)], urgent=False)
        for gone in self._before.keys() - self._nodes.known():
            del self._before[gone]

    def _add(self, name: str, at: float, values: dict[str, float]) -> None:
        try:
            self.series.add(name, at, values)
            self._refused = False
        except OSError as error:
            if not self._refused:  # a full disk: once is enough
                log.error("measurements cannot be kept: %s", error)
            self._refused = True

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH)
            self._write()

    def _write(self) -> None:
        statements = self._statements()
        if statements:
            try:
                self._store.write_soon(statements, relaxed=True)
            except errors.ServiceError as error:
                log.info("counts of the last seconds are not kept, the server is stopping: %s", error)

    def _statements(self) -> list[Statement]:
        found = [("minute_put", minute_row(name, self._part, one)) for name, one in self.tally.take_out()]
        asked = self.web.take_out()
        return found + [("web_minute_put", web_row(name, minute, self._part, one)) for name, minute, one in asked]


def paces(before: Mapping[str, float] | None, now: Mapping[str, float]) -> dict[str, float]:
    """What two readings of counters say about the time between them. Pure."""
    if before is None:
        return {}
    seconds = now.get("at", 0.0) - before.get("at", 0.0)
    if seconds < _APART:
        return {}
    return {
        name: max(0.0, now[counter] - before[counter]) / seconds
        for name, counter in _COUNTERS
        if counter in now and counter in before
    }


def web_row(function_id: str, minute: int, part: int, one: WebMinute) -> dict[str, Any]:
    """How the store keeps what a web function was asked."""
    return {
        "function_id": function_id,
        "minute": minute,
        "part": part,
        "statuses": to_text(one.statuses),
        "latency": to_text(one.latency),
    }


def minute_row(function_id: str, part: int, one: Minute) -> dict[str, Any]:
    """How the store keeps it."""
    return {
        "function_id": function_id,
        "minute": one.minute,
        "part": part,
        "success": one.success,
        "failure": one.failure,
        "timeout": one.timeout,
        "cancelled": one.cancelled,
        "queue": to_text(one.queue),
        "run": to_text(one.run),
        "queue_seconds": one.queue_seconds,
        "run_seconds": one.run_seconds,
    }
