"""The calls that are open and in memory, and how much of each function waits in the store alone.

Bodies have a common room in memory; what finds none is read back when it is given to a container. A function whose
calls nobody waits for keeps a window of them here; the rest stay rows, however many there are.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alight.scheduler.events import Attempt, InputsArrived
from alight.server.events import Inbox
from alight.server.services.call import Call, Chunk, Holding
from alight.wire.failure import Failure

_RECENT = 4096


@dataclass
class Line:
    """The open calls of one function. ``after`` is the last one that was fetched from the store, by seq."""

    function_id: str
    app_id: str
    calls: int = 0  # in memory
    stored: int = 0  # in the store alone
    stored_inputs: int = 0  # accepted and not ended, of those
    inputs: int = 0  # accepted and not ended, of both
    running: int = 0  # of them, in containers
    after: int = 0
    writing: int = 0  # of those stored, not committed yet
    entering: int = 0  # in memory once they are committed
    fetching: asyncio.Task[None] | None = None


class Book:
    """What is in memory. Changed by the services of calls alone."""

    def __init__(self, inbox: Inbox, bodies_in_memory: int) -> None:
        self.inbox = inbox
        self.room = bodies_in_memory
        self.live: dict[str, Call] = {}
        self.lines: dict[str, Line] = {}
        self.children: dict[str, dict[str, None]] = {}  # by the call whose inputs made them
        self.held: dict[str, dict[str, None]] = {}  # calls by container
        self.init_failures: dict[str, tuple[Failure | None, bytes]] = {}  # by function: what importing it raised
        self.released = False
        self.recent: dict[str, None] = {}  # calls that are over, for those who say them again
        self._seq = 0
        self._number = 0

    def begin(self, seq: int, number: int) -> None:
        """Count on from what an earlier process used."""
        self._seq, self._number = seq, number

    def next_seq(self) -> int:
        """Of a call."""
        self._seq += 1
        return self._seq

    def next_number(self) -> int:
        """Of an output."""
        self._number += 1
        return self._number

    def line(self, function_id: str, app_id: str) -> Line:
        """The line of a function."""
        found = self.lines.get(function_id)
        if found is None:
            found = self.lines[function_id] = Line(function_id, app_id)
        return found

    def enter(self, call: Call) -> None:
        """A call is in memory from now on. Its inputs were counted when they were accepted."""
        self.live[call.call_id] = call
        self.line(call.function_id, call.app_id).calls += 1
        if call.parent is not None:
            self.children.setdefault(call.parent[0], {})[call.call_id] = None

    def leave(self, call: Call) -> None:
        """It is over, or stays in the store alone."""
        if self.live.pop(call.call_id, None) is None:
            return
        line = self.line(call.function_id, call.app_id)
        line.calls -= 1
        if call.over:
            self.recent[call.call_id] = None
            if len(self.recent) > _RECENT:
                del self.recent[next(iter(self.recent))]
        if call.parent is not None:
            siblings = self.children.get(call.parent[0])
            if siblings is not None:
                siblings.pop(call.call_id, None)
                if not siblings:
                    del self.children[call.parent[0]]
        for one in call.chunks or ():
            self.room += len(one.body)
        call.chunks = None
        for holding in call.holdings or ():
            line.running -= holding.left
            mine = self.held.get(holding.container_id)
            if mine is not None:
                mine.pop(call.call_id, None)
        call.holdings = None
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None

    def queue(self, call: Call, attempts: tuple[Attempt, ...] = ()) -> None:
        """Let the scheduler know of a call's open inputs."""
        call.queued = True
        ranges = call.open_ranges()
        if ranges:
            self.inbox.put(InputsArrived(call.call_id, call.function_id, ranges, call.parent, attempts))

    def keep(self, call: Call, chunk: Chunk, *, forced: bool = False) -> bool:
        """Hold a chunk's bodies if there is room. False: they have to be read from the store."""
        if not forced and self.room < len(chunk.body):
            return False
        self.room -= len(chunk.body)
        call.keep(chunk)
        return True

    def drop(self, call: Call, chunk: Chunk) -> None:
        """A chunk's bodies are needed here no more."""
        if call.chunks is not None and chunk in call.chunks:
            call.chunks.remove(chunk)
            self.room += len(chunk.body)

    def hold(self, call: Call, holding: Holding) -> None:
        """A container got some of a call's inputs, or is told again that it did."""
        for one in call.holdings or ():
            if one.container_id == holding.container_id and one.start < holding.stop and holding.start < one.stop:
                self.returned(holding.container_id, call.call_id, holding.start, holding.stop)
                break
        call.hold(holding)
        self.line(call.function_id, call.app_id).running += holding.left
        self.held.setdefault(holding.container_id, {})[call.call_id] = None

    def answered(self, call: Call, container_id: str, positions: Sequence[int]) -> None:
        """A container has none of these any more."""
        holdings = call.holdings
        if holdings and len(holdings) == 1 and holdings[0].is_all(container_id, positions):
            ended, nothing_left = holdings[0].left, True  # nearly always
            call.holdings = None
        else:
            before = call.running
            nothing_left = call.answered(container_id, positions)
            ended = before - call.running
        self.line(call.function_id, call.app_id).running -= ended
        if nothing_left:
            mine = self.held.get(container_id)
            if mine is not None:
                mine.pop(call.call_id, None)

    def returned(self, container_id: str, call_id: str, start: int, stop: int) -> None:
        """A container gave back what it had not begun."""
        call = self.live.get(call_id)
        if call is not None:
            before = call.running
            call.let_go(container_id, start, stop)
            self.line(call.function_id, call.app_id).running -= before - call.running

    def emptied(self, container_id: str) -> None:
        """A container is gone with all that it held."""
        for call_id in self.held.pop(container_id, ()):
            self.returned(container_id, call_id, 0, 1 << 62)

    def counts(self, call: Call) -> dict[str, int]:
        """Inputs of a call by state."""
        running = call.running
        return {
            "waiting": max(0, call.accepted - call.ended - running),
            "running": running,
            "succeeded": call.succeeded,
            "failed": call.failed,
        }


def call_row(call: Call, now: float) -> dict[str, Any]:
    """Parameters of ``call_add``."""
    return {
        "seq": call.seq,
        "call_id": call.call_id,
        "function_id": call.function_id,
        "app_id": call.app_id,
        "verb": call.verb,
        "method": call.method,
        "parent_call": call.parent[0] if call.parent is not None else "",
        "parent_position": call.parent[1] if call.parent is not None else 0,
        "accepted": call.accepted,
        "total": call.total,
        "now": now,
    }


def chunk_row(call_id: str, one: Chunk) -> dict[str, Any]:
    """Parameters of ``chunk_add``."""
    sizes = struct.pack(f"!{one.count}I", *one.sizes) if one.count > 1 else None
    return {
        "call_id": call_id,
        "start": one.start,
        "count": one.count,
        "flags": one.flags,
        "sizes": sizes,
        "body": one.body,
    }


def done_row(call: Call, now: float, status: str = "", error: str | None = None) -> dict[str, Any]:
    """Parameters of ``call_done``; without a status that of a call whose inputs all have an output of their own."""
    return {
        "call_id": call.call_id,
        "accepted": call.accepted,
        "succeeded": call.succeeded,
        "failed": call.failed,
        "now": now,
        "status": status or ("failed" if call.failed else "success"),
        "error": error,
    }
