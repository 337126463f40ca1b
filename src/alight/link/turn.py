"""What one read of a socket leads to, done before the event loop turns again.

A message that arrives often makes work for others: the scheduler has a fact to look at, another connection has
something to write. Asking the event loop for a later turn for each of these costs more than the work itself. While
messages are handed out, such work is noted here; it is done once all of them have been, each kind once however often
it was asked for. What nobody waits for is done last, when all that was said has left. Must never wait, and never raise:
what is noted here sees to its own faults.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Callable, List, Protocol


class Writer(Protocol):
    """Who has something to write at the end of the turn."""

    def flush(self) -> None: ...


class Turn:
    """The turn of one event loop. ``under_way`` is True while messages are handed out. A ``with`` block is one, or part
    of the one that is under way."""

    def __init__(self) -> None:
        self.under_way = False
        self._work: List[Callable[[], None]] = []
        self._writers: List[Writer] = []
        self._last: List[Callable[[], None]] = []
        self._outer: List[bool] = []  # of each block that is under way, whether it began the turn

    def begin(self) -> bool:
        """Called before messages are handed out. False when somebody further out has begun, and will end it."""
        if self.under_way:
            return False
        self.under_way = True
        return True

    def then(self, work: Callable[[], None]) -> None:
        """Do this once the messages are handed out. Only while the turn is under way."""
        self._work.append(work)

    def write(self, writer: Writer) -> None:
        """Let this one write at the very end. Only while the turn is under way."""
        self._writers.append(writer)

    def afterwards(self, work: Callable[[], None]) -> None:
        """Do this when everybody has written; at once when no turn is under way."""
        if self.under_way:
            self._last.append(work)
        else:
            work()

    def __enter__(self) -> None:
        self._outer.append(self.begin())

    def __exit__(self, *_error: object) -> None:
        if self._outer.pop():
            self.end()

    def end(self) -> None:
        """Called by who began."""
        try:
            while self._work:
                work, self._work = self._work, []
                for one in work:
                    one()
        finally:
            self.under_way = False
            writers, self._writers = self._writers, []
            for writer in writers:
                writer.flush()
            while self._last:
                last, self._last = self._last, []
                for one in last:
                    one()


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """The turn of this event loop."""
    turn = _TURNS.get(loop)
    if turn is None:
        turn = _TURNS[loop] = Turn()
    return turn


_TURNS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = weakref.WeakKeyDictionary()
