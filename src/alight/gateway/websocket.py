"""WebSockets (RFC 6455) as a server speaks them with clients: bytes in, messages out, and back. Pure."""

from __future__ import annotations

import base64
import hashlib
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS, ABNORMAL = 1000, 1001, 1002, 1005, 1006
BAD_DATA, TOO_BIG, SERVER_FAULT = 1007, 1009, 1011
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LONGEST_CONTROL = 125
_SHORT, _MEDIUM, _LONG = 126, 127, 65536

#: Opcode and payload: TEXT or BINARY for a whole message, else a control frame.
Event = tuple[int, bytes]


class Violation(Exception):
    """The client does not speak the protocol, or says too much. ``code`` goes into the close frame."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code


class Reader:
    """Frames of one client to whole messages. ``limit``: bytes of a message."""

    __slots__ = ("_buffer", "_kind", "_parts", "_size", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = b""
        self._kind = 0
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        """What is whole with these bytes. Raises Violation."""
        if self._buffer:
            data = self._buffer + data
        events: list[Event] = []
        offset, have = 0, len(data)
        while have - offset >= 2:
            first, second = data[offset], data[offset + 1]
            length, start = second & 127, offset + 2
            if first & 0x70 or not second & 128:
                raise Violation(PROTOCOL_ERROR, "a frame is not masked, or has bits that were not agreed on")
            if length == _SHORT:
                if have - start < 2:
                    break
                length, start = struct.unpack_from("!H", data, start)[0], start + 2
            elif length == _MEDIUM:
                if have - start < 8:
                    break
                length, start = struct.unpack_from("!Q", data, start)[0], start + 8
            self._check(first, length)
            end = start + 4 + length
            if end > have:
                break
            payload = unmask(data[start : start + 4], data[start + 4 : end])
            offset = end
            self._take(first & 15, first & 128, payload, events)
        self._buffer = data[offset:]
        return events

    def _check(self, first: int, length: int) -> None:
        kind = first & 15
        if kind in {CLOSE, PING, PONG}:
            if length > _LONGEST_CONTROL or not first & 128:
                raise Violation(PROTOCOL_ERROR, "a control frame is too long or in parts")
        elif kind in {TEXT, BINARY} if self._kind else kind == CONTINUATION:
            raise Violation(PROTOCOL_ERROR, "parts of messages are mixed")
        elif kind > BINARY:
            raise Violation(PROTOCOL_ERROR, "a frame of an unknown kind")
        elif self._size + length > self.limit:
            raise Violation(TOO_BIG, f"a message is over {self.limit} bytes")

    def _take(self, kind: int, last: int, payload: bytes, events: list[Event]) -> None:
        if kind >= CLOSE:
            events.append((kind, payload))
            return
        if kind:
            if last:
                events.append((kind, payload if kind == BINARY else _checked(payload)))
                return
            self._kind = kind
        self._parts.append(payload)
        self._size += len(payload)
        if last:
            whole, kind = b"".join(self._parts), self._kind
            self._parts, self._size, self._kind = [], 0, 0
            events.append((kind, whole if kind == BINARY else _checked(whole)))


def encode(kind: int, payload: bytes) -> bytes:
    """One frame of a server: whole, unmasked."""
    size = len(payload)
    if size < _SHORT:
        return bytes((128 | kind, size)) + payload
    if size < _LONG:
        return struct.pack("!BBH", 128 | kind, _SHORT, size) + payload
    return struct.pack("!BBQ", 128 | kind, _MEDIUM, size) + payload


def encode_close(code: int, reason: bytes = b"") -> bytes:
    """A close frame; codes that may not travel become an empty one."""
    if code in {NO_STATUS, ABNORMAL} or not 1000 <= code <= 4999:
        return encode(CLOSE, b"")
    return encode(CLOSE, struct.pack("!H", code) + reason[:123])


def read_close(payload: bytes) -> tuple[int, bytes]:
    """Code and reason of a client's close frame. Raises Violation."""
    if not payload:
        return NO_STATUS, b""
    if len(payload) == 1:
        raise Violation(PROTOCOL_ERROR, "a close frame is cut off")
    code = struct.unpack_from("!H", payload)[0]
    if code < 1000 or code in {1004, 1005, 1006, 1015} or 1016 <= code <= 2999 or code > 4999:
        raise Violation(PROTOCOL_ERROR, "a close frame has a code that may not travel")
    return code, _checked(payload[2:])


def accept_key(key: bytes) -> bytes:
    """What a server answers to a client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324  what the protocol says


def unmask(mask: bytes, data: bytes) -> bytes:
    """The reverse of a client's masking. One operation on whole numbers is the fastest that Python has."""
    size = len(data)
    if not size:
        return data
    whole = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(data, "little") ^ whole).to_bytes(size, "little")


def _checked(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        raise Violation(BAD_DATA, "a text is not UTF-8") from None
    return text
