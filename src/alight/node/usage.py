"""What containers use, told every few seconds while somebody watches their app; never else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from alight.node.container import Container
from alight.node.engine.base import Engine
from alight.node.session import Session
from alight.node.surroundings import Surroundings
from alight.wire import errors
from alight.wire.commands import Report

EVERY = 5.0


async def report_forever(
    engine: Engine, session: Session, containers: Mapping[str, Container], around: Surroundings
) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(EVERY)
        if not session.connected or not around.watched:
            continue
        gpus = await asyncio.to_thread(around.shop.gpus.used_memory) if around.shop.gpus.gpus() else {}
        for container in list(containers.values()):
            if container.app_id not in around.watched or not container.running:
                continue
            try:
                stats = await engine.stats(container.id)
            except errors.Error:
                continue  # it ended this moment; its end is reported by itself
            used = {
                "cpu_seconds": stats.cpu_seconds,
                "memory_bytes": float(stats.memory_bytes),
                "memory_peak_bytes": float(stats.memory_peak_bytes),
                "pids": float(stats.pids),
            }
            for uuid in container.gpus:
                if uuid in gpus:
                    used["gpu_memory_bytes"] = used.get("gpu_memory_bytes", 0.0) + float(gpus[uuid] << 20)
            await session.report(Report("usage", container.id, usage=used))
