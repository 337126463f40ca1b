"""One partition of a queue as the server has it in memory: which items may be taken, who waits for some, who for room.

Pure: it decides, and ``queues`` writes down and answers. Items are numbers; where their values are is not known here.
First come, first served: for getters, and for putters that wait for room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from alight.wire.shared import PARTITION_MOST

G = TypeVar("G", bound="Getter")
P = TypeVar("P", bound="Putter")


class Getter:
    """Somebody who waits for up to ``most`` items. ``gone``: takes nothing any more."""

    def __init__(self, request: str, most: int) -> None:
        self.request = request
        self.most = most
        self.gone = False

    def look(self) -> None:
        """Find out whether it is gone."""


class Putter:
    """Somebody who wants to add ``count`` items and waits until there is room for ``need``."""

    def __init__(self, request: str, count: int, need: int) -> None:
        self.request = request
        self.count = count
        self.need = need
        self.gone = False

    def look(self) -> None:
        """Find out whether it is gone."""


@dataclass(eq=False)
class Line(Generic[G, P]):
    """``ready``: ranges [start, stop) of items that are on disk and nobody has taken, in their order.

    ``coming``: items that are on their way to the disk; they take room already. ``next``: the next item's number.
    ``out``: gets whose items are taken and still kept.
    """

    ready: deque[tuple[int, int]] = field(default_factory=deque)
    next: int = 0
    count: int = 0
    coming: int = 0
    out: int = 0
    expires_at: float = float("inf")
    getters: deque[G] = field(default_factory=deque)
    putters: deque[P] = field(default_factory=deque)

    @property
    def room(self) -> int:
        """How many items may be added."""
        return PARTITION_MOST - self.count - self.coming

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost by forgetting it: no item has a number of this partition."""
        return not (self.count or self.coming or self.out or self.getters or self.putters)

    # adding

    def may_put(self, putter: P) -> bool:
        """Whether it may add its items now, before any that waits."""
        return max(putter.count, putter.need) <= self.room

    def begin(self, count: int) -> tuple[int, int]:
        """Numbers for items that go to the disk now."""
        start = self.next
        self.next += count
        self.coming += count
        return start, self.next

    def came(self, start: int, stop: int, handed: int) -> None:
        """They are on disk. Those before ``handed`` were handed over."""
        self.coming -= stop - start
        self.add(handed, stop)

    def failed(self, start: int, stop: int) -> None:
        """They are not, and never will be."""
        self.coming -= stop - start
        if self.next == stop:
            self.next = start  # no gap, so that a get may take what is before and behind it

    def next_putter(self) -> P | None:
        """The first who waits for room, when there is enough. Those behind it wait, however little they want."""
        self._drop_gone()
        if self.putters and self.may_put(self.putters[0]):
            return self.putters.popleft()
        return None

    # taking

    def serve(self) -> list[tuple[G, int, int]]:
        """Give what is ready to those who wait, in their order: who gets which items."""
        given = []
        while self.ready:
            getter = self._next_getter()
            if getter is None:
                break
            given.append((getter, *self._take(getter.most)))
        return given

    def hand_over(self, start: int, stop: int) -> list[tuple[G, int, int]]:
        """Give items that go to the disk now to those who wait, so that one commit does for both.

        Nothing when others come before them. What is given does not come to ``ready``.
        """
        given: list[tuple[G, int, int]] = []
        if self.ready or self.coming != stop - start:
            return given
        while start < stop:
            getter = self._next_getter()
            if getter is None:
                break
            end = min(stop, start + getter.most)
            given.append((getter, start, end))
            self.out += 1
            start = end
        return given

    def wait_again(self, getters: Iterable[G]) -> None:
        """Those who were given something that cannot be had: first in line again, in their order."""
        self.getters.extendleft(reversed(list(getters)))

    def settled(self) -> None:
        """What a getter took is with it, and is kept no longer."""
        self.out -= 1

    def give_back(self, start: int, stop: int) -> None:
        """What a getter took is not with it: it stands where it stood."""
        self.out -= 1
        self.add(start, stop)

    def take_out(self, start: int, stop: int) -> None:
        """What was read from the store was taken before: it is not ready."""
        self.out += 1
        kept: list[tuple[int, int]] = []
        for low, high in self.ready:
            kept += [(a, b) for a, b in ((low, min(high, start)), (max(low, stop), high)) if a < b]
        self.ready = deque(kept)
        self.count = sum(high - low for low, high in kept)

    def clear(self) -> list[tuple[int, int]]:
        """Let go of everything that nobody has taken; the ranges that it was."""
        ranges, self.count = list(self.ready), 0
        self.ready.clear()
        return ranges

    def numbers(self, after: int, limit: int) -> list[int]:
        """The next items after one, without taking them."""
        found: list[int] = []
        for start, stop in self.ready:
            if stop - 1 <= after:
                continue
            low = max(start, after + 1)
            found.extend(range(low, min(stop, low + limit - len(found))))
            if len(found) >= limit:
                break
        return found

    def add(self, start: int, stop: int) -> None:
        """Items may be taken; they stand by their number."""
        if start >= stop:
            return
        self.count += stop - start
        self.next = max(self.next, stop)
        behind: list[tuple[int, int]] = []
        while self.ready and self.ready[-1][0] >= stop:
            behind.append(self.ready.pop())
        if self.ready and self.ready[-1][1] == start:
            start = self.ready.pop()[0]
        if behind and behind[-1][0] == stop:
            stop = behind.pop()[1]
        self.ready.append((start, stop))
        self.ready.extend(reversed(behind))

    def _take(self, most: int) -> tuple[int, int]:
        start, stop = self.ready.popleft()
        end = min(stop, start + most)
        if end < stop:
            self.ready.appendleft((end, stop))
        self.count -= end - start
        self.out += 1
        return start, end

    def _next_getter(self) -> G | None:
        while self.getters:
            getter = self.getters.popleft()
            getter.look()
            if not getter.gone:
                return getter
        return None

    def _drop_gone(self) -> None:
        while self.putters:
            self.putters[0].look()
            if not self.putters[0].gone:
                return
            self.putters.popleft()
