"""What web functions were asked: counted by function and minute as the gateway answers. Pure but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from alight.server.tally import MINUTE, Spread, bucket_of

_KEPT = 10  # minutes for which counts stay at hand: a clock that is set back finds them


class WebMinute:
    """One function in one minute."""

    __slots__ = ("changed", "latency", "statuses")

    def __init__(self) -> None:
        self.changed = False
        self.statuses: Spread = {}
        self.latency: Spread = {}

    def add(self, other: WebMinute) -> None:
        """Have another's counts, too."""
        for mine, theirs in ((self.statuses, other.statuses), (self.latency, other.latency)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count


class WebTally:
    """All web functions. ``take_out`` gives what is to be written down."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._minutes: dict[tuple[str, int], WebMinute] = {}

    def answered(self, function_id: str, status: int, seconds: float) -> None:
        """The answer to a request has begun, so many seconds after its head was read."""
        key = (function_id, int(self._clock() // MINUTE))
        one = self._minutes.get(key)
        if one is None:
            one = self._minutes[key] = WebMinute()
        one.changed = True
        one.statuses[status] = one.statuses.get(status, 0) + 1
        bucket = bucket_of(seconds)
        one.latency[bucket] = one.latency.get(bucket, 0) + 1

    def take_out(self) -> list[tuple[str, int, WebMinute]]:
        """What has changed since this was asked last, by function and minute: each as it is now."""
        found = []
        for (name, minute), one in self._minutes.items():
            if one.changed:
                one.changed = False
                found.append((name, minute, one))
        oldest = int(self._clock() // MINUTE) - _KEPT
        for key in [key for key in self._minutes if key[1] < oldest]:
            del self._minutes[key]
        return found
