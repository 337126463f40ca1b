"""The counters of one container: the kernel's, and what is added up from one measurement to the next."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from alight.node.engine.base import Stats
from alight.node.gpu_use import GpuMeter
from alight.wire.commands import GpuUse

_FILE = "usage.json"
_KEPT_EVERY = 9.0  # seconds between two writes
_GAP = 60.0  # a longer time between two measurements is not added up from what its ends say


class Meter:
    """Takes readings. All that it returns counts from the container's start."""

    def __init__(self, folder: Path, began: float) -> None:
        self._path = folder / _FILE
        self._at = self._kept_at = began
        self._memory = 0.0
        self._power: float | None = None
        self._byte_seconds = 0.0
        self._joules = 0.0
        self._has_joules = False
        self._energy: dict[str, float] = {}  # the counters of its GPUs at the last reading

    def began(self, at: float) -> None:
        """It runs since then."""
        self._at = self._kept_at = at

    async def hold(self, driver: GpuMeter, gpus: Sequence[str]) -> None:
        """It has these GPUs from now on: what they used before was not its own."""
        for one in (await driver.read_held(gpus)).values():
            if one.joules is not None:
                self._has_joules = True
                self._energy.setdefault(one.uuid, one.joules)

    def take_up(self) -> None:
        """Go on from what an earlier agent kept."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._path.read_bytes())
            self._at = self._kept_at = float(kept["at"])
            self._memory = float(kept["memory"])
            self._byte_seconds = float(kept["byte_seconds"])
            self._joules, self._has_joules = float(kept["joules"]), bool(kept["has_joules"])
            self._energy = {str(name): float(value) for name, value in kept["energy"].items()}

    def read(self, stats: Stats, now: float, gpus: Sequence[GpuUse], *, final: bool = False) -> dict[str, float]:
        """A measurement, with keys as ``docs/metrics.md`` has them."""
        seconds = max(0.0, now - self._at)
        memory = float(stats.memory_bytes)
        if final:  # nobody is left who holds any; one that was never looked at counts with the most that it had
            memory = self._memory or float(stats.memory_peak_bytes)
        # Between two readings it had about the mean of both; before the first one, what the first one says.
        before = self._memory or memory
        self._byte_seconds += seconds * (before + memory) / 2
        self._add_energy(gpus, seconds)
        self._at, self._memory = max(now, self._at), memory
        if not final and now - self._kept_at >= _KEPT_EVERY:
            self._keep(now)
        usage = {
            "at": now,
            "cpu_seconds": stats.cpu_seconds,
            "memory_bytes": float(stats.memory_bytes),
            "memory_peak_bytes": float(max(stats.memory_peak_bytes, stats.memory_bytes)),
            "memory_byte_seconds": self._byte_seconds,
            "pids": float(stats.pids),
            "net_rx_bytes": float(stats.net_rx_bytes),
            "net_tx_bytes": float(stats.net_tx_bytes),
            "disk_read_bytes": float(stats.disk_read_bytes),
            "disk_write_bytes": float(stats.disk_write_bytes),
        }
        usage.update(together(gpus))
        if self._has_joules:
            usage["gpu_joules"] = self._joules
        if final:
            usage["final"] = 1.0
        return usage

    def _add_energy(self, gpus: Sequence[GpuUse], seconds: float) -> None:
        for one in gpus:
            if one.joules is not None:
                self._has_joules = True
                self._joules += max(0.0, one.joules - self._energy.get(one.uuid, one.joules))
                self._energy[one.uuid] = one.joules
            elif one.power is not None and seconds < _GAP:
                self._has_joules = True
                self._joules += one.power * seconds

    def _keep(self, now: float) -> None:
        self._kept_at = now
        kept = {
            "at": self._at,
            "memory": self._memory,
            "byte_seconds": self._byte_seconds,
            "joules": self._joules,
            "has_joules": self._has_joules,
            "energy": self._energy,
        }
        with contextlib.suppress(OSError):  # a full disk: what was added up would begin anew after a restart
            self._path.write_text(json.dumps(kept), encoding="ascii")


def together(gpus: Sequence[GpuUse]) -> Mapping[str, float]:
    """Several GPUs as one: utilisation is their mean, all else their sum. Pure."""
    found: dict[str, float] = {}
    busy = [one.utilization for one in gpus if one.utilization is not None]
    memory = [one.memory for one in gpus if one.memory is not None]
    power = [one.power for one in gpus if one.power is not None]
    if busy:
        found["gpu_utilization"] = sum(busy) / len(busy)
    if memory:
        found["gpu_memory_bytes"] = sum(memory)
    if power:
        found["gpu_power_watts"] = sum(power)
    return found
