"""What user code made, on its way to the node: values gathered into frames, each kept until it is acknowledged.

A frame has a *serial*; acknowledgements name it. Values of one call travel together: they leave when nothing else is to
be done, when the last frame left some time ago, or when enough have come together. Whoever adds decides that by the
clock; for what is left behind by a long input, the link's helper looks (``is_late``). What failed says much, comes
rarely and travels alone, after what was made before it. Knows nothing of user code and never waits for any.
"""

from __future__ import annotations

import time
from _thread import allocate_lock

from alight.runtime.quick_json import encode
from alight.wire import chunk
from alight.wire.codec import HEADER, Kind

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple, Union

    from alight.runtime.inputs import Given, Held

    Buffer = Union[bytes, bytearray, memoryview]

#: Values wait this long for company, in seconds: a frame costs about as much as fifty tiny inputs.
LATE = 0.002
_MOST_BYTES = 1 << 18
_ONE_PIECE = 1 << 16


class Gather:
    """Values of one call at one attempt, or (``window`` is set) items of one generator, on their way into a frame."""

    __slots__ = ("attempt", "busy", "call_id", "flags", "marks", "parts", "position", "positions", "sizes", "window")

    def __init__(self, given: Given, window: Any = None, position: int = 0) -> None:
        self.call_id = given.call_id
        self.attempt = given.attempt
        self.window = window
        self.position = position
        self.clear()

    def clear(self) -> None:
        self.positions: List[int] = []
        self.sizes: List[int] = []
        self.parts: List[bytes] = []
        self.marks: List[List[Any]] = []  # chunks, and how many of each are answered here
        self.busy = 0.0
        self.flags = 0


class _Kept:
    """A frame until it is acknowledged."""

    __slots__ = ("frame", "marks", "size", "window")

    def __init__(
        self, frame: List[Buffer], marks: List[List[Any]], window: Any = None, size: Tuple[int, int] = (0, 0)
    ) -> None:
        self.frame = frame
        self.marks = marks
        self.window = window
        self.size = size  # items and their bytes


