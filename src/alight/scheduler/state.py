"""What the scheduler knows. Changed by ``step`` alone.

Sums (free memory, free GPUs, cores in use) are kept as things change, so that a step costs what it touches and not what
there is; the tests recompute them from the containers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from alight.wire.spec import RetryPolicy

DEFAULT_MEMORY = 128  # MiB that a container holds when its function names none
DEFAULT_CPU = 0.125  # cores that it counts for
DEFAULT_WINDOW = 60.0  # seconds that an idle container waits for more
INFRASTRUCTURE_TRIES = 3  # containers that one input may lose before it is called poison
STUCK_SECONDS = 1.0  # a child that only its own waiting parents could make room for fails after this


@dataclass(frozen=True, slots=True)
class Need:
    """What a function asks for each container, and how many it may have. MiB, cores, seconds."""

    cpu: float = DEFAULT_CPU
    memory: int = DEFAULT_MEMORY
    gpus: tuple[str, ...] = ()
    min_containers: int = 0
    max_containers: int | None = None
    buffer_containers: int = 0
    scaledown_window: float = DEFAULT_WINDOW
    max_concurrent: int = 1
    single_use: bool = False
    retries: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a machine. ``memory`` in MiB."""

    uuid: str
    type: str
    memory: int
    name: str = ""


@dataclass(slots=True)
class Node:
    """A machine. ``connected`` is False between a lost connection and its return or its end."""

    node_id: str
    hostname: str
    cpus: float
    memory: int
    gpus: tuple[Gpu, ...] = ()
    connected: bool = True
    memory_free: int = 0
    cpu_used: float = 0.0
    gpus_free: dict[str, Gpu] = field(default_factory=dict)
    starting: int = 0
    containers: dict[str, None] = field(default_factory=dict)

    @property
    def starts_at_once(self) -> int:
        """More than this many containers starting together only make each other slow."""
        return max(2, int(2 * self.cpus))


@dataclass(slots=True)
class Container:
    """A container from the decision to start it until the node says that it is gone."""

    container_id: str
    function_id: str
    node_id: str
    memory: int
    cpu: float
    gpus: tuple[str, ...]
    version: int
    ready: bool = False
    stopping: bool = False
    cpu_lent: bool = False  # its input waits for another call
    idle_since: float = 0.0
    idle_timer: bool = False
    inputs: dict[str, int] = field(default_factory=dict)  # input id → attempt


@dataclass(slots=True)
class Input:
    """One input that is not done. ``order`` is the order of arrival over all functions."""

    input_id: str
    function_id: str
    order: int
    attempt: int = 1
    retries: int = 0
    failures: int = 0
    parent: str = ""
    container: str = ""
    delayed: bool = False  # waits for a time, not for a container
    arrived: float = 0.0


@dataclass(slots=True)
class Function:
    """A function with its queue and its containers. ``free`` are those that can take an input now."""

    function_id: str
    app_id: str
    name: str
    need: Need
    version: int = 1
    waiting: deque[str] = field(default_factory=deque)
    containers: dict[str, None] = field(default_factory=dict)
    free: dict[str, None] = field(default_factory=dict)
    starting: int = 0
    awake: bool = False  # has had an input: from now on min_containers holds
    start_failures: int = 0
    start_after: float = 0.0
    stuck_since: float | None = None


@dataclass(slots=True)
class State:
    """Everything. ``make_id`` names containers, so that decisions need no randomness of their own."""

    make_id: Callable[[], str]
    nodes: dict[str, Node] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)
    hungry: dict[str, None] = field(default_factory=dict)  # functions with inputs (or a minimum) unserved
    timers: list[tuple[float, int, str, str]] = field(default_factory=list)  # heap of (when, order, kind, id)
    count: int = 0

    def next_order(self) -> int:
        """A number that only grows."""
        self.count += 1
        return self.count
