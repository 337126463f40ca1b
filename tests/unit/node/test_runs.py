"""What a container was given: no position is answered twice, none is forgotten before its answer is acknowledged."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from alight.node.deadlines import Deadlines
from alight.node.runs import Held, Line, runs_at
from alight.wire.commands import Run
from alight.wire.spec import Autoscaling, FunctionSpec

CALL, OTHER = "fc-1", "fc-2"


def line_of(*runs: tuple[str, int, int, float]) -> tuple[Line, list[Held]]:
    line = Line()
    held = [Held(call, start, stop, 1, at) for call, start, stop, at in runs]
    for one in held:
        line.add(one)
    return line, held


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))))
def test_a_run_is_open_where_nobody_answered(cuts):
    held, model = Held(CALL, 5, 35, 1, 0.0), set(range(5, 35))
    for one, other in cuts:
        start, stop = min(one, other), max(one, other)
        gone = model & set(range(start, stop))
        inside = {position for low, high in held.within(start, stop) for position in range(low, high)}
        assert inside == gone
        assert held.close(start, stop) == len(gone)
        model -= gone
        assert list(held.positions()) == sorted(model)
        assert held.open == bool(model)
        assert all(held.is_open(position) == (position in model) for position in range(40))


@given(st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=6, unique=True), max_size=12), st.randoms())
def test_each_position_is_answered_once_and_a_run_is_kept_until_all_are_acknowledged(frames, random):
    line, held = line_of((CALL, 0, 10, 0.0), (CALL, 10, 20, 0.0))
    open_, unacknowledged, over = set(range(20)), [], []
    for positions in frames:
        shares = line.answer(CALL, 1, tuple(sorted(positions)))
        assert sum(count for _, count in shares) == len(open_ & set(positions))
        open_ -= set(positions)
        unacknowledged.append(shares)
        if random.random() < 0.5:
            over += line.settle(unacknowledged.pop(random.randrange(len(unacknowledged))))
        told = [position for run in line.open_runs() for position in range(run.start, run.stop)]
        assert told == sorted(open_)
    rest = line.answer(CALL, 1, range(20))
    for shares in [*unacknowledged, rest]:
        over += line.settle(shares)
    assert sorted(one.start for one in over) == [0, 10]
    assert line.new(CALL, 1, 0, 20) == [(0, 20)]
    assert held[0].unacked == held[1].unacked == 0


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12), st.booleans()), max_size=25))
def test_positions_are_found_in_whatever_pieces_they_were_given(steps):
    line, here = Line(), set()
    for start, count, back in steps:
        asked = set(range(start, start + count))
        if back:
            runs, _ = line.give_back([Run(CALL, start, start + count)])
            assert {one for run in runs for one in range(run.start, run.stop)} == here & asked
            here -= asked
            continue
        new = line.new(CALL, 1, start, start + count)
        assert {one for low, high in new for one in range(low, high)} == asked - here
        for low, high in new:
            line.add(Held(CALL, low, high, 1, 0.0))
        here |= asked
        for position in range(75):
            assert (line.find(CALL, 1, position) is not None) == (position in here)
    shares = line.answer(CALL, 1, tuple(sorted(here)))
    assert sum(count for _, count in shares) == len(here)
    line.settle(shares)
    assert line.new(CALL, 1, 0, 99) == [(0, 99)]


def test_inputs_one_by_one_cost_the_same_however_many_are_there():
    def seconds(count: int) -> float:
        line = Line()
        began = time.thread_time()  # others may have the processor meanwhile
        for position in range(count):
            assert line.new(CALL, 1, position, position + 1)
            line.add(Held(CALL, position, position + 1, 1, 0.0))
        shares = [line.answer(CALL, 1, range(position, position + 1)) for position in range(count)]
        for share in shares:
            line.settle(share)
        return (time.thread_time() - began) / count

    assert min(seconds(10_000) for _ in range(3)) < 8 * min(seconds(500) for _ in range(3))


def test_nobody_answers_for_another_call_attempt_or_position():
    line, _ = line_of((CALL, 0, 4, 0.0))
    assert line.answer(OTHER, 1, range(4)) == ()
    assert line.answer(CALL, 2, range(4)) == ()
    assert line.answer(CALL, 1, range(4, 9)) == ()
    assert line.find(CALL, 1, 4) is None
    assert line.open_runs() == (Run(CALL, 0, 4),)


def test_what_is_given_back_is_only_what_was_open():
    line, (held,) = line_of((CALL, 0, 10, 0.0))
    shares = line.answer(CALL, 1, range(3))
    back, over = line.give_back([Run(CALL, 0, 5), Run(CALL, 8, 99), Run(OTHER, 0, 9)])
    assert back == [Run(CALL, 3, 5), Run(CALL, 8, 10)]
    assert over == []
    assert line.give_back([Run(CALL, 0, 99)]) == ([Run(CALL, 5, 8)], [])
    assert line.settle(shares) == [held]
    line, (held,) = line_of((CALL, 0, 10, 0.0))
    assert line.give_back([Run(CALL, 0, 10)]) == ([Run(CALL, 0, 10)], [held])


def test_what_is_here_is_not_new_until_it_is_given_back_or_acknowledged():
    line, _ = line_of((CALL, 0, 10, 0.0))
    assert line.new(CALL, 1, 5, 15) == [(10, 15)]
    assert line.new(CALL, 2, 5, 15) == [(5, 15)]
    line.give_back([Run(CALL, 2, 4)])
    shares = line.answer(CALL, 1, range(10))
    assert line.new(CALL, 1, 0, 10) == [(2, 4)]
    line.settle(shares)
    assert line.new(CALL, 1, 0, 10) == [(0, 10)]


def test_what_the_runtime_does_not_have_and_never_answered_is_missing():
    line, (_, _, late) = line_of((CALL, 0, 10, 0.0), (CALL, 10, 20, 0.0), (OTHER, 0, 3, 0.0))
    late.begun = False
    line.answer(CALL, 1, range(2))
    assert line.missing([Run(CALL, 4, 12)]) == [Run(CALL, 2, 4), Run(CALL, 12, 20)]


def test_what_comes_late_stands_at_the_end_of_the_line():
    line, (first, second) = line_of((CALL, 0, 1, 1.0), (OTHER, 0, 1, 2.0))
    first.begun = False
    assert line.head is second
    line.deliver(first, 5.0)
    assert line.head is second
    line.answer(OTHER, 1, range(1))
    assert line.head is first
    assert first.given_at == 5.0


def expired(deadlines: Deadlines, line: Line, answered_at: float, now: float) -> list[int]:
    return [run.start for _, run in deadlines.expired(line, answered_at, now)]


def test_one_at_a_time_the_head_of_the_line_has_its_time_from_the_last_answer():
    deadlines = Deadlines(FunctionSpec("f", timeout=10.0))
    line, _ = line_of((CALL, 0, 5, 100.0))
    assert deadlines.next(line, 0.0) == 110.0
    line.answer(CALL, 1, range(2))
    assert deadlines.next(line, 108.0) == 118.0
    assert expired(deadlines, line, 108.0, 117.9) == []
    assert expired(deadlines, line, 108.0, 118.0) == [2], "its neighbours have not begun"
    line.answer(CALL, 1, range(5))
    assert deadlines.next(line, 108.0) == 0.0


def test_several_at_once_have_their_time_from_when_they_were_given():
    deadlines = Deadlines(FunctionSpec("f", timeout=10.0, autoscaling=Autoscaling(max_concurrent_inputs=4)))
    line, _ = line_of((CALL, 0, 2, 100.0), (OTHER, 0, 1, 105.0))
    assert deadlines.next(line, 104.0) == 110.0
    assert expired(deadlines, line, 109.0, 111.0) == [0, 1]
    line.answer(CALL, 1, range(2))
    assert deadlines.next(line, 111.0) == 115.0


def test_a_batch_has_its_time_from_when_it_is_gathered_and_times_out_whole():
    deadlines = Deadlines(FunctionSpec("f", timeout=10.0, autoscaling=Autoscaling(batch_size=3, batch_wait=2.0)))
    line, _ = line_of((CALL, 0, 1, 100.0), (CALL, 1, 2, 101.0), (CALL, 2, 3, 104.0))
    assert deadlines.next(line, 0.0) == 112.0
    assert expired(deadlines, line, 0.0, 112.0) == [0, 1], "the third came after this batch had begun"


def test_no_limit_is_no_limit():
    line, _ = line_of((CALL, 0, 1, 0.0))
    assert Deadlines(FunctionSpec("f", timeout=0.0)).next(line, 0.0) == 0.0


@given(st.lists(st.tuples(st.sampled_from([CALL, OTHER]), st.integers(1, 2), st.sets(st.integers(0, 20)))))
def test_positions_become_the_fewest_runs(answers):
    runs = runs_at(answers)
    wanted = {(call, attempt, one) for call, attempt, positions in answers for one in positions}
    found = [(run.call_id, run.attempt, one) for run in runs for one in range(run.start, run.stop)]
    assert len(found) == len(set(found))
    assert set(found) == wanted
    ends = {(run.call_id, run.attempt, run.stop) for run in runs}
    assert not ends & {(run.call_id, run.attempt, run.start) for run in runs}
