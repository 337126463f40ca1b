"""Protects: what is said about inputs and outputs on the hot path arrives as it was said, and damage is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alight.wire import chunk, ids
from alight.wire.errors import InternalError, InvalidError

CALL = "fc-" + "0" * 21 + "a"
CONTAINER = "ta-" + "0" * 21 + "b"
_SIZES = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50)


@given(st.integers(0, 2**40), _SIZES, st.integers(1, 2**31), st.text(max_size=40), st.sampled_from(["", CONTAINER]))
def test_inputs_come_back_as_they_were(start, sizes, attempt, method, container):
    sent = chunk.Inputs(CALL, start, sizes, attempt, method, container, chunk.LAST)
    got = chunk.Inputs.decode(sent.encode())
    assert (got.call_id, got.start, list(got.sizes), got.attempt) == (CALL, start, sizes, attempt)
    assert (got.method, got.container, got.flags, got.stop) == (method, container, chunk.LAST, start + len(sizes))


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=50, unique=True), st.integers(0, 2**50))
def test_scattered_outputs_come_back_in_their_places(positions, serial):
    sent = chunk.Outputs(CALL, tuple(positions), [3] * len(positions), serial=serial, busy=0.5, log_offset=7)
    got = chunk.Outputs.decode(sent.encode())
    assert list(got.positions) == positions
    assert (got.serial, got.busy, got.log_offset, got.flags) == (serial, 0.5, 7, 0)


@given(st.integers(0, 2**40), _SIZES)
def test_consecutive_outputs_are_a_range(start, sizes):
    positions = range(start, start + len(sizes))
    got = chunk.Outputs.decode(chunk.Outputs(CALL, positions, sizes, container=CONTAINER).encode())
    assert got.positions == positions
    assert got.container == CONTAINER


def test_items_name_their_input_and_their_numbers():
    sent = chunk.Outputs(CALL, range(10, 12), [1, 1], flags=chunk.ITEMS, position=4)
    got = chunk.Outputs.decode(sent.encode())
    assert got.is_items
    assert (got.position, got.positions) == (4, range(10, 12))


@pytest.mark.parametrize("positions", [range(7, 10), (3, 9, 4)])
def test_a_stamp_changes_whose_outputs_they_are_and_nothing_else(positions):
    call, container = ids.new_id(ids.CALL), ids.new_id(ids.CONTAINER)
    said = {"attempt": 3, "serial": 5, "busy": 0.25, "ended": 1e9, "flags": chunk.QUIET}
    head = chunk.Outputs(call, positions, [1, 2, 3], log_offset=77, container="somebody else's", **said).encode()
    assert chunk.log_offset_of(head) == 77
    stamped = chunk.stamped(head, container)
    assert stamped == chunk.Outputs(call, positions, [1, 2, 3], container=container, **said).encode()
    assert chunk.log_offset_of(stamped) == 0


def test_a_head_that_is_cut_off_is_refused():
    head = chunk.Inputs(CALL, 0, [1, 2, 3]).encode()
    for end in range(len(head) - 1):
        with pytest.raises(InternalError):
            chunk.Inputs.decode(head[:end])
    with pytest.raises(InternalError):
        chunk.Outputs.decode(head + b"\0" * 100)


def test_a_body_that_does_not_fit_its_sizes_is_refused():
    assert [bytes(one) for one in chunk.cut([1, 0, 2], b"abc")] == [b"a", b"", b"bc"]
    for body in (b"ab", b"abcd"):
        with pytest.raises(InternalError):
            chunk.cut([1, 0, 2], body)


def test_a_reference_names_something_larger():
    assert chunk.read_reference(chunk.reference("x12", 5 << 30)) == ("x12", 5 << 30)
    with pytest.raises(InternalError):
        chunk.read_reference(b"x12")


def test_heads_of_both_kinds_are_told_apart():
    assert chunk.is_chunk(chunk.Inputs(CALL, 0, [1]).encode())
    assert not chunk.is_chunk(b'{"kind":"start"}')
    assert not chunk.is_chunk(b"")


@given(st.integers(0, 10**15))
def test_an_input_id_says_which_call_and_position(position):
    text = ids.input_id(CALL, position)
    assert ids.is_id(text, ids.INPUT)
    assert ids.of_input(text) == (CALL, position)


@pytest.mark.parametrize("text", ["in-abc", CALL, "in-" + "0" * 22 + "-0", "in-" + "0" * 22 + "-", ""])
def test_what_is_no_input_id_is_refused(text):
    assert not ids.is_id(text, ids.INPUT)
    with pytest.raises(InvalidError):
        ids.of_input(text)
