"""What this machine has to give: cores, and memory less a reserve for itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_MIB = 1 << 20
#: Kept for the system, the server and the agent.
_RESERVE_SHARE = 0.05
_RESERVE_LEAST = 256 * _MIB
_RESERVE_MOST = 2048 * _MIB


@dataclass(frozen=True)
class Machine:
    """``memory_mib`` is what containers may have together."""

    cpus: float
    memory_mib: int


def facts(root: Path = Path("/")) -> Machine:
    """This machine as it is, or as the control group that we run in lets us see it."""
    total = _meminfo(root)
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _number(root / name)
        if limit:
            total = min(total, limit)
    reserve = min(_RESERVE_MOST, max(_RESERVE_LEAST, int(total * _RESERVE_SHARE)))
    return Machine(_cpus(root), max(0, total - reserve) // _MIB)


def _cpus(root: Path) -> float:
    count = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return min(count, int(quota) / int(period)) if quota != "max" else count


def _meminfo(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
