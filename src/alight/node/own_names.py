"""Names that the node answers by itself: those of the web gateway inside containers. DNS as bytes; pure.

Everything else about names is the forwarder's (``dns.py``), which looks into no other question.
"""

from __future__ import annotations

import socket
import struct

from alight.wire.urls import INSIDE

_HEADER = struct.Struct("!6H")
_FIXED = struct.Struct("!2H")  # type and class, at the end of a question
_RECORD = struct.Struct("!HHHIH")
_OURS = b"\x06alight\x08internal\x00"
_A, _ANY, _IN = 1, 255, 1
_TTL = 5
_ANSWERED = 0x8580  # an answer, from who knows, and recursion would be possible
_RECURSION_WANTED = 0x0100
_NAME_MOST = 255

assert b"".join(bytes((len(part),)) + part.encode() for part in INSIDE.split(".")) + b"\0" == _OURS


def is_ours(question: bytes) -> bool:
    """Whether a message asks for a name of the gateway."""
    end = _end_of_name(question)
    return end > 0 and question[_HEADER.size : end].lower().endswith(_OURS)


def answer(question: bytes, address: str) -> bytes:
    """The answer to a question that is ours: this address, and no other kind of record. "": a failure of the server."""
    number, flags, *_ = _HEADER.unpack_from(question)
    end = _end_of_name(question)
    kind, group = _FIXED.unpack_from(question, end)
    asked = question[_HEADER.size : end + _FIXED.size]
    found = bool(address) and kind in {_A, _ANY} and group == _IN
    said = _ANSWERED | (flags & _RECURSION_WANTED) | (0 if address else 2)
    record = _RECORD.pack(0xC000 | _HEADER.size, _A, _IN, _TTL, 4) + socket.inet_aton(address) if found else b""
    return _HEADER.pack(number, said, 1, int(found), 0, 0) + asked + record


def _end_of_name(question: bytes) -> int:
    """Where the name of the only question ends; 0 for what is no such message."""
    if len(question) < _HEADER.size:
        return 0
    _, flags, questions, *_ = _HEADER.unpack_from(question)
    if flags & 0xF800 or questions != 1:  # an answer, or no plain query
        return 0
    at = _HEADER.size
    while at < min(len(question), _HEADER.size + _NAME_MOST):
        length = question[at]
        if length == 0:
            return at + 1 if at + 1 + _FIXED.size <= len(question) else 0
        if length > 63:
            return 0
        at += 1 + length
    return 0
