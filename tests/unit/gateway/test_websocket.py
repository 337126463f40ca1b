"""WebSocket frames: whole messages out of whatever comes, and what is not allowed ends the conversation."""

from __future__ import annotations

import struct

import pytest

from alight.gateway import websocket
from alight.gateway.websocket import BINARY, CLOSE, PING, TEXT, Reader, Violation

MASK = b"\x01\x02\x03\x04"


def frame(first: int, payload: bytes = b"", masked: bool = True) -> bytes:
    size = len(payload)
    bit = 128 if masked else 0
    if size < 126:
        start = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        start = struct.pack("!BBH", first, bit | 126, size)
    else:
        start = struct.pack("!BBQ", first, bit | 127, size)
    return start + (MASK + websocket.unmask(MASK, payload) if masked else payload)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 126, 127, 65535, 65536, 200_000])
def test_messages_of_every_size_come_whole_byte_by_byte_or_at_once(size):
    payload = bytes(number % 251 for number in range(size))
    reader = Reader(1 << 20)
    assert reader.feed(frame(0x82, payload)) == [(BINARY, payload)]
    data, found = frame(0x82, payload), []
    step = max(1, len(data) // 50)
    for start in range(0, len(data), step):
        found += reader.feed(data[start : start + step])
    assert found == [(BINARY, payload)]


def test_parts_become_one_message_with_control_frames_between_them():
    reader = Reader(100)
    data = frame(0x01, "hé".encode()[:2]) + frame(0x89, b"ping") + frame(0x80, "hé".encode()[2:])
    assert reader.feed(data) == [(PING, b"ping"), (TEXT, "hé".encode())]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(0x81, b"x", masked=False), 1002),
        (frame(0xC1, b"x"), 1002),
        (frame(0x80, b"x"), 1002),
        (frame(0x01, b"x") + frame(0x81, b"y"), 1002),
        (frame(0x83, b"x"), 1002),
        (frame(0x89, bytes(126)), 1002),
        (frame(0x09, b"x"), 1002),
        (frame(0x81, b"\xff"), 1007),
        (frame(0x82, bytes(101)), 1009),
        (frame(0x02, bytes(60)) + frame(0x80, bytes(60)), 1009),
    ],
)
def test_violations_have_their_codes(data, code):
    with pytest.raises(Violation) as caught:
        Reader(100).feed(data)
    assert caught.value.code == code


def test_a_message_over_the_limit_is_refused_by_its_head_alone():
    with pytest.raises(Violation):
        Reader(100).feed(struct.pack("!BBQ", 0x82, 128 | 127, 1 << 40))


def test_close_frames_carry_codes_that_may_travel():
    assert websocket.read_close(b"") == (1005, b"")
    assert websocket.read_close(struct.pack("!H", 1000) + b"bye") == (1000, b"bye")
    for bad in (b"x", struct.pack("!H", 999), struct.pack("!H", 1005), struct.pack("!H", 1000) + b"\xff"):
        with pytest.raises(Violation):
            websocket.read_close(bad)
    assert websocket.encode_close(1005) == bytes((128 | CLOSE, 0))
    assert websocket.encode_close(3000, b"x" * 500)[1] == 125


def test_the_key_is_answered_as_the_protocol_says():
    assert websocket.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
