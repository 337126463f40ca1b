"""Many streams over one connection, as a state machine without a socket.

A stream is a conversation: one side opens it with a method and a first message, both send messages, each ends its own
half; an error ends both. Bodies are flow-controlled per stream: a sender may have ``WINDOW`` bytes under way and gets
more credit as the receiver takes messages away, so one slow reader never fills memory or stops its neighbours.

Who carries the bytes (asyncio in ``link``, a thread in the SDK) feeds ``receive`` and writes ``take_output``.
Promised: order within a stream. Not promised: anything after the connection is lost; callers resend by id.
"""

from __future__ import annotations

import struct
from typing import Dict, List, Set

from alight.wire.codec import Buffer, Frame, FrameReader, Kind, encode_frame
from alight.wire.errors import InternalError

WINDOW = 8 << 20
_GRANT_AT = WINDOW // 4
_CREDIT = struct.Struct("!I")


#: Something a peer did: kind is HELLO, OPEN, DATA, END, ERROR, PONG, or CREDIT (a blocked sender may go on).
#: ERROR on stream 0 refuses the whole connection. It is the frame that said so.
Event = Frame


class Connection:
    """One end of a connection. ``initiator`` is the side that dialled; its streams have odd numbers."""

    def __init__(self, *, initiator: bool) -> None:
        self._reader = FrameReader()
        self._output: List[Buffer] = []
        self._next = 1 if initiator else 2
        self._peer_parity = 0 if initiator else 1
        self._highest_peer = 0
        self._credit: Dict[int, int] = {}  # what we may still send, per open stream
        self._taken: Dict[int, int] = {}  # what we have taken and not yet granted again
        self._half_ended: Set[int] = set()  # we ended our half
        self._peer_ended: Set[int] = set()

    # sending

    def hello(self, head: bytes) -> None:
        self._output += encode_frame(Kind.HELLO, 0, head)

    def refuse(self, head: bytes) -> None:
        """Say why the whole connection cannot be (an error's wire form). The caller writes the output and closes."""
        self._output += encode_frame(Kind.ERROR, 0, head)

    def open(self, head: bytes, body: Buffer = b"", *, end: bool = False) -> int:
        """Open a stream; with ``end`` our half is over at once (a plain request). Returns its number."""
        stream = self._next
        self._next += 2
        self._start(stream)
        self._write(Kind.OPEN, stream, head, body)
        if end:
            self.end(stream)
        return stream

    def send(self, stream: int, head: bytes = b"", body: Buffer = b"") -> None:
        """Queue a message. Check ``may_send`` first: sending without credit is allowed once, then it is an error."""
        if stream not in self._credit or stream in self._half_ended:
            return  # the peer is gone or was told the end: nothing to say it to
        self._write(Kind.DATA, stream, head, body)

    def may_send(self, stream: int) -> bool:
        """Whether the peer takes more on this stream now.

        True for a stream that is over, so that nobody waits for it.
        """
        return self._credit.get(stream, 1) > 0

    def end(self, stream: int) -> None:
        """Say that nothing more comes from us on this stream."""
        if stream in self._credit and stream not in self._half_ended:
            self._half_ended.add(stream)
            self._output += encode_frame(Kind.END, stream)
            self._forget_if_over(stream)

    def fail(self, stream: int, head: bytes) -> None:
        """End both halves with an error."""
        if stream in self._credit:
            self._output += encode_frame(Kind.ERROR, stream, head)
            self._forget(stream)

    def took(self, stream: int, size: int) -> None:
        """Tell that a message of this body size was taken away, so that the peer may send more."""
        if stream not in self._taken or not size:
            return
        self._taken[stream] += size
        if self._taken[stream] >= _GRANT_AT:
            self._output += encode_frame(Kind.CREDIT, stream, _CREDIT.pack(self._taken[stream]))
            self._taken[stream] = 0

    def ping(self) -> None:
        self._output += encode_frame(Kind.PING, 0)

    def take_output(self) -> List[Buffer]:
        """What is to be written now."""
        output, self._output = self._output, []
        return output

    # receiving

    def receive(self, data: Buffer) -> List[Event]:
        """Feed bytes; get what happened. Raises InternalError when the peer breaks the protocol."""
        return [frame for frame in self._reader.feed(data) if self._on_frame(frame)]

    def is_open(self, stream: int) -> bool:
        """Whether either half of the stream is still open."""
        return stream in self._credit

    def _on_frame(self, frame: Frame) -> bool:
        """Whether it is an event."""
        kind, stream, head, _body = frame
        if kind == Kind.DATA:
            if stream not in self._credit:
                return False  # late words on a stream that we ended
        elif kind == Kind.OPEN:
            if stream % 2 != self._peer_parity or stream <= self._highest_peer:
                raise InternalError(f"a peer opened stream {stream}, which is not its next one")
            self._highest_peer = stream
            self._start(stream)
        elif kind == Kind.END:
            if stream not in self._credit:
                return False
            self._peer_ended.add(stream)
            self._forget_if_over(stream)
        elif kind == Kind.ERROR:
            if stream and stream not in self._credit:
                return False
            self._forget(stream)
        elif kind == Kind.CREDIT:
            if stream in self._credit:
                self._credit[stream] += _CREDIT.unpack(head)[0]
            else:
                return False
        elif kind == Kind.PING:
            self._output += encode_frame(Kind.PONG, 0)
            return False
        elif kind not in (Kind.HELLO, Kind.PONG):
            return False  # a newer peer's kind: ignored, so that wire N and N-1 can talk
        return True

    def _write(self, kind: int, stream: int, head: bytes, body: Buffer) -> None:
        self._credit[stream] -= len(body)
        self._output += encode_frame(kind, stream, head, body)

    def _start(self, stream: int) -> None:
        self._credit[stream] = WINDOW
        self._taken[stream] = 0

    def _forget_if_over(self, stream: int) -> None:
        if stream in self._half_ended and stream in self._peer_ended:
            self._forget(stream)

    def _forget(self, stream: int) -> None:
        self._credit.pop(stream, None)
        self._taken.pop(stream, None)
        self._half_ended.discard(stream)
        self._peer_ended.discard(stream)
