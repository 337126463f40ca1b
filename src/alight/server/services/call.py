"""What the server keeps in memory of a call that is not over: counts, ranges, and the bodies that will run soon."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from alight.server.services.ranges import Ranges
from alight.store.base import Ticket
from alight.wire.codec import Buffer

if TYPE_CHECKING:
    import asyncio

    from alight.server.services.readers import Reader


class Chunk:
    """Inputs that came together, while their bodies are in memory. ``given`` counts those that a container got."""

    __slots__ = ("_offsets", "body", "count", "flags", "given", "sizes", "start")

    def __init__(self, start: int, sizes: Sequence[int], body: Buffer, flags: int) -> None:
        self.start = start
        self.count = len(sizes)
        self.sizes = sizes
        self.body = body
        self.flags = flags
        self.given = 0
        self._offsets: list[int] | None = None

    def cut(self, start: int, stop: int) -> tuple[Sequence[int], Buffer]:
        """Sizes and bodies of some of its inputs, by position in the call."""
        low, high = start - self.start, stop - self.start
        if low == 0 and high == self.count:
            return self.sizes, self.body
        if self._offsets is None:
            self._offsets = list(accumulate(self.sizes, initial=0))
        return self.sizes[low:high], memoryview(self.body)[self._offsets[low] : self._offsets[high]]


class Holding:
    """Inputs ``start`` to ``stop`` that a container was given; ``left`` of them have no answer yet."""

    __slots__ = ("attempt", "container_id", "left", "since", "start", "stop")

    def __init__(self, container_id: str, start: int, stop: int, attempt: int, since: float) -> None:
        self.container_id = container_id
        self.start = start
        self.stop = stop
        self.attempt = attempt
        self.since = since
        self.left = stop - start

    def is_all(self, container_id: str, positions: Sequence[int]) -> bool:
        """Whether these are its positions, all of them."""
        if self.container_id != container_id or type(positions) is not range:
            return False
        return positions.start == self.start and positions.stop == self.stop and positions.step == 1


class Call:
    """A call that is not over. ``total`` is None while more inputs may come; ``last`` numbers its newest output.

    Optional parts are None until there is something in them: most calls have one input and are over in a moment.
    """

    __slots__ = (
        "accepted",
        "app_id",
        "arrived",
        "call_id",
        "caller_gone",
        "chunks",
        "created_at",
        "done",
        "failed",
        "forgotten",
        "function_id",
        "held_acks",
        "holdings",
        "items",
        "last",
        "loaded",
        "method",
        "over",
        "parent",
        "parked",
        "queued",
        "readers",
        "references",
        "rest",
        "retried",
        "senders",
        "seq",
        "strange",
        "succeeded",
        "ticket",
        "timer",
        "total",
        "unread",
        "unwritten",
        "verb",
        "waited",
    )

    def __init__(self, call_id: str, function_id: str, app_id: str) -> None:
        self.call_id = call_id
        self.function_id = function_id
        self.app_id = app_id
        self.seq = 0
        self.verb = "remote"
        self.method = ""
        self.parent: tuple[str, int] | None = None
        self.created_at = 0.0
        self.accepted = 0
        self.total: int | None = None
        self.succeeded = 0
        self.failed = 0
        self.last = 0
        self.done: Ranges | None = None
        self.arrived: Ranges | None = None  # a strange call's inputs that the scheduler knows
        self.chunks: list[Chunk] | None = None
        self.references: dict[int, str] | None = None  # large arguments by position
        self.holdings: list[Holding] | None = None
        self.readers: list[Reader] | None = None
        self.items: dict[int, int] | None = None  # generators: the number of the next item, by position
        self.unread = 0  # bytes of items that no reader has taken
        self.held_acks: list[tuple[str, int]] | None = None
        self.rest: tuple[dict[str, object], bytes] | None = None  # how inputs without an output of their own ended
        self.ticket: Ticket | None = None  # of the write that adds it, while that may be replaced
        self.unwritten: Chunk | None = None  # its one chunk, until its rows are on their way to the store
        self.timer: asyncio.TimerHandle | None = None
        self.senders = 0
        self.forgotten = 0  # chunks before this position are gone from the store
        self.waited = False  # its caller listens, or will again
        self.queued = False  # the scheduler has heard of it
        self.loaded = False  # from the store
        self.strange = False  # a machine runs it and the store has never heard of it
        self.retried = False
        self.parked = False  # too many of its function are in memory: only its chunks' rows are kept
        self.caller_gone = False
        self.over = False

    @property
    def ended(self) -> int:
        """Inputs that have their end."""
        return self.succeeded + self.failed

    @property
    def running(self) -> int:
        """Inputs that lie in containers."""
        return sum(one.left for one in self.holdings) if self.holdings else 0

    def is_done(self, position: int) -> bool:
        """Whether an input has its end."""
        return self.over or (self.done is not None and position in self.done)

    def open_ranges(self, start: int = 0) -> tuple[tuple[int, int], ...]:
        """What was accepted from a position on and has no end."""
        if self.done is None:
            return ((start, self.accepted),) if start < self.accepted else ()
        return tuple(self.done.missing(start, self.accepted))

    def mark_done(self, positions: Sequence[int]) -> int:
        """These have their end; returns how many had none before."""
        if self.total == 1 and self.accepted == 1 and not self.items:
            return 0 if self.ended else 1
        if self.done is None:
            self.done = Ranges()
        return self.done.add_all(positions)

    def left(self, positions: Sequence[int]) -> Sequence[int]:
        """Those of them that have no end yet; ``positions`` itself when that is all of them."""
        if self.done is None:
            return positions
        if self.done.missing(positions[0], positions[-1] + 1) == [(positions[0], positions[-1] + 1)]:
            return positions
        return [position for position in positions if not self.is_done(position)]

    def chunk_at(self, position: int) -> Chunk | None:
        """The chunk of a position, when it is in memory."""
        chunks = self.chunks
        if not chunks:
            return None
        at = bisect_right(chunks, position, key=_start) - 1
        found = chunks[at]
        return found if at >= 0 and position < found.start + found.count else None

    def keep(self, chunk: Chunk) -> None:
        """Have a chunk's bodies in memory."""
        if self.chunks is None:
            self.chunks = [chunk]
        else:
            self.chunks.insert(bisect_right(self.chunks, chunk.start, key=_start), chunk)

    def hold(self, holding: Holding) -> None:
        """A container got some of its inputs."""
        if self.holdings is None:
            self.holdings = [holding]
        else:
            self.holdings.append(holding)

    def answered(self, container_id: str, positions: Sequence[int]) -> bool:
        """A container has answered these. Returns whether it holds none any more."""
        if not self.holdings:
            return True
        others = False
        together = type(positions) is range
        low, high = (positions[0], positions[-1]) if together else (min(positions), max(positions))
        for one in self.holdings[:]:
            if one.container_id != container_id:
                continue
            if one.start <= high and low < one.stop:
                if together:
                    one.left -= min(one.stop, high + 1) - max(one.start, low)
                else:
                    one.left -= sum(one.start <= position < one.stop for position in positions)
                if one.left <= 0:
                    self.holdings.remove(one)
                    continue
            others = True
        return not others

    def let_go(self, container_id: str, start: int = 0, stop: int = 1 << 62) -> None:
        """What a container held between these positions is not there any more."""
        if self.holdings:
            self.holdings = [
                one
                for one in self.holdings
                if one.container_id != container_id or one.stop <= start or one.start >= stop
            ]


def _start(chunk: Chunk) -> int:
    return chunk.start
