"""Positions as ranges: which inputs were answered, in memory that follows the gaps and not the count."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import List, Tuple


class Ranges:
    """A set of positions, kept as (start, stop) pairs that neither overlap nor touch. ``count`` is its size."""

    __slots__ = ("_starts", "_stops", "count")

    def __init__(self) -> None:
        self._starts: List[int] = []
        self._stops: List[int] = []
        self.count = 0

    def add(self, start: int, stop: int) -> List[Tuple[int, int]]:
        """Add positions; returns those that were not there yet, in order."""
        starts, stops = self._starts, self._stops
        first = bisect_left(stops, start)
        last = bisect_right(starts, stop)
        new: List[Tuple[int, int]] = []
        at = start
        for index in range(first, last):
            if at < starts[index]:
                new.append((at, min(starts[index], stop)))
            at = max(at, stops[index])
        if at < stop:
            new.append((at, stop))
        if first < last:
            start, stop = min(start, starts[first]), max(stop, stops[last - 1])
        starts[first:last] = [start]
        stops[first:last] = [stop]
        self.count += sum(end - begin for begin, end in new)
        return new

    def pairs(self) -> Tuple[Tuple[int, int], ...]:
        return tuple(zip(self._starts, self._stops))
