"""One partition of a queue: nothing is lost, given twice or out of turn, whatever fails, leaves and comes back."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from alight.server.services.queue_line import Getter, Line, Putter
from alight.wire.shared import PARTITION_MOST
from tests.unit.generated import times


class Model(RuleBasedStateMachine):
    """Ours beside a plain list of numbers. A put is begun, and then came or failed; a get takes, and is settled or
    given back.
    """

    def __init__(self):
        super().__init__()
        self.line = Line()
        self.there = []  # what may be taken, in order
        self.coming = []  # (start, stop, [(getter, low, high)]), in order
        self.out = []  # (low, high)
        self.getters = []  # who waits, in order
        self.made = 0
        self.settled = set()
        self.put = set()

    @rule(count=st.integers(1, 5))
    def begin(self, count):
        if not self.line.may_put(Putter("p", count, 0)):
            return
        start, stop = self.line.begin(count)
        given = self.line.hand_over(start, stop)
        # Handed over only when nothing comes before, and to those who wait, in their order.
        if given:
            assert not self.there
            assert not self.coming
        for getter, low, high in given:
            assert getter is self.getters.pop(0)
            assert low < high <= low + getter.most
        self.coming.append((start, stop, given))

    @precondition(lambda self: self.coming)
    @rule(works=st.booleans())
    def end(self, works):
        start, stop, given = self.coming.pop(0)
        handed = given[-1][2] if given else start
        if works:
            self.put |= set(range(start, stop))
            self.line.came(start, stop, handed)
            self.there += range(handed, stop)
            self.out += [(low, high) for _, low, high in given]
        else:
            self.line.failed(start, stop)
            self.line.out -= len(given)
            self.line.wait_again([getter for getter, _, _ in given])
            self.getters = [getter for getter, _, _ in given] + self.getters
        self._serve()

    @rule(most=st.integers(1, 7))
    def get(self, most):
        self.made += 1
        getter = Getter(str(self.made), most)
        self.line.getters.append(getter)
        self.getters.append(getter)
        self._serve()

    @precondition(lambda self: self.getters)
    @rule(which=st.integers(0, 3))
    def leave(self, which):
        getter = self.getters.pop(min(which, len(self.getters) - 1))
        getter.gone = True

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 9))
    def settle(self, which):
        low, high = self.out.pop(min(which, len(self.out) - 1))
        self.settled |= set(range(low, high))
        self.line.settled()

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 9))
    def give_back(self, which):
        low, high = self.out.pop(min(which, len(self.out) - 1))
        self.line.give_back(low, high)
        self.there = sorted([*self.there, *range(low, high)])
        self._serve()

    @rule()
    def restart(self):
        """What is on disk is read again: items, and which of them are out. What was coming is lost with its putters."""
        line = Line(next=self.line.next)  # the server takes the time for it
        on_disk = sorted([*self.there, *(number for low, high in self.out for number in range(low, high))])
        for number in on_disk:
            line.add(number, number + 1)
        for low, high in self.out:
            line.take_out(low, high)
        self.line, self.coming, self.getters = line, [], []

    @invariant()
    def same(self):
        assert [n for low, high in self.line.ready for n in range(low, high)] == self.there
        assert self.line.count == len(self.there)
        assert self.line.numbers(-1, 100) == self.there[:100]
        assert all(low < high for low, high in self.line.ready)
        assert self.line.coming == sum(stop - start for start, stop, _ in self.coming)
        assert self.line.out == len(self.out) + sum(len(given) for _, _, given in self.coming)

    @invariant()
    def nothing_is_lost_or_there_twice(self):
        out = [number for low, high in self.out for number in range(low, high)]
        assert len(out) == len(set(out))
        assert not set(out) & set(self.there)
        assert not self.settled & {*out, *self.there}

    def _serve(self):
        for getter, low, high in self.line.serve():
            expected = self.getters.pop(0)
            assert getter is expected
            assert list(range(low, high)) == self.there[: high - low]
            assert 1 <= high - low <= getter.most
            del self.there[: high - low]
            self.out.append((low, high))
        assert not (self.there and self.getters)


Model.TestCase.settings = settings(max_examples=times(40))
TestModel = Model.TestCase


def test_room_is_for_who_waited_longest():
    line = Line()
    line.came(*line.begin(PARTITION_MOST - 1), 0)
    large, small = Putter("large", 3, 0), Putter("small", 1, 0)
    line.putters.extend([large, small])
    assert line.next_putter() is None  # the small one would fit, and comes after
    line.getters.append(Getter("g", 2))
    line.serve()
    assert line.next_putter() is large
    line.begin(3)
    assert line.next_putter() is None
    large.gone = True
    line.getters.append(Getter("g", 1))
    line.serve()
    assert line.next_putter() is small


def test_a_put_in_several_messages_wants_room_for_all_of_it():
    line = Line()
    line.came(*line.begin(PARTITION_MOST - 10), 0)
    assert line.may_put(Putter("p", 5, 10))
    assert not line.may_put(Putter("p", 5, 11))


def test_what_comes_back_stands_where_it_stood():
    line = Line()
    line.came(*line.begin(6), 0)
    line.getters.extend([Getter("a", 2), Getter("b", 2)])
    (_, a, b), (_, c, d) = line.serve()
    line.give_back(c, d)
    line.give_back(a, b)
    assert list(line.ready) == [(0, 6)]
