"""What containers use: every ten seconds, every second while somebody watches, and once more at their end.

Most numbers are the kernel's or the driver's own counters. What those do not add up (memory over time, energy of a
container's GPUs) is added up here, and kept in the container's directory, so that an agent that starts again goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from alight.node import machine
from alight.node.container import Container
from alight.node.engine.base import Engine
from alight.node.gpu_use import ProcessUse, own_use
from alight.node.session import Session
from alight.node.surroundings import Surroundings
from alight.wire import errors
from alight.wire.commands import GpuUse, Report
from alight.wire.gpus import grant

EVERY = 10.0
WATCHED = 1.0


class Sampler:
    """Measures the containers of a node and the machine, and tells the server."""

    def __init__(
        self, engine: Engine, session: Session, containers: Mapping[str, Container], around: Surroundings
    ) -> None:
        self._engine = engine
        self._session = session
        self._containers = containers
        self._around = around
        self._last: dict[str, float] = {}  # by container; "" is the machine
        self._busy = MachineCounters()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(WATCHED)
            if self._session.connected:
                await self.look(time.time())

    async def look(self, now: float) -> None:
        """Measure what is due."""
        everything = now < self._around.gpu_use.until
        if everything or now - self._last.get("", 0.0) >= EVERY - WATCHED / 2:
            self._last[""] = now
            every = await self._around.gpu_use.read()
            await self._session.report(Report("machine", usage=self._busy.read(now), gpus=every))
        due = []
        for container in list(self._containers.values()):
            watched = everything or container.app_id in self._around.watched
            since = now - self._last.get(container.id, 0.0)
            if container.running and since >= (WATCHED if watched else EVERY) - WATCHED / 2:
                due.append(container)
        if not due:
            return
        held = {text for container in due for text in container.gpus}
        gpus = await self._around.gpu_use.read_held(sorted(held)) if held else {}
        shared = {one.uuid for one in map(grant, held) if one.is_share}
        processes = await self._around.gpu_use.by_process(shared) if shared else {}
        for container in due:
            self._last[container.id] = now
            await self._measure(container, now, gpus, processes)
            await asyncio.sleep(0)  # a hundred containers are not to hold up what the loop has to carry
        for gone in self._last.keys() - self._containers.keys() - {""}:
            del self._last[gone]

    async def _measure(
        self,
        container: Container,
        now: float,
        gpus: Mapping[str, GpuUse],
        processes: Mapping[str, Mapping[int, ProcessUse]],
    ) -> None:
        uses = {text: gpus[text] for text in container.gpus if text in gpus}
        try:
            stats = await self._engine.stats(container.id)
            for text, use in uses.items():
                one = grant(text)
                if one.is_share and one.uuid in processes:
                    inside = await self._engine.inside(container.id)
                    uses[text] = own_use(use, processes[one.uuid], inside)
        except errors.Error:
            return  # it ended this moment; its end is reported by itself
        if container.running:
            usage = container.meter.read(stats, now, list(uses.values()))
            await self._session.report(Report("usage", container.id, usage=usage))


class MachineCounters:
    """The machine's own CPU and memory."""

    def __init__(self) -> None:
        self._before = _cpu_times()

    def read(self, now: float) -> dict[str, float]:
        """Cores that are busy since the last reading, bytes that are in use."""
        before, self._before = self._before, _cpu_times()
        busy, every = (after - one for after, one in zip(self._before, before))
        facts = machine.facts()
        usage = {"at": now, "cpus": float(facts.cpus), "memory_total_bytes": float(facts.memory_mib << 20)}
        if every > 0:
            usage["cpu"] = busy / every * (os.cpu_count() or 1)
        with contextlib.suppress(OSError, ValueError, KeyError):
            said = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
            free, total = (int(said[name].split()[0]) << 10 for name in ("MemAvailable", "MemTotal"))
            usage["memory_bytes"] = float(total - free)
        return usage


def _cpu_times() -> tuple[int, int]:
    """Ticks that were busy, and all, since the machine started."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
