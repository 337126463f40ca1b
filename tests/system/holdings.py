"""What an instance holds on this machine while it runs, as the kernel counts it: starts and stops must add nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from alight.node import cgroups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from alight.node.network import Names

Holdings = dict[str, list[str]]
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def of(home: Path, names: Names, processes: Mapping[str, int]) -> Holdings:
    """Everything of one instance by kind, each thing by its name. ``processes`` are those whose descriptors count."""
    spawner = processes["spawner"]
    below = _below(spawner)
    found: Holdings = {
        "mounts on the host": [line for line in _mounts(os.getpid()) if str(home) in line],
        "mounts of the spawner": _mounts(spawner),
        "control groups": sorted(cgroups.children(names.group)),
        "interfaces": sorted(name for _, name in socket.if_nameindex() if name.startswith(names.prefix)),
        "processes below the spawner": sorted(_command(pid) for pid in below),
        "namespaces": _namespaces([spawner, *below]),
        "directories": _directories(home),
    }
    for name, pid in processes.items():
        found[f"descriptors of the {name}"] = _descriptors(pid)
    return found


def grown(before: Holdings, after: Callable[[], Holdings], seconds: float = 20.0) -> dict[str, object]:
    """What there is more of than before, once that does not change any more; {} when nothing is.

    Less is no leak: the kernel removes a network device some time after its container, perhaps of before."""
    end = time.monotonic() + seconds
    while True:
        now = after()
        found: dict[str, object] = {
            kind: f"{len(before[kind])} before, {len(things)} now: {_new(before[kind], things)}"
            for kind, things in now.items()
            if len(things) > len(before[kind])
        }
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)


def parent(pid: int) -> int:
    """The process that it is a child of."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _new(before: list[str], now: list[str]) -> list[str]:
    known = list(before)
    added = []
    for one in now:
        if one in known:
            known.remove(one)
        else:
            added.append(one)
    return added[:20] or [f"gone: {one}" for one in known[:20]]


def _mounts(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines()
    return sorted(line.split(" ", 3)[3] for line in lines)  # without ids, which are new each time


def _below(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(parent(int(entry)), []).append(int(entry))
    found: list[int] = []
    left = [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def _namespaces(pids: list[int]) -> list[str]:
    """Those that a process is in, and those that one holds open."""
    found: set[str] = set()
    for pid in pids:
        for kind in _NAMESPACES:
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
        found.update(one for one in _descriptors(pid) if one.partition(":")[0] in _NAMESPACES)
    return sorted(found)


def _descriptors(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return sorted(found)


def _directories(home: Path) -> list[str]:
    """Of containers and sockets; images, code and logs stay by design."""
    found = [str(one) for one in (home / "node" / "containers").glob("*")]
    found += [str(one) for one in (home / "node").glob("*") if one.is_dir()]
    return sorted(found + [str(one) for one in (home / "run").rglob("*") if one.is_dir()])
