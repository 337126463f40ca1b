"""What happens to the scheduler: each event is a fact that somebody outside saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alight.scheduler.state import Gpu, Need


@dataclass(slots=True, unsafe_hash=True)
class Run:
    """Inputs ``start`` to ``stop`` (exclusive) of a call at one attempt. They lie in one container."""

    call_id: str
    start: int
    stop: int
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """How often one input has been tried: what a restarted server knows of inputs that were."""

    position: int
    attempt: int
    retries: int = 0
    failures: int = 0
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """A container that a node brings along when it joins.

    ``outdated``: 0 it is of its function's newest version, 1 of the one that serves while the newest is tried, 2 of
    an earlier one. ``gang``, ``rank`` and ``size``: of which gang it is which one of how many."""

    container_id: str
    function_id: str
    ready: bool
    runs: tuple[Run, ...] = ()
    memory: int = 0
    gpus: tuple[str, ...] = ()
    outdated: int = 0
    gang: str = ""
    rank: int = 0
    size: int = 0


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
class GpusChanged:
    """GPUs of a machine went out of service, or came back. ``gpus`` are all of the machine's."""

    node_id: str
    gpus: tuple[Gpu, ...]


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
    """A function is new or changed. A changed one gets new containers; old ones finish what they run.

    ``trial``: somebody waits to hear (TrialEnded) whether a container of it comes up; until one has, the old ones
    serve on. A function that nobody uses is tried only ``anyway``, when there is a machine. ``resumed``: the trial
    began in an earlier process; machines that join bring the containers of the version before, which serve on.
    ``recreate``: the old ones end at once, and what they ran begins again. ``kept``: it belongs to a deployed app,
    whose containers are there without any input.
    """

    function_id: str
    app_id: str
    name: str
    need: Need
    trial: bool = False
    recreate: bool = False
    kept: bool = False
    anyway: bool = False
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class FunctionReverted:
    """A function is again what it was before it was published last. Containers from before go on, if any are left."""

    function_id: str
    app_id: str
    name: str
    need: Need
    kept: bool = False


@dataclass(frozen=True, slots=True)
class FunctionRetired:
    """A function is published no more: what waits for it ends with ``error``, what has begun goes on to its end."""

    function_id: str
    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AppEnded:
    """An app is stopped: its inputs are forgotten, its containers stop within ``grace`` seconds."""

    app_id: str
    grace: float = 10.0


@dataclass(slots=True, unsafe_hash=True)
class InputsArrived:
    """Inputs of a call wait: the ranges (start, stop), in order. The first event of a call gives it its turn.

    ``parent`` is the input (call and position) whose code made the call. ``attempts`` are those that are not at their
    first, all within the ranges.
    """

    call_id: str
    function_id: str
    ranges: tuple[tuple[int, int], ...]
    parent: tuple[str, int] | None = None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class CallCancelled:
    """Nobody wants the open inputs of this call any more. ``kill`` ends the containers that run any, too."""

    call_id: str
    kill: bool = False


@dataclass(slots=True, unsafe_hash=True)
class AttemptsEnded:
    """A container answered inputs of one call and attempt, all with this ResultStatus. Late answers only free slots.

    ``busy``: seconds of user code for all of them together; 0 when nobody knows.
    """

    call_id: str
    container_id: str
    attempt: int
    positions: Sequence[int]
    status: str
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class ItemsCame:
    """A generator's input has given items to its caller: another attempt would give them twice."""

    call_id: str
    position: int


@dataclass(frozen=True, slots=True)
class InputsReturned:
    """A container gave back what it had not begun: it waits again, first in its function's line, as if never given."""

    container_id: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class ContainerReady:
    """A container takes inputs."""

    container_id: str


@dataclass(frozen=True, slots=True)
class ContainerEnded:
    """A container is gone. Inputs that it had not begun are tried again as if never given.

    ``error`` (wire form) and ``status`` say what its unanswered inputs get if they are not tried again; ``users_fault``
    when trying again is for the user's retry policy to say (killed for memory), not for ours.
    """

    container_id: str
    status: str = "terminated"
    error: dict[str, Any] | None = None
    users_fault: bool = False


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody wants a container gone within ``grace`` seconds. What it runs is tried again elsewhere."""

    container_id: str
    why: str
    grace: float = 30.0


@dataclass(frozen=True, slots=True)
class StartFailed:
    """A container never became ready. ``final``: the same would happen again (import error, image that won't build)."""

    container_id: str
    status: str
    error: dict[str, Any] | None
    final: bool


@dataclass(frozen=True, slots=True)
class InputsWaiting:
    """So many inputs of a container wait for other calls: they need neither their slot nor CPU meanwhile."""

    container_id: str
    count: int


@dataclass(frozen=True, slots=True)
class FunctionScaled:
    """A running function's scaling was changed by hand. Its containers stay; only how many there may be changes."""

    function_id: str
    need: Need


@dataclass(frozen=True, slots=True)
class AppsHeld:
    """These apps, and no others, have used up a budget: nothing of them begins until they may go on.

    ``why`` is the sentence for who waits, by app. What runs goes on to its end, idle containers end at once. ``stop``:
    the apps whose containers end with what they run, which is tried again when they may go on.
    """

    why: dict[str, str]
    stop: frozenset[str] = frozenset()


Event = (
    NodeJoined
    | GpusChanged
    | NodeAway
    | NodeGone
    | FunctionPublished
    | FunctionReverted
    | FunctionRetired
    | AppEnded
    | AppsHeld
    | FunctionScaled
    | InputsArrived
    | CallCancelled
    | AttemptsEnded
    | ItemsCame
    | InputsReturned
    | ContainerReady
    | ContainerEnded
    | StopAsked
    | StartFailed
    | InputsWaiting
)
