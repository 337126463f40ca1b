"""What became of inputs, and how long they waited and ran: counted by function and minute. Pure.

Durations are counted in buckets, each 19 % wider than the one before, so that percentiles of any stretch of time are
sums of small tables; they are off by a tenth at most. Counting happens with every answer: it must cost next to nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from alight.wire.states import ResultStatus

MINUTE = 60
_SMALLEST = 1e-4  # seconds: what is shorter counts as that
_PARTS = 4  # buckets between a duration and its double
_MOST = 140  # the last bucket: about a month
_FAILED = {ResultStatus.TIMEOUT: "timeout", ResultStatus.CANCELLED: "cancelled", ResultStatus.SUCCESS: "success"}
_SUCCESS = ResultStatus.SUCCESS
OUTCOMES = ("success", "failure", "timeout", "cancelled")
#: Bounds of the histograms that are shown to others: every eighth bucket, four times the one before.
BOUNDS = tuple(_SMALLEST * 4.0**step for step in range(15))

Spread = dict[int, int]
"""How many durations fell into which bucket."""


def bucket_of(seconds: float) -> int:
    """Where a duration is counted."""
    if seconds <= _SMALLEST:
        return 0
    return min(_MOST, math.ceil(_PARTS * math.log2(seconds / _SMALLEST)))


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
    """One function in one minute, or in all since the server started."""

    __slots__ = ("cancelled", "failure", "minute", "queue", "queue_seconds", "run", "run_seconds", "success", "timeout")

    def __init__(self, minute: int = 0) -> None:
        self.minute = minute
        self.success = self.failure = self.timeout = self.cancelled = 0
        self.queue: Spread = {}
        self.run: Spread = {}
        self.queue_seconds = self.run_seconds = 0.0

    def count(self, status: str, inputs: int, run: float | None, queue: float | None) -> None:
        """So many inputs ended so; ``run`` seconds each on average, the first of them after ``queue`` seconds."""
        name = _FAILED.get(status, "failure")
        setattr(self, name, getattr(self, name) + inputs)
        if run is not None:
            bucket = bucket_of(run)
            self.run[bucket] = self.run.get(bucket, 0) + inputs
            self.run_seconds += run * inputs
        if queue is not None:
            bucket = bucket_of(queue)
            self.queue[bucket] = self.queue.get(bucket, 0) + 1
            self.queue_seconds += queue

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
    """All functions. ``takes_out`` gives what is to be written down, minute by minute."""

    def __init__(self) -> None:
        self._now: dict[str, Minute] = {}
        self._changed: set[str] = set()
        self._over: list[tuple[str, Minute]] = []
        self.since_start: dict[str, Minute] = {}

    def ended(
        self, function_id: str, status: str, inputs: int, now: float, run: float | None, queue: float | None
    ) -> None:
        """Inputs of a function have their end."""
        minute = int(now // MINUTE)
        one = self._now.get(function_id)
        if one is None or one.minute < minute:  # a clock that is set back makes no minute twice
            if one is not None and function_id in self._changed:
                self._over.append((function_id, one))
            one = self._now[function_id] = Minute(minute)
        self._changed.add(function_id)
        one.count(status, inputs, run, queue)
        whole = self.since_start.get(function_id)
        if whole is None:
            whole = self.since_start[function_id] = Minute()
        whole.count(status, inputs, run, queue)

    def answered(self, call: Asked, frame: Answer, inputs: int) -> None:
        """A container has answered inputs of a call. Those that were answered together count with their mean; how long
        a call waited is known of those with one input."""
        run = queue = None
        ended = frame.ended
        if ended:
            run = frame.busy / len(frame.positions)
            if call.total == 1:
                queue = max(0.0, ended - frame.busy - call.created_at)
        status = frame.output.status if frame.output is not None else _SUCCESS
        self.ended(call.function_id, status, inputs, time.time(), run, queue)

    def take_out(self) -> list[tuple[str, Minute]]:
        """What has changed since this was asked last: each is that minute as it is now."""
        found = self._over + [(name, self._now[name]) for name in self._changed]
        self._over, self._changed = [], set()
        return found

    def forget(self, function_ids: Iterable[str]) -> None:
        """These functions are gone."""
        for function_id in function_ids:
            if function_id not in self._changed:
                self._now.pop(function_id, None)
            self.since_start.pop(function_id, None)


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