class Outputs:
    """All of a container. ``lock`` guards this and the writing end of the link, whose ``send`` is called under it."""

    def __init__(
        self,
        held: Held,
        send: Callable[[List[Buffer]], None],
        before: Callable[[], bool],
        behind: Callable[[], None],
    ) -> None:
        self.lock = allocate_lock()
        self._behind = behind  # told when something waits for company
        self._held = held
        self._send = send
        # What was printed must leave before a frame does; says whether it has left the pipes, too.
        self._before = before
        self._serial = 0
        self._dirty: List[Gather] = []
        self._count = 0
        self._bytes = 0
        self._left = 0.0  # when the last frame left
        self._kept: Dict[int, _Kept] = {}
        self._closed = False
        self._none_kept: Any = None  # a lock that somebody waits for

    def add(self, given: Given, index: int, value: bytes, busy: float, now: float) -> None:
        """An input's value. ``busy`` is how long user code ran for it, ``now`` the monotonic clock."""
        with self.lock:
            if self._closed:
                return
            gather = given.call.gather
            if gather is None:
                gather = given.call.gather = Gather(given)
            if not gather.sizes:
                self._dirty.append(gather)
            gather.positions.append(given.start + index)
            size = len(value)
            gather.sizes.append(size)
            gather.parts.append(value)
            gather.busy += busy
            marks = gather.marks
            if marks and marks[-1][0] is given:
                marks[-1][1] += 1
            else:
                marks.append([given, 1])
            given.answered(index)
            self._count += 1
            self._bytes += size
            if now - self._left >= LATE or self._count >= chunk.MOST or self._bytes >= _MOST_BYTES:
                self._flush(now)
            elif self._count == 1:
                self._behind()

    def add_item(self, gather: Gather, number: int, value: bytes) -> None:
        """What a generator yielded. Its ``window`` was asked for room before."""
        now = time.monotonic()
        with self.lock:
            if self._closed:
                return
            if not gather.sizes:
                self._dirty.append(gather)
            gather.positions.append(number)
            size = len(value)
            gather.sizes.append(size)
            gather.parts.append(value)
            self._count += 1
            self._bytes += size
            if now - self._left >= LATE or self._count >= chunk.MOST or self._bytes >= _MOST_BYTES:
                self._flush(now)
            elif self._count == 1:
                self._behind()

    def add_reference(self, given: Given, index: int, value: bytes, busy: float) -> None:
        """A value that lies in a file: alone in its frame."""
        with self.lock:
            if self._closed:
                return
            self._flush(time.monotonic())
            gather = Gather(given)
            gather.positions, gather.sizes, gather.parts = [given.start + index], [len(value)], [value]
            gather.marks, gather.busy, gather.flags = [[given, 1]], busy, chunk.REFERENCE
            given.answered(index)
            self._frame(gather)

    def add_item_reference(self, like: Gather, number: int, value: bytes) -> None:
        """An item that lies in a file."""
        with self.lock:
            if self._closed:
                return
            self._flush(time.monotonic())
            like.positions, like.sizes, like.parts, like.flags = [number], [len(value)], [value], chunk.REFERENCE
            self._frame(like)
            like.clear()

    def say(self, given: Given, index: int, head: Dict[str, Any], body: bytes) -> None:
        """The end of an input that is no plain value: an ``Output`` in plain words, without what is known here."""
        with self.lock:
            if self._closed:
                return
            self._flush(time.monotonic())
            self._serial += 1
            head.update(
                call_id=given.call_id,
                position=given.start + index,
                attempt=given.attempt,
                container="",
                serial=self._serial,
            )
            given.answered(index)
            self._before()
            self._keep(self._serial, _Kept(frame(Kind.LINK_OUTPUT, encode(head).encode(), (body,)), [[given, 1]]))

    def flush(self) -> None:
        """Let everything leave that was gathered."""
        if self._dirty:
            with self.lock:
                self._flush(time.monotonic())

    def close(self) -> None:
        """What threads still answer comes too late: their inputs were returned."""
        with self.lock:
            self._flush(time.monotonic())
            self._closed = True

    @property
    def is_waiting(self) -> bool:
        """Whether anything was gathered and has not left."""
        return bool(self._dirty)

    def flush_late(self) -> None:
        """Let everything leave that waits for longer than it should."""
        if self._dirty and time.monotonic() - self._left >= LATE:
            self.flush()

    def acknowledged(self, serials: Iterable[int]) -> None:
        """These frames are kept elsewhere now."""
        with self.lock:
            for serial in serials:
                kept = self._kept.pop(serial, None)
                if kept is None:
                    continue  # it was sent twice, and acknowledged as often
                for given, count in kept.marks:
                    self._held.acknowledged(given, count)
                if kept.window is not None:
                    kept.window.acknowledged(*kept.size)
            if not self._kept and self._none_kept is not None:
                self._none_kept.release()
                self._none_kept = None

    def wait_acknowledged(self, seconds: float) -> bool:
        """Whether every output is on the node's disk (or further), within ``seconds``."""
        with self.lock:
            self._flush(time.monotonic())
            if not self._kept:
                return True
            self._none_kept = gate = allocate_lock()
            gate.acquire()
        return bool(gate.acquire(timeout=seconds))

    def unacknowledged(self) -> List[Buffer]:
        """What a new connection has to send again, in order. Under the lock."""
        return [piece for kept in self._kept.values() for piece in kept.frame]

    def _flush(self, now: float) -> None:
        """Under the lock."""
        self._left = now
        dirty = self._dirty
        if not dirty:
            return
        self._dirty = []
        self._count = self._bytes = 0
        for gather in dirty:
            self._frame(gather)
            gather.clear()

    def _frame(self, gather: Gather) -> None:
        """Under the lock: number, keep and send what was gathered."""
        self._serial += 1
        window, positions, flags = gather.window, gather.positions, gather.flags
        span: Any = range(positions[0], positions[0] + len(positions))
        if self._before():
            flags |= chunk.QUIET
        head = chunk.Outputs(
            gather.call_id,
            span if positions == list(span) else tuple(positions),
            gather.sizes,
            attempt=gather.attempt,
            serial=self._serial,
            busy=gather.busy,
            ended=time.time(),
            flags=flags if window is None else flags | chunk.ITEMS,
            position=gather.position,
        )
        size = (0, 0) if window is None else (len(positions), sum(gather.sizes))
        self._keep(
            self._serial, _Kept(frame(Kind.LINK_OUTPUT, head.encode(), gather.parts), gather.marks, window, size)
        )

    def _keep(self, serial: int, kept: _Kept) -> None:
        self._kept[serial] = kept
        self._send(kept.frame)


def frame(kind: int, head: bytes, parts: Any = ()) -> List[Buffer]:
    """One frame as pieces to write. Small ones are one piece, so that they are one system call."""
    size = len(head)
    for part in parts:
        size += part.nbytes if isinstance(part, memoryview) else len(part)
    start = HEADER.pack(size, 0, len(head), kind) + head
    if size < _ONE_PIECE:
        return [b"".join((start, *parts))]
    return [start, b"".join(parts)]


def message(kind: int, head: Dict[str, Any], body: Optional[bytes] = None) -> List[Buffer]:
    """A frame with a head in plain words."""
    return frame(kind, encode(head).encode(), (body,) if body else ())
