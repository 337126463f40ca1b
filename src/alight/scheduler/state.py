"""What the scheduler knows. Changed by ``step`` alone.

Inputs are ranges of a call's positions: what waits is spans in the call, what runs is runs in containers, and only an
input that was tried before has a record of its own. Sums (free memory, free GPUs, inputs that wait) are kept as things
change, so that a step costs what it touches and not what there is; the tests recompute them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from alight.wire.spec import RetryPolicy

DEFAULT_MEMORY = 128  # MiB that a container holds when its function names none
DEFAULT_CPU = 0.125  # cores that it counts for
DEFAULT_WINDOW = 60.0  # seconds that an idle container waits for more
INFRASTRUCTURE_TRIES = 3  # containers that one input may lose before it is called poison
STUCK_SECONDS = 1.0  # a child that only its own waiting parents could make room for fails after this

#: Inputs ``start`` to ``stop`` (exclusive) of a call that wait, all at this attempt.
Span = tuple[int, int, int]


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
    target_concurrent: int | None = None  # inputs in a container that scaling aims at; None = the most
    batch_size: int = 0  # most inputs in one run of a batched function; 0 = it is not batched
    exit_grace: float = 0.0  # what its containers have to leave in at least, unless they are to end at once
    cluster: int = 0  # containers that work on each input together, a gang; 0: one alone

    @property
    def slots(self) -> int:
        """Inputs that a container may hold begun."""
        return 1 if self.single_use or self.cluster else max(1, self.max_concurrent) * max(1, self.batch_size)

    @property
    def count(self) -> int:
        """Containers that start together."""
        return max(1, self.cluster)

    @property
    def memory_in_all(self) -> int:
        """MiB that they hold together."""
        return self.memory * self.count


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a machine, or one MIG instance of it. ``memory`` in MiB."""

    uuid: str
    type: str
    memory: int
    name: str = ""
    fault: str = ""  # why nobody gets it; "" while it is in service
    slice_of: str = ""  # of a MIG instance: the uuid of its GPU
    whole: int = 0  # and that one's memory
    links: Mapping[str, int] = field(default_factory=dict, compare=False)  # see ``topology``


@dataclass(slots=True)
class Used:
    """What containers hold together of a GPU that they share: MiB, and percent of its processors."""

    gpu: Gpu
    memory: int = 0
    percent: int = 0
    holders: int = 0


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
    gpus_free: dict[str, Gpu] = field(default_factory=dict)  # in service, and nobody holds any of it
    gpus_shared: dict[str, Used] = field(default_factory=dict)  # held in parts
    starting: int = 0
    starts_at_once: int = 2  # more than this many containers starting together only make each other slow
    containers: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class Run:
    """Inputs of a call at one attempt that a container holds and has not answered.

    They are ``start`` to ``stop`` (exclusive), or those in ``left`` when answers came out of order. ``alone``: one of
    them may have ended its last container, so nothing shares this one with it.
    """

    call_id: str
    start: int
    stop: int
    attempt: int
    order: int
    alone: bool = False
    left: set[int] | None = None


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
    since: float = 0.0
    ready: bool = False
    stopping: bool = False
    draining: str = ""  # gets no more inputs and stops after its last; names who needs the room
    blocked: bool = False  # all that it runs waits for other calls
    waits: int = 0  # inputs that wait for other calls
    recalled: bool = False  # asked to return what it has not begun, and has not answered yet
    stalled: bool = False  # its input takes much longer than this function's usually do
    served: bool = False  # has had an input
    timed_out: bool = False  # it ends because of one input, which is known
    frees: str = ""  # why it ends though it has inputs, where these begin again for it, at no charge
    moved: float = 0.0  # when it last was given its first input or answered one
    idle_since: float = 0.0
    idle_timer: bool = False
    open: int = 0  # inputs in ``runs`` and ``dropped``
    runs: dict[str, list[Run]] = field(default_factory=dict)  # by call
    dropped: dict[str, list[Run]] = field(default_factory=dict)  # cancelled: only their slots count
    gang: str = ""  # the gang that it belongs to; its function knows the leader alone, which is rank 0
    rank: int = 0


@dataclass(slots=True)
class Gang:
    """Containers that start together and work on each input together. See ``gangs``.

    ``members`` by rank, with those that are gone. ``answer``: the leader's, while others still run the input.
    ``over``: one was lost or failed its input, and the others end.
    """

    gang_id: str
    function_id: str
    members: tuple[str, ...]
    answer: Any = None
    over: bool = False


@dataclass(slots=True)
class Tried:
    """An input that is not at its first attempt."""

    attempt: int = 1
    retries: int = 0
    failures: int = 0


