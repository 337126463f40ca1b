"""Memory for large values: what is read into it is what comes out, with ordinary pages and with large ones."""

from __future__ import annotations

import pytest

from alight.wire import room

SIZES = [0, 1, room.LARGE - 1, room.LARGE, room.LARGE + 4097, room._SHARED + 4097]


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("size", SIZES)
def test_bytes_are_what_was_filled_in(size):
    wanted = pattern(size)

    def fill(start, view):
        assert not view.readonly
        view[:] = wanted[start : start + view.nbytes]

    made = room.new_bytes(size, fill)
    assert type(made) is bytes
    assert made == wanted
    assert hash(made) == hash(wanted)


@pytest.mark.parametrize("size", SIZES)
def test_writable_memory_begins_empty_and_can_be_written(size):
    view = room.writable(size)
    assert view.nbytes == size
    assert bytes(view) == bytes(size)
    view[:] = pattern(size)
    assert bytes(view) == pattern(size)


@pytest.mark.parametrize("size", [16, room.LARGE, room._SHARED])
@pytest.mark.parametrize("bad", [0, -1])
def test_what_goes_wrong_while_filling_is_raised(size, bad):
    starts = []

    def fill(start, view):
        starts.append(start)
        view[0] = 1
        if start == (0 if bad == 0 else max(starts)) and (bad == 0 or start + view.nbytes == size):
            raise OSError(5, "io")

    with pytest.raises(OSError, match="io"):
        room.new_bytes(size, fill)


def test_nobody_can_write_to_bytes_once_they_are_made():
    views = []
    made = room.new_bytes(room.LARGE, lambda _start, view: views.append(view))
    with pytest.raises(ValueError, match="released"):
        views[0][0] = 1
    assert len(made) == room.LARGE
