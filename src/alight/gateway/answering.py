"""One answer on its way to a client: its head as HTTP/1.1 wants it, and where its body ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alight.gateway.heads import HOP_BY_HOP, Answer, Fields, is_clean
from alight.gateway.replies import CLOCK, STATUS_LINES

if TYPE_CHECKING:
    from alight.gateway.client import Client

_BODILESS = {204, 304}
_SERVER = b"server: alight\r\n"


class Prepared:
    """An answer's head, as far as it is the same for every client. ``length`` None: the application did not say."""

    __slots__ = ("dated", "length", "lines", "status")

    def __init__(self, status: int, lines: bytes, length: int | None, *, dated: bool) -> None:
        self.status = status
        self.lines = lines
        self.length = length
        self.dated = dated

    @classmethod
    def of_program(cls, answer: Answer) -> Prepared:
        """Of what a program in a container said."""
        lines = STATUS_LINES[answer.status] + answer.lines
        return cls(answer.status, lines if answer.served else lines + _SERVER, answer.said, dated=answer.dated)

    @classmethod
    def of_fields(cls, status: int, fields: Fields) -> Prepared:
        """Raises ValueError for fields that are none."""
        length: int | None = None
        dated = False
        lines = [STATUS_LINES[status]] if status in STATUS_LINES else [b"HTTP/1.1 %d \r\n" % status]
        served = False
        for name, value in fields:
            low = name.lower()
            if low == b"content-length":
                if not value.isdigit():
                    raise ValueError("a content-length that is no number")
                length = int(value)
            elif low not in HOP_BY_HOP:
                dated = dated or low == b"date"
                served = served or low == b"server"
                lines.append(name + b": " + value + b"\r\n")
        if not served:
            lines.append(_SERVER)
        return cls(status, b"".join(lines), length, dated=dated)


_PREPARED: dict[bytes, Prepared] = {}
_MOST_PREPARED = 512
_LARGEST_PREPARED = 2048


def prepare(head: bytes) -> Prepared:
    """Of the fields of a RESPONSE (without its flags). Applications say the same again and again, so it is kept.

    Raises ValueError for what is no answer.
    """
    found = _PREPARED.get(head)
    if found is None:
        parts = head.split(b"\0")
        if not is_clean(parts) or len(parts) % 2 == 0:
            raise ValueError("header fields with line breaks in them")
        found = Prepared.of_fields(int(parts[0]), list(zip(parts[1::2], parts[2::2])))
        if len(head) <= _LARGEST_PREPARED:
            if len(_PREPARED) >= _MOST_PREPARED:
                _PREPARED.clear()
            _PREPARED[head] = found
    return found


class Answering:
    """Writes one answer. ``begun``: its head is on its way; ``keep``: the connection can take another request;
    ``tag``: a line of the head that names the request. ``function_id``: whose request it is, "" for the server's own;
    ``since``: when it came.
    """

    __slots__ = (
        "_chunked", "_client", "_left", "_mute", "_old", "begun", "function_id", "keep", "since", "tag", "trailers"
    )  # fmt: skip

    def __init__(
        self, client: Client, *, method: bytes, version: bytes, keep: bool, tag: bytes = b"", function_id: str = ""
    ) -> None:
        self._client = client
        self.function_id = function_id
        self.since = client.gateway.now()
        self.tag = tag
        self.trailers = b""  # whole lines, for the end of a body in chunks
        self._mute = method == b"HEAD"
        self._old = version == b"1.0"
        self._chunked = False
        self._left: int | None = None
        self.keep = keep
        self.begun = False

    def start(self, prepared: Prepared, piece: bytes, *, last: bool) -> bool:
        """Head and first bytes; False when the application said a length that is not what comes."""
        self.begun = True
        self._client.gateway.answered(prepared.status, self)
        length = prepared.length
        parts = [prepared.lines, self.tag]
        if not prepared.dated:
            parts.append(CLOCK.line())
        if self._mute or prepared.status in _BODILESS:
            self._mute = True
            if length is not None and prepared.status != 204:
                parts.append(b"content-length: %d\r\n" % length)
        elif length is not None or (last and not self.trailers):
            size = len(piece) if length is None else length
            self._left = size
            parts.append(b"content-length: %d\r\n" % size)
        elif self._old:
            self.keep = False
        else:
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
        if not self.keep:
            parts.append(b"connection: close\r\n")
        elif self._old:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return self._add(parts, piece, last=last)

    def more(self, piece: bytes, *, last: bool) -> bool:
        """More of the body. See ``start``."""
        return self._add([], piece, last=last)

    def _add(self, parts: list[bytes], piece: bytes, *, last: bool) -> bool:
        fits = True
        if piece and not self._mute:
            if self._left is not None:
                if len(piece) > self._left:
                    piece, fits = piece[: self._left], False
                self._left -= len(piece)
                parts.append(piece)
            elif self._chunked:
                parts += (b"%x\r\n" % len(piece), piece, b"\r\n")
            else:
                parts.append(piece)
        if last:
            if self._chunked:
                parts.append(b"0\r\n%b\r\n" % self.trailers if self.trailers else b"0\r\n\r\n")
            elif self._left:
                fits = False
        if parts:
            self._client.write(b"".join(parts) if len(parts) > 1 else parts[0])
        return fits
