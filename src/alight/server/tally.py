"""What became of inputs, and how long they waited and ran: counted by function and minute. Pure.

Durations are counted in buckets, each 19 % wider than the one before, so that percentiles of any stretch of time are
sums of small tables; they are off by a tenth at most. Counting happens with every answer: it must cost next to nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from alight.wire.states import ResultStatus

MINUTE = 60
_SMALLEST = 1e-4  # seconds: what is shorter counts as that
_PARTS = 4  # buckets between a duration and its double
_MOST = 140  # the last bucket: about a month
_SUCCESS = ResultStatus.SUCCESS
OUTCOMES = ("success", "failure", "timeout", "cancelled")
#: Bounds of the histograms that are shown to others: every eighth bucket, four times the one before.
BOUNDS = tuple(_SMALLEST * 4.0**step for step in range(15))

_ceil, _log2 = math.ceil, math.log2
Spread = dict[int, int]
"""How many durations fell into which bucket."""


def bucket_of(seconds: float) -> int:
    """Where a duration is counted."""
    if seconds <= _SMALLEST:
        return 0
    return min(_MOST, _ceil(_PARTS * _log2(seconds / _SMALLEST)))


def middle_of(bucket: int) -> float:
    """The duration that a bucket stands for, in seconds."""
    return _SMALLEST * 2.0 ** ((bucket - 0.5) / _PARTS) if bucket else _SMALLEST


class Asked(Protocol):
    """What is looked at of a call."""

    function_id: str
    created_at: float
    total: int | None


class Answer(Protocol):
    """What is looked at of an answer: ``output`` is None for values."""

    busy: float
    ended: float
    positions: Sequence[int]
    output: Any


class Minute:
    """One function in one minute, or in all since the server started. ``end``: unix time from which on it is over."""

    __slots__ = (
        "cancelled",
        "changed",
        "end",
        "failure",
        "minute",
        "queue",
        "queue_seconds",
        "run",
        "run_seconds",
        "success",
        "timeout",
    )

    def __init__(self, minute: int = 0) -> None:
        self.minute = minute
        self.end = (minute + 1) * MINUTE
        self.changed = False
        self.success = self.failure = self.timeout = self.cancelled = 0
        self.queue: Spread = {}
        self.run: Spread = {}
        self.queue_seconds = self.run_seconds = 0.0

    def count(self, status: str, inputs: int, run: float | None, queue: float | None) -> None:
        """So many inputs ended so; ``run`` seconds each on average, the first of them after ``queue`` seconds."""
        self.changed = True
        if status == _SUCCESS:
            self.success += inputs
        elif status == ResultStatus.TIMEOUT:
            self.timeout += inputs
        elif status == ResultStatus.CANCELLED:
            self.cancelled += inputs
        else:
            self.failure += inputs
        if run is not None:
            bucket = bucket_of(run)
            self.run[bucket] = self.run.get(bucket, 0) + inputs
            self.run_seconds += run * inputs
        if queue is not None:
            bucket = bucket_of(queue)
            self.queue[bucket] = self.queue.get(bucket, 0) + 1
            self.queue_seconds += max(0.0, queue)

    def add(self, other: Minute) -> None:
        """Have another's counts, too."""
        for name in OUTCOMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.queue, other.queue), (self.run, other.run)):
            for bucket, count in theirs.items():
                mine[bucket] = mine.get(bucket, 0) + count
        self.queue_seconds += other.queue_seconds
        self.run_seconds += other.run_seconds


class Tally:
    """All functions. ``take_out`` gives what is to be written down, minute by minute."""

    def __init__(self) -> None:
        self._now: dict[str, Minute] = {}
        self._over: list[tuple[str, Minute]] = []
        self._before: dict[str, Minute] = {}  # all that came before the minutes of now

    def ended(self, function_id: str, status: str, inputs: int, now: float) -> None:
        """Inputs of a function have their end without any answer."""
        self._minute(function_id, now).count(status, inputs, None, None)

    def answered(self, call: Asked, frame: Answer, inputs: int) -> None:
        """A container has answered inputs of a call. Those that were answered together count with their mean; how long
        a call waited is known of those with one input."""
        now = time.time()
        one = self._now.get(call.function_id)
        if one is None or now >= one.end:
            one = self._minute(call.function_id, now)
        run = queue = None
        if frame.ended:
            run = frame.busy / len(frame.positions)
            if call.total == 1:
                queue = frame.ended - frame.busy - call.created_at
        one.count(_SUCCESS if frame.output is None else frame.output.status, inputs, run, queue)

    def take_out(self) -> list[tuple[str, Minute]]:
        """What has changed since this was asked last: each is that minute as it is now."""
        found, self._over = self._over, []
        for name, one in self._now.items():
            if one.changed:
                one.changed = False
                found.append((name, one))
        return found

    def since_start(self) -> dict[str, Minute]:
        """All that was counted, by function."""
        found: dict[str, Minute] = {}
        for minutes in (self._before, self._now):
            for name, one in minutes.items():
                found.setdefault(name, Minute()).add(one)
        return found

    def _minute(self, function_id: str, now: float) -> Minute:
        one = self._now.get(function_id)
        if one is not None and now < one.end:  # a clock that is set back makes no minute twice
            one.changed = True
            return one
        if one is not None:
            self._before.setdefault(function_id, Minute()).add(one)
            if one.changed:
                self._over.append((function_id, one))
        made = self._now[function_id] = Minute(int(now // MINUTE))
        return made


def percentile(spread: Mapping[int, int], share: float) -> float | None:
    """The duration that ``share`` of all are not above, to a tenth; None of nothing."""
    left = math.ceil(share * sum(spread.values()))
    if not left:
        return None
    for bucket in sorted(spread):
        left -= spread[bucket]
        if left <= 0:
            return middle_of(bucket)
    raise AssertionError("a percentile beyond all there are")


def cumulative(spread: Mapping[int, int]) -> list[int]:
    """How many are not above each of ``BOUNDS``."""
    return [
        sum(count for bucket, count in spread.items() if bucket <= 2 * _PARTS * step) for step in range(len(BOUNDS))
    ]


def to_text(spread: Mapping[int, int]) -> str:
    """As it is kept: ``bucket:count`` with spaces between."""
    return " ".join(f"{bucket}:{spread[bucket]}" for bucket in sorted(spread))


def from_text(text: str) -> Spread:
    """See ``to_text``."""
    return {int(bucket): int(count) for bucket, _, count in (word.partition(":") for word in text.split())}
