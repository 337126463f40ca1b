"""Inputs on their way out: gathered into chunks, kept until they are answered, sent again after a lost connection.

What is kept is bounded in number and bytes, so that a map over any number of inputs needs the memory of a window.
Chunks are sent by whichever thread makes them; one that is blocked by the server blocks nobody else.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Deque, List, Optional, Sequence, Tuple

from alight.sdk.sync import Future, call_blocking
from alight.wire import chunk, errors

if TYPE_CHECKING:
    from alight.sdk.conversation import Stream

#: Inputs that are sent and not answered (for ordered maps: not yielded).
WINDOW = 8192
#: Bytes of them, and of answers that wait for their turn.
WINDOW_BYTES = 64 << 20
#: An input that lies with the server already counts as this much, so that only a few are uploaded ahead.
REFERENCE_WEIGHT = WINDOW_BYTES // 8
#: What leaves together ends with so many inputs or bytes: one message, where ``Sending.most`` is no less.
CHUNK = chunk.MOST // 4
CHUNK_BYTES = 256 << 10


class Reference(bytes):
    """The payload of an input that lies with the server: the name of it."""

    __slots__ = ()


class _Kept:
    """Inputs that may have to be sent again. ``open``: how many of them are not answered."""

    __slots__ = ("body", "open", "reference", "sizes", "start", "stop", "weight")

    def __init__(self, start: int, bodies: List[bytes], reference: bool) -> None:
        self.start = start
        self.stop = start + len(bodies)
        self.sizes = list(map(len, bodies))
        self.body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        self.open = len(bodies)
        self.reference = reference
        self.weight = REFERENCE_WEIGHT if reference else len(self.body) + 8 * len(bodies) + 300  # what Python takes


class Sending:
    """The inputs of one call. One thread or task puts them; ``flush`` may be called from any thread."""

    def __init__(self, call_id: str, method: str, window: Optional[int] = WINDOW) -> None:
        self._call_id = call_id
        self._method = method
        self._window = window
        self._lock = threading.Lock()  # around what is kept
        self._in_order = threading.Lock()  # held while sending
        self._kept: List[_Kept] = []
        self._starts: List[int] = []
        self._bytes = 0
        self._stream: Optional[Stream] = None
        self._ended_on: Optional[Stream] = None
        self._again: Optional[int] = None
        self._gate: Optional[Future] = None
        self.most = CHUNK  # inputs in one message
        self._next = 0  # the position of the next input that leaves
        self._accepted = 0  # so many inputs are on the server's disk for all that it said
        self.pending: Deque[bytes] = deque()  # put and not yet in a chunk
        self.put = 0  # so many were put
        self.released = 0  # so many count no longer
        self.held_bytes = 0  # of answers that wait for their turn
        self.over = False  # no more will be put
        self.closed = False

    def attach(self, stream: Stream, accepted: Optional[int] = None) -> None:
        """The way to the server. ``accepted``: it is a new one, and inputs from there on are to be sent again.

        Raises DataLossError when the server lacks inputs that it once said it had.
        """
        with self._lock:
            first = self._starts[0] if self._starts else self._next
            if accepted is not None and accepted < min(first, self._accepted):
                raise errors.DataLossError(
                    f"the server has {accepted} inputs of the call {self._call_id} and had said that it has more",
                    hint="inputs between were lost: cancel the call and start it again",
                )
            self._stream = stream
            self._again = accepted
        if accepted is not None:
            self.accepted(accepted)
            # Sending may have to wait for the server, which may wait for its answers to be read: not in this thread.
            threading.Thread(target=self.flush, daemon=True, name="alight-resend").start()

    def room(self) -> int:
        """How many inputs may be put now."""
        if self._bytes + self.held_bytes >= WINDOW_BYTES:
            return 0
        return CHUNK if self._window is None else self._window - (self.put - self.released)

    async def wait_room(self) -> int:
        """``room``, once there is some. 0 when nobody wants more inputs."""
        while not self.closed:
            room = self.room()
            if room > 0:
                return room
            gate = self._gate = Future()
            if self.room() <= 0 and not self.closed:
                await gate
        return 0

    @property
    def said_all(self) -> bool:
        """Whether the server was told, on the connection there is, that no more inputs come."""
        return self._ended_on is not None and self._ended_on is self._stream

    def release(self, count: int) -> None:
        """So many inputs were answered and, where order counts, yielded."""
        self.released += count
        self._open_gate()

    def answered(self, start: int, stop: int) -> None:
        """These inputs need not be kept any longer."""
        with self._lock:
            index = max(0, bisect_right(self._starts, start) - 1)
            while index < len(self._kept) and self._starts[index] < stop:
                kept = self._kept[index]
                common = min(stop, kept.stop) - max(start, kept.start)
                if common > 0:
                    kept.open -= common
                if kept.open > 0:
                    index += 1
                else:
                    self._forget(index, index + 1)
        self._open_gate()

    def accepted(self, count: int) -> None:
        """The server keeps the inputs before ``count``: they are never sent again."""
        with self._lock:
            self._accepted = max(self._accepted, count)
            whole = bisect_right(self._starts, count)
            if whole and self._kept[whole - 1].stop > count:
                whole -= 1
            self._forget(0, whole)
        self._open_gate()

    def finish(self) -> None:
        """Nothing more will be put."""
        self.over = True
        self.flush()

    def close(self) -> None:
        """Nobody wants the answers."""
        self.closed = True
        self.pending.clear()
        with self._lock:
            self._forget(0, len(self._kept))
            self._stream = None
        gate = self._gate
        if gate is not None:
            gate.set()

    def flush(self) -> None:
        """Send what was put. While there is no connection it is kept, for when there is one."""
        with self._in_order:
            while not self.closed:
                with self._lock:
                    stream, again = self._stream, self._again
                    if again is not None:
                        self._again = None
                        todo: Sequence[_Kept] = self._whole_from(again)
                    elif self.pending:
                        again, todo = 0, (self._cut(),)
                    else:
                        break
                for kept in todo:
                    if stream is None or not self._send(stream, kept, max(again, kept.start)):
                        break
            self._say_end()

    def _whole_from(self, start: int) -> List[_Kept]:
        """Everything from a position on, without gaps. The caller holds the lock.

        What was answered is kept no longer, yet a server that was killed may have forgotten both input and answer: in
        the place of such inputs go empty ones, so that positions stay what they are. Their answers are known here.
        """
        chunks: List[_Kept] = []
        at = start
        for kept in [kept for kept in self._kept if kept.stop > start] + [None]:
            until = self._next if kept is None else kept.start
            while at < until:
                chunks.append(_Kept(at, [b""] * min(CHUNK, until - at), reference=False))
                at = chunks[-1].stop
            if kept is not None:
                chunks.append(kept)
                at = kept.stop
        return chunks

    def _say_end(self) -> None:
        with self._lock:
            stream = self._stream
            if not self.over or self.pending or stream is None or stream is self._ended_on or self._again is not None:
                return
        stream.end()
        self._ended_on = stream

    def _cut(self) -> _Kept:
        """The next chunk of what was put. ``pending`` has something; the caller holds the lock."""
        pending = self.pending
        bodies = [pending.popleft()]
        reference = type(bodies[0]) is Reference
        size = len(bodies[0])
        while pending and not reference and len(bodies) < CHUNK:
            size += len(pending[0])
            if size > CHUNK_BYTES or type(pending[0]) is Reference:
                break
            bodies.append(pending.popleft())
        kept = _Kept(self._next, bodies, reference)
        self._next = kept.stop
        self._kept.append(kept)
        self._starts.append(kept.start)
        self._bytes += kept.weight
        return kept

    def _send(self, stream: Stream, kept: _Kept, start: int) -> bool:
        sizes, body = kept.sizes, kept.body
        if start > kept.start:
            skipped = start - kept.start
            sizes, body = sizes[skipped:], body[sum(sizes[:skipped]) :]
        flags = chunk.REFERENCE if kept.reference else 0
        messages, at = [], 0
        for first in range(0, len(sizes), self.most):
            some = sizes[first : first + self.most]
            end = at + sum(some)
            head = chunk.Inputs(self._call_id, start + first, some, method=self._method, flags=flags).encode()
            messages.append((head, body[at:end]))
            at = end
        try:
            call_blocking(stream.write_all(messages))
        except errors.Error:
            # Lost: whoever reads the answers makes a new connection. Refused: the reader gets the server's word for it.
            with self._lock:
                if self._stream is stream:
                    self._stream = None
            return False
        return True

    def _forget(self, first: int, last: int) -> None:
        for kept in self._kept[first:last]:
            self._bytes -= kept.weight
        del self._kept[first:last]
        del self._starts[first:last]

    def _open_gate(self) -> None:
        gate = self._gate
        if gate is not None and self.room() > 0:
            gate.set()

    def kept(self) -> Tuple[int, int]:
        """Chunks and bytes that are kept: what a caller's memory is bounded by."""
        return len(self._kept), self._bytes
