"""What one container was given and has not answered, or was answered and is not acknowledged. Pure: no clock, no I/O.

Inputs come as runs (positions of one call at one attempt), and what became of them comes in pieces of any shape. Each
position is *open* until somebody answered for it or gave it back; a run is kept until none of its positions is open
and every answer is acknowledged.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Tuple

from alight.wire.commands import Run


class Held:
    """One run. ``given_at`` is of the machine's monotonic clock. ``begun`` is False while its bytes are not here."""

    __slots__ = (
        "_bounds",
        "attempt",
        "begun",
        "call_id",
        "given_at",
        "method",
        "number",
        "returned",
        "start",
        "stop",
        "unacked",
    )

    def __init__(self, call_id: str, start: int, stop: int, attempt: int, given_at: float, method: str = "") -> None:
        self.call_id = call_id
        self.start = start
        self.stop = stop
        self.attempt = attempt
        self.given_at = given_at
        self.method = method
        self.begun = True
        self.unacked = 0
        self.returned: list[tuple[int, int]] = []
        self.number = 0  # the line counts what it was given
        self._bounds = [start, stop]  # where open stretches begin and end, in turn

    @property
    def open(self) -> bool:
        """Whether a position is not answered."""
        return bool(self._bounds)

    @property
    def first(self) -> int:
        """The first open position."""
        return self._bounds[0]

    def is_open(self, position: int) -> bool:
        return bool(bisect_right(self._bounds, position) & 1)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """The open positions, as (start, stop)."""
        return zip(self._bounds[::2], self._bounds[1::2])

    def positions(self) -> Iterator[int]:
        """The open positions, one by one."""
        for start, stop in self.stretches():
            yield from range(start, stop)

    def close(self, start: int, stop: int) -> int:
        """These are open no more. Returns how many of them were."""
        bounds = self._bounds
        if len(bounds) == 2 and bounds[0] == start < stop <= bounds[1]:  # nearly always: answers come in order
            if stop == bounds[1]:
                bounds.clear()
            else:
                bounds[0] = stop
            return stop - start
        before = _size(bounds)
        low, high = bisect_left(bounds, start), bisect_right(bounds, stop)
        bounds[low:high] = ([start] if low & 1 else []) + ([stop] if high & 1 else [])
        return before - _size(bounds)

    def within(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The open positions among these, as (start, stop)."""
        cut = ((max(low, start), min(high, stop)) for low, high in self.stretches())
        return [(low, high) for low, high in cut if low < high]


#: How many positions of which run an answer was for.
Shares = Tuple[Tuple[Held, int], ...]


class _Same:
    """The runs of one call and attempt, by where they begin.

    There may be as many as inputs, one by one: nothing here looks at all of them. They do not overlap, except where
    positions of one were given back and came again in another.
    """

    __slots__ = ("_longest", "_runs", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._runs: list[Held] = []
        self._longest = 0

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, held: Held) -> None:
        at = bisect_right(self._starts, held.start)
        self._starts.insert(at, held.start)
        self._runs.insert(at, held)
        self._longest = max(self._longest, held.stop - held.start)

    def remove(self, held: Held) -> bool:
        """False: it is gone already."""
        for at in range(bisect_left(self._starts, held.start), bisect_right(self._starts, held.start)):
            if self._runs[at] is held:
                del self._starts[at], self._runs[at]
                return True
        return False

    def within(self, start: int, stop: int) -> list[Held]:
        """Those that have any of these positions."""
        low = bisect_right(self._starts, start - self._longest)
        return [one for one in self._runs[low : bisect_left(self._starts, stop)] if one.stop > start]


class Line:
    """All runs of one container, in the order in which they were given."""

    def __init__(self) -> None:
        self._open: dict[int, Held] = {}  # by number, in the order of the line
        self._of: dict[tuple[str, int], _Same] = {}
        self._count = 0

    def __iter__(self) -> Iterator[Held]:
        """Those with something open, in order."""
        return iter(list(self._open.values()))

    @property
    def head(self) -> Held | None:
        """The first that the container can be at: given, and not answered in full."""
        return next((held for held in self._open.values() if held.begun), None)

    def new(self, call_id: str, attempt: int, start: int, stop: int) -> list[tuple[int, int]]:
        """Those of these positions that are not here: never given, or given back, or answered and acknowledged."""
        same = self._of.get((call_id, attempt))
        there = same.within(start, stop) if same is not None else ()
        if not there:
            return [(start, stop)]
        asked = Held(call_id, start, stop, attempt, 0.0)
        for held in there:
            here = Held(call_id, held.start, held.stop, attempt, 0.0)
            for low, high in held.returned:
                here.close(low, high)
            for low, high in here.stretches():
                asked.close(low, high)
        return list(asked.stretches())

    def add(self, held: Held) -> None:
        """At the end of the line."""
        self._count += 1
        held.number = self._count
        self._open[held.number] = held
        key = held.call_id, held.attempt
        same = self._of.get(key)
        if same is None:
            same = self._of[key] = _Same()
        same.add(held)

    def deliver(self, held: Held, now: float) -> None:
        """Its bytes are here: only now it stands in the line."""
        held.begun, held.given_at = True, now
        if self._open.pop(held.number, None) is not None:
            self._count += 1
            held.number = self._count
            self._open[held.number] = held

    def find(self, call_id: str, attempt: int, position: int) -> Held | None:
        """The run in which this position is open."""
        same = self._of.get((call_id, attempt))
        for held in same.within(position, position + 1) if same is not None else ():
            if held.is_open(position):
                return held
        return None

    def answer(self, call_id: str, attempt: int, positions: Sequence[int]) -> Shares:
        """Somebody answers for these. Which runs that concerns; nothing when none of them was open."""
        same = self._of.get((call_id, attempt))
        if same is None:
            return ()
        if isinstance(positions, range):
            return tuple(self._answer(same, positions.start, positions.stop))
        return tuple(share for position in positions for share in self._answer(same, position, position + 1))

    def settle(self, shares: Shares) -> list[Held]:
        """An answer is acknowledged. The runs of which nothing is left to be said."""
        for held, count in shares:
            held.unacked -= count
        return [held for held, _ in shares if self._drop_if_over(held)]

    def give_back(self, runs: Iterable[Run]) -> tuple[list[Run], list[Held]]:
        """These will not run here. What of them was open, and the runs of which nothing is left to be said."""
        back: list[Run] = []
        over: list[Held] = []
        for run in runs:
            same = self._of.get((run.call_id, run.attempt))
            for held in same.within(run.start, run.stop) if same is not None else ():
                for start, stop in held.within(run.start, run.stop):
                    held.close(start, stop)
                    held.returned.append((start, stop))
                    back.append(Run(run.call_id, start, stop, run.attempt))
                if not held.open:
                    self._open.pop(held.number, None)
                    if self._drop_if_over(held):
                        over.append(held)
        return back, over

    def open_runs(self) -> tuple[Run, ...]:
        """What was given and is not answered."""
        return tuple(run for held in self._open.values() for run in runs_of(held))

    def missing(self, running: Iterable[Run]) -> list[Run]:
        """What was given and is not answered, less what the runtime says that it has, and less what waits for it."""
        has: dict[tuple[str, int], list[Run]] = {}
        for run in running:
            has.setdefault((run.call_id, run.attempt), []).append(run)
        missing: list[Run] = []
        for held in self._open.values():
            if not held.begun:
                continue
            rest = Held(held.call_id, held.start, held.stop, held.attempt, 0.0)
            for run in has.get((held.call_id, held.attempt), ()):
                rest.close(run.start, run.stop)
            for start, stop in rest.stretches():
                missing += [Run(held.call_id, low, high, held.attempt) for low, high in held.within(start, stop)]
        return missing

    def _answer(self, same: _Same, start: int, stop: int) -> Iterator[tuple[Held, int]]:
        for held in same.within(start, stop):
            count = held.close(start, stop)
            if count:
                held.unacked += count
                if not held.open:
                    self._open.pop(held.number, None)
                yield held, count

    def _drop_if_over(self, held: Held) -> bool:
        if held.open or held.unacked > 0:
            return False
        key = held.call_id, held.attempt
        same = self._of.get(key)
        if same is None or not same.remove(held):
            return False
        if not same:
            del self._of[key]
        return True


def runs_of(held: Held) -> list[Run]:
    """What is open of a run."""
    return [Run(held.call_id, start, stop, held.attempt) for start, stop in held.stretches()]


def _size(bounds: list[int]) -> int:
    return sum(bounds[1::2]) - sum(bounds[::2])


def runs_at(answers: Iterable[tuple[str, int, Iterable[int]]]) -> tuple[Run, ...]:
    """Positions of calls at an attempt (call, attempt, positions), in any order, as the fewest runs."""
    found: dict[tuple[str, int], set[int]] = {}
    for call_id, attempt, positions in answers:
        found.setdefault((call_id, attempt), set()).update(positions)
    runs: list[Run] = []
    for (call_id, attempt), positions in found.items():
        ordered = sorted(positions)
        starts = [one for one in ordered if one - 1 not in positions]
        stops = [one + 1 for one in ordered if one + 1 not in positions]
        runs += [Run(call_id, start, stop, attempt) for start, stop in zip(starts, stops)]
    return tuple(runs)