class Call:
    """A call with inputs that are not done. ``order`` is the order of arrival over all functions.

    What waits for a container is in three lines: ``first`` (returned, or lost with a container: they had their turn
    once), ``waiting``, and ``suspects``, which may have ended their container and are given alone. ``delayed`` says
    when a position may be tried again; ``items`` are generators' inputs that gave items; ``containers`` hold runs of
    it; no position that was ever seen is at or above ``top``.

    There may be very many, and most use one or two of their collections: each is made when something comes into it.
    Until then it is empty and cannot be written, so what writes is below or looks first.
    """

    __slots__ = ("arrived", "call_id", "containers", "delayed", "first", "function_id", "items", "order", "parent",
                 "suspects", "top", "tried", "waiting")  # fmt: skip

    def __init__(
        self, call_id: str, function_id: str, order: int, parent: tuple[str, int] | None = None, arrived: float = 0.0
    ) -> None:
        self.call_id = call_id
        self.function_id = function_id
        self.order = order
        self.parent = parent
        self.arrived = arrived
        self.top = 0
        self.waiting: deque[Span] = _NONE
        self.first: list[Span] = _NONE
        self.suspects: list[Span] = _NONE
        self.items: set[int] = _NONE
        self.delayed: dict[int, float] = _NONE_BY_KEY
        self.tried: dict[int, Tried] = _NONE_BY_KEY
        self.containers: dict[str, None] = _NONE_BY_KEY

    def held_by(self, container_id: str) -> None:
        """A container holds some of its inputs."""
        if self.containers:
            self.containers[container_id] = None
        else:
            self.containers = {container_id: None}

    def wait_behind(self, span: Span) -> None:
        """Inputs get in line after all others of the call."""
        if self.waiting:
            self.waiting.append(span)
        else:
            self.waiting = deque((span,))

    def wait_first(self, span: Span, *, suspect: bool) -> None:
        """Inputs get in line before the others that had their turn."""
        if suspect:
            self.suspects = self.suspects or []
            self.suspects.insert(0, span)
        else:
            self.first = self.first or []
            self.first.insert(0, span)

    def wait_until(self, position: int, when: float) -> None:
        """An input is tried again, but not yet."""
        if self.delayed:
            self.delayed[position] = when
        else:
            self.delayed = {position: when}

    def record(self, position: int) -> Tried:
        """How often an input was tried; a new record for one that has none."""
        if not self.tried:
            self.tried = {}
        return self.tried.setdefault(position, Tried())

    def gave_items(self, position: int) -> None:
        """A generator's input gave something."""
        if self.items:
            self.items.add(position)
        else:
            self.items = {position}


_NONE: Any = ()
_NONE_BY_KEY: Any = MappingProxyType({})


@dataclass(slots=True)
class Function:
    """A function with its calls in line and its containers, sorted by what they can do."""

    function_id: str
    app_id: str
    name: str
    need: Need
    slots: int  # inputs that a container may hold begun: ``need.slots``
    version: int = 1  # of containers that start now
    proven: int = 1  # the oldest version whose containers serve: an earlier one while a trial is under way
    trial: float | None = None  # since when the first container of this version is waited for
    halted: bool = False  # its version did not come up: nothing starts until another one is published
    retired: dict[str, Any] | None = None  # it is published no more: what waits for it ends with this error
    kept: bool = False  # of a deployed app: min_containers holds without any input
    pace: float | None = None  # seconds that an input takes; None while nobody knows
    waiting: int = 0  # inputs in line
    line: OrderedDict[str, None] = field(default_factory=OrderedDict)  # calls with ``waiting``, in turn
    first: OrderedDict[str, None] = field(default_factory=OrderedDict)
    suspects: OrderedDict[str, None] = field(default_factory=OrderedDict)
    containers: dict[str, None] = field(default_factory=dict)
    starting: set[str] = field(default_factory=set)  # of this version, not ready yet
    serving: set[str] = field(default_factory=set)  # ready and answering inputs, or able to
    idle: OrderedDict[str, None] = field(default_factory=OrderedDict)  # can take inputs and have none
    partly: OrderedDict[str, None] = field(default_factory=OrderedDict)  # have some and can take more
    leaving: set[str] = field(default_factory=set)  # stopping or draining
    blocked: set[str] = field(default_factory=set)  # do not count for max_containers
    quarantine: str = ""  # the container that is kept empty for the next suspect
    awake: bool = False  # has had an input: from now on min_containers holds
    looking: bool = False  # a timer is set to look at its containers' pace
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
    gangs: dict[str, Gang] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    hungry: dict[str, None] = field(default_factory=dict)  # functions to look at in this step
    starved: dict[str, None] = field(default_factory=dict)  # functions that need room that is not there
    idled: bool = False  # a container has nothing to do since the last step
    timers: list[tuple[float, int, str, str]] = field(default_factory=list)  # heap of (when, order, kind, id)
    count: int = 0
    shapes: dict[Any, Any] = field(default_factory=dict)  # ``place``: machines by what is asked of them
    choices: dict[tuple[str, ...], Any] = field(default_factory=dict)  # ``place``: GPU requests as read
    possible: set[tuple[int, tuple[str, ...], int]] = field(default_factory=set)  # what some machine here can run
    claimed: dict[str, int] = field(default_factory=dict)  # ``room``: MiB to come that somebody waits for, by node
    orphaned: dict[str, str] = field(default_factory=dict)  # containers of apps that have ended, and their machines
    aliases: Mapping[str, str] = field(default_factory=dict)  # the site's own names of GPUs
    claimed_gpus: set[str] = field(default_factory=set)
    #: Apps whose inputs wait because a budget is used up, and the sentence that says so.
    budgets: dict[str, str] = field(default_factory=dict)
    #: (container, call, inputs given or -inputs done with, whether those had begun) since somebody last took them, for
    #: who accounts for containers' time. None: nobody does.
    moves: list[tuple[str, str, int, bool]] | None = None

    def next_order(self) -> int:
        """A number that only grows."""
        self.count += 1
        return self.count


def spans(run: Run) -> Iterator[tuple[int, int]]:
    """What of a run is not answered, as ranges in order."""
    if run.left is None:
        yield run.start, run.stop
        return
    start = stop = -1
    for position in sorted(run.left):
        if position != stop:
            if stop > start:
                yield start, stop
            start = position
        stop = position + 1
    if stop > start:
        yield start, stop


def size(run: Run) -> int:
    """Inputs of a run that are not answered."""
    return run.stop - run.start if run.left is None else len(run.left)
