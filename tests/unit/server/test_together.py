"""Messages of inputs that came in one read: what becomes one chunk, and what must stay as it came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alight.server.services import together as module
from alight.server.services.together import together
from alight.wire import chunk, errors

CALL = "fc-" + "0" * 22


def message(start, *bodies, flags=0, method=""):
    sizes = [len(body) for body in bodies]
    return chunk.Inputs(CALL, start, sizes, method=method, flags=flags).encode(), b"".join(bodies)


def seen(messages):
    return [(said.start, tuple(said.sizes), said.flags, bytes(body)) for said, body in together(messages)]


def test_consecutive_messages_become_one_chunk():
    assert seen([message(3, b"a"), message(4, b"", b"bc"), message(6, b"d")]) == [(3, (1, 0, 2, 1), 0, b"abcd")]


def test_a_message_that_came_alone_stays_as_it_is():
    head, body = message(0, b"ab")
    [(said, same)] = together([(head, body)])
    assert same is body
    assert said.encode() == head


@pytest.mark.parametrize(
    "other",
    [
        message(2, b"x"),
        message(0, b"x"),
        message(1, b"name:9", flags=chunk.REFERENCE),
        message(1, b"x", method="other"),
        message(1),
        (message(1, b"x")[0], b"not its size"),
    ],
)
def test_what_does_not_follow_stays_apart(other):
    assert len(seen([message(0, b"a"), other])) == 2
    assert len(seen([message(0, b"a"), other, message(9, b"c")])) == 3


def test_what_cannot_be_read_costs_those_before_it_nothing():
    got = []

    def take():
        for said, body in together([message(0, b"a"), message(1, b"b"), (b"\x01short", b"")]):
            got.append((said.start, bytes(body)))

    with pytest.raises(errors.InternalError):
        take()
    assert got == [(0, b"ab")]


@given(st.lists(st.lists(st.integers(0, 9000), min_size=1, max_size=300), max_size=12))
def test_nothing_is_lost_and_nothing_grows_without_end(sizes):
    messages, start = [], 0
    for some in sizes:
        messages.append(message(start, *[bytes([start % 256]) * size for size in some]))
        start += len(some)
    given_chunks = list(together(messages))
    assert b"".join(bytes(body) for _, body in given_chunks) == b"".join(body for _, body in messages)
    at, largest = 0, max((len(body) for _, body in messages), default=0)
    for said, body in given_chunks:
        assert said.start == at
        assert sum(said.sizes) == len(body)
        assert len(said.sizes) <= max(module._MOST, 300)
        assert len(body) <= max(module._BYTES, largest)
        at = said.stop
    assert at == start
