"""When the time of an input runs out.

The time of an attempt counts from when user code begins. A container that runs one input at a time begins the next
when it is done with the one before: it is at the head of its line, since it was given or since the container last
answered, whichever is later. One that runs several at once is given no more than it can begin. A batch begins when
it is full, or when its wait is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import islice

from alight.node.runs import Held, Line
from alight.wire.commands import Run
from alight.wire.spec import FunctionSpec


class Deadlines:
    """For the containers of one function. Pure: what is known of a container comes in, positions come out.

    Times are seconds of the machine's monotonic clock.
    """

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


class Timekeeper:
    """Watches the time of one container's inputs, with one timer: most end long before it is over.

    ``answered_at`` is when the container last answered; ``expired`` gets those whose time has run out, and nothing is
    watched any more.
    """

    def __init__(
        self,
        function: FunctionSpec,
        line: Line,
        answered_at: Callable[[], float],
        expired: Callable[[list[tuple[Held, Run]]], None],
    ) -> None:
        self._deadlines = Deadlines(function)
        self._line = line
        self._answered_at = answered_at
        self._expired = expired
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, patience: float = 0.0) -> None:
        """There is something to watch, if there was nothing before. Nothing expires before ``patience`` is over."""
        if self._timer is None and self._deadlines.limit:
            if patience:
                self._timer = asyncio.get_running_loop().call_later(patience, self._look)
            else:
                self._look()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now, answered_at = time.monotonic(), self._answered_at()
        expired = self._deadlines.expired(self._line, answered_at, now)
        if expired:
            self._expired(expired)
            return
        when = self._deadlines.next(self._line, answered_at)
        if when:
            # A millisecond more: clocks of loops count those.
            self._timer = asyncio.get_running_loop().call_later(max(0.0, when - now) + 0.001, self._look)


def _each(runs: list[Held]) -> Iterator[tuple[Held, Run]]:
    for held in runs:
        for position in held.positions():
            yield held, Run(held.call_id, position, position + 1, held.attempt)
