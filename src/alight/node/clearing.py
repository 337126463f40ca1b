"""Ending what an agent left that was killed, or that only disconnected: its spawner, containers, groups and rules."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

from alight.node import cgroups, volumes
from alight.node.engine import spawner_life
from alight.node.engine.forks import SHELL, TEMPLATE
from alight.node.engine.oci import OciEngine
from alight.node.engine.process import ProcessEngine
from alight.node.gpus import Mps
from alight.node.network import Names
from alight.node.volume_limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

_OURS = (f"{TEMPLATE}-", f"{SHELL}-")


async def clear(home: Path, instance: str, runtime: str) -> list[str]:
    """End all that runs of a state directory without an agent; what that was, in words. The agent's lock is held.

    Raises EngineError, OSError: something could not be ended.
    """
    ended: list[str] = []
    bare = await ProcessEngine(home).end_left()  # first: the other takes what it finds on the disk for its own
    if os.geteuid() == 0:
        spawners = spawner_life.running(home)
        groups = _alive(Names.of(instance))
        await OciEngine(home, instance, runtime=runtime).shutdown()
        await asyncio.to_thread(Mps(home / "run" / "mps").end)
        await asyncio.to_thread(Limits(volumes.root(home / "node"), images=False).close)
        # Those that look like it are its children, and younger.
        ended += [f"spawner (pid {min(spawners)})"] if spawners else []
        ended += _counted(len([one for one in groups if not one.startswith(_OURS)]))
        for name in _OURS:
            for path in (home / "node" / "containers").glob(f"{name}*"):
                shutil.rmtree(path, ignore_errors=True)
    return ended + _counted(bare)


def _counted(count: int) -> list[str]:
    return [f"{count} container{'' if count == 1 else 's'}"] if count else []


def _alive(names: Names) -> list[str]:
    """The containers that have a process."""
    return [one for one in cgroups.children(names.group) if cgroups.processes(f"{names.group}/{one}")]
