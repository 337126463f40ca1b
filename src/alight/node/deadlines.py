"""When the time of an input runs out. Pure: what is known of the container comes in, positions come out.

The time of an attempt counts from when user code begins. A container that runs one input at a time begins the next
when it is done with the one before: it is at the head of its line, since it was given or since the container last
answered, whichever is later. One that runs several at once is given no more than it can begin. A batch begins when
it is full, or when its wait is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from alight.node.runs import Held, Line
from alight.wire.commands import Run
from alight.wire.spec import FunctionSpec


class Deadlines:
    """For the containers of one function. Times are seconds of the machine's monotonic clock."""

    def __init__(self, function: FunctionSpec) -> None:
        self.limit = function.timeout
        scaling = function.autoscaling
        self._batch = scaling.batch_size
        self._at_once = scaling.max_concurrent_inputs > 1 and not self._batch
        self._wait = scaling.batch_wait if self._batch else 0.0

    def next(self, line: Line, answered_at: float) -> float:
        """When the next one runs out; 0: nothing runs, or there is no limit."""
        head = line.head
        if head is None or not self.limit:
            return 0.0
        return self._begins(head, answered_at) + self.limit

    def expired(self, line: Line, answered_at: float, now: float) -> list[tuple[Held, Run]]:
        """Those whose time has run out, one position each."""
        head = line.head
        if head is None or not self.limit or now < self._begins(head, answered_at) + self.limit:
            return []
        if self._at_once:
            over = [held for held in line if held.begun and held.given_at + self.limit <= now]
            return list(_each(over))
        if self._batch:
            begun = self._begins(head, answered_at)
            return list(islice(_each([held for held in line if held.given_at <= begun]), self._batch))
        return [next(_each([head]))]

    def _begins(self, head: Held, answered_at: float) -> float:
        if self._at_once:
            return head.given_at
        return max(head.given_at, answered_at) + self._wait


def _each(runs: list[Held]) -> Iterator[tuple[Held, Run]]:
    for held in runs:
        for position in held.positions():
            yield held, Run(held.call_id, position, position + 1, held.attempt)
