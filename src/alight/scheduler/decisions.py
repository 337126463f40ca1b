"""What the scheduler wants done. The server's loop carries it out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Start:
    """Start a container for a function on a machine, with these GPUs (by uuid) and MiB."""

    container_id: str
    function_id: str
    node_id: str
    gpus: tuple[str, ...]
    memory: int


@dataclass(frozen=True, slots=True)
class Give:
    """Give an attempt to a container."""

    input_id: str
    attempt: int
    container_id: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """A machine that came back runs this input in this container: its answer counts, whatever attempt it was."""

    input_id: str
    container_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Interrupt an input that runs."""

    input_id: str
    container_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End a container within ``grace`` seconds."""

    container_id: str
    node_id: str
    why: str
    grace: float = 30.0


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer of this attempt is the input's result."""

    input_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Again:
    """The input is tried again as ``attempt``, not before ``at``.

    ``why`` is for people, who did not ask for it: what was lost. Empty for a retry that they asked for.
    """

    input_id: str
    attempt: int
    retries: int
    failures: int
    at: float
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Fail:
    """The input ends with this error (wire form): no container can answer it."""

    input_id: str
    status: str
    error: dict[str, Any]


Decision = Start | Give | Adopted | Cancel | Stop | Finish | Again | Fail
