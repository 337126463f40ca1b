"""The protocol without a socket: streams, halves, credit, and peers that misbehave."""

from __future__ import annotations

import pytest

from alight.wire import errors
from alight.wire.codec import Kind, encode_frame
from alight.wire.connection import WINDOW, Connection


def carry(sender, receiver):
    return receiver.receive(b"".join(bytes(piece) for piece in sender.take_output()))


@pytest.fixture
def pair():
    return Connection(initiator=True), Connection(initiator=False)


def test_both_halves_end_before_a_stream_is_over(pair):
    near, far = pair
    number = near.open(b"{}", b"hi", end=True)
    assert [event.kind for event in carry(near, far)] == [Kind.OPEN, Kind.END]
    assert near.is_open(number)
    assert far.is_open(number)
    far.send(number, b"{}", b"answer")
    far.end(number)
    assert [event.kind for event in carry(far, near)] == [Kind.DATA, Kind.END]
    assert not near.is_open(number)
    assert not far.is_open(number)


def test_credit_stops_a_sender_until_its_reader_takes(pair):
    near, far = pair
    number = near.open(b"{}")
    carry(near, far)
    piece = bytes(1 << 20)
    sent = 0
    while near.may_send(number):
        near.send(number, b"", piece)
        sent += 1
    assert sent == WINDOW // len(piece)
    for event in carry(near, far):
        far.took(number, len(event.body))
    carry(far, near)
    assert near.may_send(number)


def test_an_error_ends_both_halves_and_late_words_are_dropped(pair):
    near, far = pair
    number = near.open(b"{}")
    carry(near, far)
    far.fail(number, b'{"code":"x"}')
    near.send(number, b"{}", b"late")
    late = near.take_output()
    assert [event.kind for event in carry(far, near)] == [Kind.ERROR]
    assert not near.is_open(number)
    assert far.receive(b"".join(bytes(piece) for piece in late)) == []


def test_a_peer_may_not_reuse_or_take_our_numbers(pair):
    near, far = pair
    near.open(b"{}")
    carry(near, far)
    for number in (1, 2):
        with pytest.raises(errors.InternalError):
            far.receive(b"".join(bytes(piece) for piece in encode_frame(Kind.OPEN, number, b"{}")))


def test_kinds_of_tomorrow_are_ignored(pair):
    _near, far = pair
    assert far.receive(b"".join(bytes(piece) for piece in encode_frame(200, 0, b"{}"))) == []


def test_a_refusal_reaches_the_other_side_before_any_stream(pair):
    near, far = pair
    far.refuse(b'{"code":"auth"}')
    assert [(event.kind, event.stream) for event in carry(far, near)] == [(Kind.ERROR, 0)]
