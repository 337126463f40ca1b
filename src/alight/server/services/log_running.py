"""Whose output comes now: notes of what containers have run, and what they run at the moment (decision 0022)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from alight.server.log_marks import Mark
from alight.server.logs import Logs
from alight.server.services.book import Book
from alight.wire import chunk, errors
from alight.wire.commands import Output

log = logging.getLogger(__name__)
_LOST = 16  # inputs of a lost container that are noted, the first in turn: the others had not begun
_AHEAD = 1000  # inputs that a container has at a time and that are looked at


class Running:
    """Notes which inputs ran when, for containers that print. Nothing here waits, and nothing fails for it."""

    def __init__(self, logs: Logs, book: Book) -> None:
        self._logs = logs
        self._book = book
        self._offsets: dict[str, int] = {}  # of each container: where the last note's output ended
        self._starts: dict[str, str] = {}  # of each container: what was told of its start

    def values(self, said: chunk.Outputs) -> None:
        """A container brought values, or items of one input."""
        offset, last = said.log_offset, self._offsets.get(said.container, 0)
        if offset <= last and (offset or said.flags & chunk.QUIET):
            return  # it printed nothing
        positions: Sequence[int] = said.positions
        start, stop = (said.position, said.position + 1) if said.is_items else (positions[0], positions[-1] + 1)
        began = said.ended - said.busy
        self._note(said.container, Mark(said.call_id, start, stop, said.attempt, began, said.ended, offset))

    def answer(self, output: Output) -> None:
        """A container brought the end of one input that is no plain value."""
        ended = output.ended_at or time.time()
        began = output.started_at or ended
        mark = Mark(
            output.call_id, output.position, output.position + 1, output.attempt, began, ended, output.log_offset
        )
        self._note(output.container, mark)

    def lost(self, container_id: str) -> None:
        """A container is gone: what it printed last is of what it ran last."""
        now = time.time()
        for one in self.now(container_id)[:_LOST]:
            self._note(container_id, Mark(one.call, one.start, one.stop, one.attempt, one.began, now))
        self._offsets.pop(container_id, None)
        self._starts.pop(container_id, None)

    def started(self, container_id: str, start: Mapping[str, Any]) -> str:
        """What a machine says of a container's start, in a line for its log; "" when that is nothing new."""
        if not start.get("ready") or not start.get("how"):
            return ""
        level = f" (level {start['level']})" if start.get("level") else ""
        took = ", ".join(f"{stage} {1000 * seconds:.0f}" for stage, seconds in start.get("stages", {}).items())
        text = f"{container_id} was started {start['how']}{level}; milliseconds on its machine: {took}"
        told, self._starts[container_id] = self._starts.get(container_id), text
        return text if told is None else ""

    def now(self, container_id: str) -> list[Mark]:
        """What a container has and has not answered, in the order of its turn."""
        found: list[Mark] = []
        for call_id in self._book.held.get(container_id, ()):
            call = self._book.live.get(call_id)
            for one in (call.holdings or ()) if call is not None else ():
                if call is None or one.container_id != container_id:
                    continue
                opened = call.done.missing(one.start, one.stop) if call.done is not None else [(one.start, one.stop)]
                for start, stop in opened:
                    found += [
                        Mark(call_id, position, position + 1, one.attempt, one.since, math.inf)
                        for position in range(start, min(stop, start + _AHEAD - len(found)))
                    ]
        return found

    def _note(self, container_id: str, mark: Mark) -> None:
        if mark.offset:
            self._offsets[container_id] = mark.offset
        try:
            self._logs.mark(container_id, mark.pack())
        except errors.Error as error:
            log.warning("whose output that of %s is could not be noted: %s", container_id, error)
