"""A set of positions that grows to a few ranges: which inputs of a call have ended, which a reader was told of."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence


class Ranges:
    """Positions from 0, kept as ranges that touch nowhere. ``count`` is how many there are."""

    __slots__ = ("_starts", "_stops", "count")

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self.count = 0
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in pairs:
            self.add(start, stop)

    def __contains__(self, position: int) -> bool:
        at = bisect_right(self._starts, position) - 1
        return at >= 0 and position < self._stops[at]

    @property
    def prefix(self) -> int:
        """Everything before this one is in."""
        return self._stops[0] if self._starts and self._starts[0] == 0 else 0

    def pairs(self) -> list[tuple[int, int]]:
        """The ranges in order."""
        return list(zip(self._starts, self._stops))

    def add(self, start: int, stop: int) -> int:
        """Put a range in; returns how many of it were new."""
        starts, stops = self._starts, self._stops
        if stop <= start:
            return 0
        if not starts or start > stops[-1]:  # how outputs come, mostly
            starts.append(start)
            stops.append(stop)
            self.count += stop - start
            return stop - start
        low = bisect_left(stops, start)  # the first that touches it
        high = bisect_right(starts, stop)  # after the last that does
        if low == high:
            starts.insert(low, start)
            stops.insert(low, stop)
            self.count += stop - start
            return stop - start
        begin, end = min(start, starts[low]), max(stop, stops[high - 1])
        new = (end - begin) - sum(map(int.__sub__, stops[low:high], starts[low:high]))
        starts[low:high] = [begin]
        stops[low:high] = [end]
        self.count += new
        return new

    def add_all(self, positions: Sequence[int]) -> int:
        """Put positions in; returns how many were new."""
        if type(positions) is range and positions.step == 1:
            return self.add(positions.start, positions.stop)
        return sum(self.add(position, position + 1) for position in positions)

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of a range is not in, as ranges."""
        found: list[tuple[int, int]] = []
        at = bisect_right(self._stops, start)
        while start < stop:
            if at == len(self._starts) or self._starts[at] >= stop:
                found.append((start, stop))
                break
            if self._starts[at] > start:
                found.append((start, self._starts[at]))
            start = max(start, self._stops[at])
            at += 1
        return found
