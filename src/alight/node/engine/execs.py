"""The seam between the agent and an engine that can run more programs in a container that runs. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from alight.node.engine.base import EngineError


class ProgramError(EngineError):
    """The container is there, and the program could not be started in it: it is missing, or no program."""


@dataclass(frozen=True)
class ExecPlan:
    """A program in a container: its isolation, limits, user and files are the container's."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """All of its environment."""
    cwd: str = "/"
    terminal: tuple[int, int] | None = None
    """Rows and columns of the terminal that it gets as its controlling one. ``None``: three pipes."""


class Exec(Protocol):
    """A program under way. Descriptors do not block; what is closed is -1. All of a terminal is ``stdout``, and
    ``stdin`` is another descriptor for it.
    """

    stdin: int
    stdout: int
    stderr: int

    async def wait(self) -> int:
        """Its exit status, negative for the signal that ended it. Raises ``EngineError`` when nobody knows."""
        ...

    async def signal(self, signum: int) -> None:
        """Send a signal to it and to what it started in its process group. Nothing happens when it ended."""
        ...

    def close_stdin(self) -> None:
        """End its standard input."""
        ...

    async def close(self) -> None:
        """Let go of everything. What still runs of it is killed."""
        ...
