"""Sets of positions: what is in, how many, and what is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from alight.server.services.call import Call, Holding
from alight.server.services.ranges import Ranges

spans = st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda one: (one[0], one[0] + one[1]))


@given(st.lists(spans, max_size=25), spans)
def test_ranges_are_a_set(added, asked):
    ranges, there = Ranges(), set()
    for start, stop in added:
        assert ranges.add(start, stop) == len(set(range(start, stop)) - there)
        there |= set(range(start, stop))
    assert ranges.count == len(there)
    assert [one for one in range(60) if one in ranges] == sorted(there)
    assert {one for low, high in ranges.missing(*asked) for one in range(low, high)} == set(range(*asked)) - there
    pairs = ranges.pairs()
    assert all(low < high for low, high in pairs)
    assert all(before[1] < after[0] for before, after in zip(pairs, pairs[1:]))
    assert ranges.prefix == next(one for one in range(100) if one not in there)


def test_scattered_positions_are_counted_once():
    ranges = Ranges([(2, 4)])
    assert ranges.add_all((7, 3, 5)) == 2
    assert ranges.add_all(range(1, 6)) == 2
    assert ranges.pairs() == [(1, 6), (7, 8)]


@given(st.lists(spans.filter(lambda one: one[0] < one[1]), min_size=1, max_size=5, unique_by=lambda one: one[0] // 60))
def test_a_container_holds_what_it_has_not_answered(held):
    call = Call("fc-1", "fu-1", "ap-1")
    start, stop = held[0]
    call.hold(Holding("ta-1", start, stop, 1, 0.0))
    call.hold(Holding("ta-2", start, stop, 1, 0.0))
    for position in range(start, stop):
        assert call.running == 2 * (stop - start) - (position - start)
        last = call.answered("ta-1", (position,))
        assert last == (position == stop - 1)
    assert call.answered("ta-2", range(start, stop))
    assert call.running == 0


def test_what_has_its_end_is_told_no_second_time():
    """A machine that comes back late answers what others have answered meanwhile, and more."""
    call = Call("fc-1", "fu-1", "ap-1")
    assert call.left(range(4)) == range(4)
    call.mark_done(range(2, 4))
    assert list(call.left(range(6))) == [0, 1, 4, 5]
    assert list(call.left((3, 4, 9))) == [4, 9]
    assert list(call.left(range(2, 4))) == []
