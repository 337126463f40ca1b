"""The seam between the builder and whoever can run a container, and the words that a build speaks.

Plain data only: nothing here touches a disk or a process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

#: Where a step's borrowed files and caches lie in its container. Never part of a layer.
LENT = "/opt/alight/build"
CACHES = "/opt/alight/cache"


@dataclass(frozen=True)
class Needs:
    """What a step asks of its container besides files. ``volumes`` are (id, path, read only, sub path)."""

    volumes: tuple[tuple[str, str, bool, str], ...] = ()
    gpus: tuple[str, ...] = ()  # "TYPE[:count]" in order of preference, as functions ask
    cpu: float | None = None
    memory: int | None = None  # MiB
    timeout: float | None = None  # seconds


@dataclass(frozen=True)
class StepRun:
    """One command to run in a container whose root is ``layers`` with ``upper`` written on top.

    ``layers`` are host directories, topmost first. ``upper`` is a host directory that may already hold files and must
    hold the step's changes (as overlayfs writes them) when the runner returns; anything else that the runner needs,
    such as overlay's work directory, goes beside it, in the same parent. ``binds`` are (host path, container path,
    readonly).
    """

    layers: tuple[str, ...]
    upper: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    binds: tuple[tuple[str, str, bool], ...] = ()
    network: bool = True
    needs: Needs = field(default_factory=Needs)


class StepRunner(Protocol):
    """Runs a step to its end. Filled by the node with its container engine."""

    async def run(self, step: StepRun, on_output: Callable[[bytes], None]) -> int:
        """Return the exit status; a cancelled run leaves no process and no mount. Output arrives in any pieces."""
        ...


@dataclass(frozen=True)
class BuildEvent:
    """Something that a person who waits wants to see.

    ``kind``: "started", "cached", "waiting" (another build makes the same step), "log" (one line in ``line``, without
    its newline), "finished" (after ``seconds``). ``step`` counts from 1 to ``total``.
    """

    kind: str
    step: int
    total: int
    title: str
    seconds: float = 0.0
    line: str = ""


@dataclass(frozen=True)
class BuiltImage:
    """An image that is ready on this machine. ``layers`` are host directories, topmost first, never to be written."""

    digest: str
    layers: tuple[str, ...]
    env: Mapping[str, str]
    workdir: str
    python_path: str
    python_version: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
