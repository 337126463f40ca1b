"""What happens to the scheduler: each event is a fact that somebody outside saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alight.scheduler.state import Gpu, Need


@dataclass(frozen=True, slots=True)
class Held:
    """A container that a node brings along when it joins."""

    container_id: str
    function_id: str
    ready: bool
    inputs: tuple[str, ...] = ()
    memory: int = 0
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """A machine is there, for the first time or again, with what it holds."""

    node_id: str
    hostname: str
    cpus: float
    memory: int
    gpus: tuple[Gpu, ...] = ()
    held: tuple[Held, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeAway:
    """The connection to a machine is lost; its containers may run on."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeGone:
    """A machine has been away too long: its containers count as lost."""

    node_id: str


@dataclass(frozen=True, slots=True)
class FunctionPublished:
    """A function is new or changed. A changed one gets new containers; old ones finish what they run."""

    function_id: str
    app_id: str
    name: str
    need: Need


@dataclass(frozen=True, slots=True)
class AppEnded:
    """An app is stopped: its inputs are forgotten, its containers stop within ``grace`` seconds."""

    app_id: str
    grace: float = 10.0


@dataclass(frozen=True, slots=True)
class InputArrived:
    """An input waits. ``not_before`` delays it (a retry that a restarted server took up again)."""

    input_id: str
    function_id: str
    attempt: int = 1
    retries: int = 0
    failures: int = 0
    parent: str = ""
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class InputCancelled:
    """Nobody wants this input any more. ``kill`` ends its container, too."""

    input_id: str
    kill: bool = False


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """A container answered an attempt with a ResultStatus. Late answers only free their slot."""

    input_id: str
    attempt: int
    container_id: str
    status: str


@dataclass(frozen=True, slots=True)
class ContainerReady:
    """A container takes inputs."""

    container_id: str


@dataclass(frozen=True, slots=True)
class ContainerEnded:
    """A container is gone.

    ``error`` (wire form) and ``status`` say what its unanswered inputs get if they are not tried again; ``users_fault``
    when trying again is for the user's retry policy to say (killed for memory), not for ours.
    """

    container_id: str
    status: str = "terminated"
    error: dict[str, Any] | None = None
    users_fault: bool = False


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A container never became ready. ``final``: the same would happen again (import error, image that won't build)."""

    container_id: str
    status: str
    error: dict[str, Any] | None
    final: bool


@dataclass(frozen=True, slots=True)
class CpuLent:
    """A container's input waits for another call (``on``), or goes on."""

    container_id: str
    on: bool


Event = (
    NodeJoined
    | NodeAway
    | NodeGone
    | FunctionPublished
    | AppEnded
    | InputArrived
    | InputCancelled
    | AttemptEnded
    | ContainerReady
    | ContainerEnded
    | StartFailed
    | CpuLent
)
