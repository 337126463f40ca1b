"""What this container was given and has not answered for good: chunks of inputs, each with a line that is taken from.

One object for a chunk and nothing for an input, since a chunk may hold a thousand of them. Who takes an input asks the
chunk's ``line`` for the next index: that is one step of the interpreter, so that many threads may take, and the rest of
a line can be withdrawn, without a lock.
"""

from __future__ import annotations

from itertools import accumulate

from alight.wire import chunk

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

ALL = -1


class Call:
    """What the chunks of one call at one attempt share: they are listed here until they are acknowledged."""

    __slots__ = ("chunks", "gather")

    def __init__(self) -> None:
        self.chunks: List[Given] = []
        self.gather: Any = None  # of its outputs


class Given:
    """Inputs of one call at one attempt. An *index* is a position less ``start``."""

    __slots__ = (
        "_ahead",
        "_answered",
        "_body",
        "_cancelled",
        "_offsets",
        "_rest",
        "attempt",
        "call",
        "call_id",
        "count",
        "is_json",
        "is_spawned",
        "line",
        "method",
        "open",
        "prefix",
        "reference",
        "start",
    )

    def __init__(self, head: chunk.Inputs, body: bytes, call: Call) -> None:
        self.call = call
        self.call_id = head.call_id
        self.start = head.start
        self.count = self.open = len(head.sizes)  # ``open``: not yet acknowledged or returned
        self.attempt = head.attempt
        self.method = head.method
        self.is_spawned = bool(head.flags & chunk.SPAWNED)
        self.is_json = bool(head.flags & chunk.JSON)
        self.reference = bool(head.flags & chunk.REFERENCE)
        self.line: Iterator[int] = iter(range(self.count))
        self.prefix = "in" + head.call_id[2:]
        self._body = body
        self._offsets = (0, *accumulate(head.sizes))
        self._answered = 0  # so many from the beginning
        self._ahead: Optional[Set[int]] = None  # answered before those in front of them
        self._rest: Any = ()
        self._cancelled: Any = None  # None, ALL, or a set of indexes

    def input_id(self, index: int) -> str:
        """What ``wire.ids`` makes of call and position."""
        position = self.start + index
        return f"{self.prefix}-{position}" if position else self.prefix

    def arguments(self, index: int) -> bytes:
        """The pickled arguments of one input, or the name and size of where they lie."""
        return self._body[self._offsets[index] : self._offsets[index + 1]]

    def let_go(self) -> None:
        """All that will run here has taken its arguments."""
        self._body = b""

    def close(self) -> None:
        """Nothing more is taken from the line; what is left in it can still be withdrawn."""
        self._rest = self._rest or list(self.line)

    @property
    def waits(self) -> int:
        """How many were not begun."""
        return self.line.__length_hint__()  # type: ignore[attr-defined,no-any-return]  # range iterators have it

    def withdraw(self) -> Optional[Tuple[int, int]]:
        """Take what was not begun out of the line: positions from, to. It is always the end of the chunk."""
        rest = self._rest or list(self.line)
        self._rest = ()
        if not rest:
            return None
        stop = self.start + self.count
        self.count = rest[0]
        self.open -= len(rest)
        return self.start + rest[0], stop

    def cancel(self, position: int) -> bool:
        """Whether the position (or ALL) is one of these."""
        if position == ALL:
            self._cancelled = ALL
            return True
        index = position - self.start
        if not 0 <= index < self.count:
            return False
        if self._cancelled is None:
            self._cancelled = {index}
        elif self._cancelled != ALL:
            self._cancelled.add(index)
        return True

    def is_cancelled(self, index: int) -> bool:
        cancelled = self._cancelled
        return cancelled is not None and (cancelled == ALL or index in cancelled)

    def answered(self, index: int) -> None:
        """An output was made. Under the lock of the outputs."""
        if index == self._answered:
            self._answered += 1
            ahead = self._ahead
            while ahead and self._answered in ahead:
                ahead.remove(self._answered)
                self._answered += 1
        elif self._ahead is None:
            self._ahead = {index}
        else:
            self._ahead.add(index)

    def unanswered(self) -> List[Tuple[int, int]]:
        """Positions without an output, begun or not, as (start, stop)."""
        spans: List[Tuple[int, int]] = []
        at = self._answered
        for index in sorted(self._ahead or ()):
            if index > at:
                spans.append((self.start + at, self.start + index))
            at = index + 1
        if at < self.count:
            spans.append((self.start + at, self.start + self.count))
        return spans


class Held:
    """The chunks that are here. Written by whoever reads the link, and under the lock of the outputs."""

    def __init__(self) -> None:
        self._calls: Dict[Tuple[str, int], Call] = {}  # by id and attempt

    def add(self, head: chunk.Inputs, body: bytes) -> List[Given]:
        """What of a chunk is new: a restarted node may give again what is here already, running or answered."""
        key = (head.call_id, head.attempt)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = Call()
        for given in call.chunks:
            if head.start < given.start + given.count and given.start < head.stop:
                new = _without(head, body, call)
                break
        else:
            new = [Given(head, body, call)]
        call.chunks += new
        return new

    def acknowledged(self, given: Given, count: int) -> None:
        """So many outputs of the chunk are kept elsewhere."""
        given.open -= count
        if not given.open:
            self._forget(given)

    def cancel(self, call_id: str, position: int) -> bool:
        """Whether anything here was meant."""
        hits = [given.cancel(position) for given in self._all() if given.call_id == call_id]
        return any(hits)

    def withdraw(self) -> List[Dict[str, Any]]:
        """Take back all that was not begun: runs in plain words."""
        runs = []
        for given in self._all():
            span = given.withdraw()
            if span is not None:
                runs.append(_run(given, span))
                if not given.open:
                    self._forget(given)
        return runs

    def close_lines(self) -> None:
        """For signal handlers, which cannot wait for a lock: no input that is here is begun any more."""
        for given in self._all():
            given.close()

    def running(self) -> List[Dict[str, Any]]:
        """All that has no output yet, as runs in plain words."""
        return [_run(given, span) for given in self._all() for span in given.unanswered()]

    def _all(self) -> List[Given]:
        return [given for call in list(self._calls.values()) for given in list(call.chunks)]

    def _forget(self, given: Given) -> None:
        call = given.call
        if given in call.chunks:
            call.chunks.remove(given)
        if not call.chunks and self._calls.get((given.call_id, given.attempt)) is call:
            del self._calls[given.call_id, given.attempt]


def _run(given: Given, span: Tuple[int, int]) -> Dict[str, Any]:
    return {"call_id": given.call_id, "start": span[0], "stop": span[1], "attempt": given.attempt}


def _without(head: chunk.Inputs, body: bytes, call: Call) -> List[Given]:
    """The stretches of a chunk that are not held. Only after a reconnect is there anything to leave out."""
    offsets = (0, *accumulate(head.sizes))
    new: List[Given] = []
    first = None
    for index in range(len(head.sizes) + 1):
        position = head.start + index
        known = index == len(head.sizes) or any(
            given.start <= position < given.start + given.count for given in call.chunks
        )
        if not known and first is None:
            first = index
        elif known and first is not None:
            part = chunk.Inputs(
                head.call_id,
                head.start + first,
                head.sizes[first:index],
                head.attempt,
                head.method,
                flags=head.flags,
            )
            new.append(Given(part, body[offsets[first] : offsets[index]], call))
            first = None
    return new
