"""Where the body of a message ends. Pure: bytes in, pieces of body and what comes after it out."""

from __future__ import annotations

import re

from alight.gateway.heads import HOP_BY_HOP, BadRequest

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -\xff]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n")
#: What says how a message is read, where it goes, who may have it or what it holds: behind a body it comes too late.
_NO_TRAILERS = HOP_BY_HOP | frozenset(
    (
        b"age", b"authorization", b"cache-control", b"content-encoding", b"content-length", b"content-range",
        b"content-type", b"date", b"expires", b"host", b"location", b"proxy-authenticate", b"proxy-authorization",
        b"retry-after", b"set-cookie", b"vary", b"www-authenticate",
    )
)  # fmt: skip
_LONGEST_LINE = 4096
_MOST_TRAILERS = 16 << 10


class Sized:
    """A body of so many bytes."""

    __slots__ = ("done", "left")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Pieces of the body, and what is beyond it."""
        if self.done:
            return [], data
        if len(data) < self.left:
            self.left -= len(data)
            return [data], b""
        piece, rest = (data, b"") if len(data) == self.left else (data[: self.left], data[self.left :])
        self.left, self.done = 0, True
        return [piece], rest


class Endless:
    """A body that lasts until the connection ends."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See ``Sized``."""
        return [data], b""


class Chunked:
    """A body in chunks. Extensions are left out; ``trailers`` are the lines behind it that may go on as they are, once
    it is done. Raises BadRequest.
    """

    __slots__ = ("_held", "_left", "_state", "_trailers", "done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self._held = b""
        self._left = 0
        self._state = _line
        self._trailers = 0
        self.trailers = b""

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See ``Sized``."""
        pieces: list[bytes] = []
        if self._held:
            data, self._held = self._held + data, b""
        while data and not self.done:
            if self._state is _inside and self._left:
                if len(data) < self._left:
                    self._left -= len(data)
                    pieces.append(data)
                    return pieces, b""
                pieces.append(data[: self._left] if len(data) > self._left else data)
                data, self._left = data[self._left :], 0
                continue
            if len(data) < 2 or (self._state is not _inside and b"\n" not in data):
                if len(data) > _LONGEST_LINE:
                    raise BadRequest("a chunk of the body is malformed")
                self._held = data
                return pieces, b""
            data = self._read_line(data)
        return pieces, data

    def _read_line(self, data: bytes) -> bytes:
        if self._state is _inside:  # its bytes are over
            if data[:2] != b"\r\n":
                raise BadRequest("a chunk of the body is longer than it says")
            self._state = _line
            return data[2:]
        end = data.find(b"\n") + 1
        line = data[:end]
        if self._state is _line:
            found = _SIZE.fullmatch(line)
            if found is None or len(line) > _LONGEST_LINE:
                raise BadRequest("a chunk of the body is malformed")
            self._left = int(found[1], 16)
            self._state = _inside if self._left else _after
        elif line == b"\r\n":
            self.done = True
        else:
            self._trailers += len(line)
            if not _TRAILER.fullmatch(line) or self._trailers > _MOST_TRAILERS:
                raise BadRequest("a trailer is malformed")
            if line.partition(b":")[0].lower() not in _NO_TRAILERS:
                self.trailers += line
        return data[end:]


_line, _inside, _after = "line", "inside", "after"
Body = Sized | Chunked | Endless
