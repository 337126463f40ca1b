"""Answers that the gateway gives itself, and what it adds to those of applications."""

from __future__ import annotations

import time
from http import HTTPStatus

STATUS_LINES = {number: b"HTTP/1.1 %d \r\n" % number for number in range(100, 600)}
STATUS_LINES.update({one.value: b"HTTP/1.1 %d %s\r\n" % (one.value, one.phrase.encode()) for one in HTTPStatus})
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HARMLESS = b"content-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\n"


class Clock:
    """The Date field, made once a second."""

    __slots__ = ("_line", "_until")

    def __init__(self) -> None:
        self._until = 0.0
        self._line = b""

    def line(self) -> bytes:
        """``date: …`` with its end of line."""
        now = time.time()
        if now >= self._until:
            self._until = int(now) + 1.0
            self._line = time.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(now)).encode()
        return self._line


CLOCK = Clock()


def own(status: int, text: str, *, keep: bool, head_only: bool = False, extra: bytes = b"") -> bytes:
    """A short answer in plain text."""
    body = text.encode() + b"\n"
    ends = b"" if keep else b"connection: close\r\n"
    length = b"content-length: %d\r\n" % len(body)
    parts = [STATUS_LINES[status], CLOCK.line(), b"server: alight\r\n", _HARMLESS, extra, length, ends, b"\r\n"]
    if not head_only:
        parts.append(body)
    return b"".join(parts)
