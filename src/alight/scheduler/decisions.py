"""What the scheduler wants done. The server's loop carries it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, unsafe_hash=True)
class Start:
    """Start a container for a function on a machine, with these GPUs (by uuid) and MiB.

    ``gang`` names the gang that it is part of, as ``rank`` of ``members``; their starts follow each other.
    """

    container_id: str
    function_id: str
    node_id: str
    gpus: tuple[str, ...]
    memory: int
    gang: str = ""
    rank: int = 0
    members: tuple[str, ...] = ()


@dataclass(slots=True, unsafe_hash=True)
class Give:
    """Give inputs ``start`` to ``stop`` (exclusive) of a call, at one attempt, to a container.

    ``others`` of its gang get the same, and before it: what it holds, they hold.
    """

    call_id: str
    start: int
    stop: int
    attempt: int
    container_id: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask a container to return what it has not begun: another one is idle, or it is about to end."""

    container_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """A machine that came back runs these inputs in this container: the answers count, whatever attempt it was."""

    call_id: str
    positions: Sequence[int]
    container_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Interrupt an input that runs; ``position`` -1: all of the call in this container."""

    call_id: str
    position: int
    container_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End a container within ``grace`` seconds."""

    container_id: str
    node_id: str
    why: str
    grace: float = 30.0


@dataclass(slots=True, unsafe_hash=True)
class Finish:
    """The answers that ``container_id`` brought for these inputs at this attempt are their results."""

    call_id: str
    positions: Sequence[int]
    attempt: int
    container_id: str


@dataclass(frozen=True, slots=True)
class Aside:
    """What a gang's leader answered for a call counts once the others have answered, too: keep it until a Finish names
    it, or not any longer (``keep`` False)."""

    call_id: str
    container_id: str
    keep: bool


@dataclass(frozen=True, slots=True)
class Again:
    """The input is tried again as ``attempt``, not before ``at``.

    ``why`` is for people, who did not ask for it: what was lost. Empty for a retry that they asked for.
    """

    call_id: str
    position: int
    attempt: int
    retries: int
    failures: int
    at: float
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Fail:
    """The inputs end with this error (wire form): no container can answer them."""

    call_id: str
    positions: Sequence[int]
    status: str
    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """What somebody waits to hear of a function that was published with ``trial``.

    ``error`` (wire form) and ``status``: no container of it came up, and the old ones serve on. ``said``: nobody knows
    whether one will, and why.
    """

    function_id: str
    error: dict[str, Any] | None = None
    status: str = ""
    said: str = ""


Decision = TrialEnded | Start | Give | Aside | Recall | Adopted | Cancel | Stop | Finish | Again | Fail
