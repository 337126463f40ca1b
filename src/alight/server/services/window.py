"""Calls that come back from the store: after a restart, and those beyond what a function keeps in memory.

A million calls that nobody waits for are a million rows and a number. The next of them are fetched, by order of
arrival, when few of their function are left in memory.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Iterable

from alight.scheduler.events import Attempt, ItemsCame
from alight.server.services import results
from alight.server.services.book import Book, Line, done_row
from alight.server.services.call import Call, Chunk
from alight.server.services.functions import Functions
from alight.server.services.ranges import Ranges
from alight.store.base import Row, Statement, Store
from alight.wire import errors

WINDOW = 1024  # calls of a function in memory that nobody waits for
_LOW = WINDOW // 2
_INDEX = 4096  # outputs per visit when a call is taken up

log = logging.getLogger(__name__)


class Window:
    """Takes up calls. ``on_taken_up`` hears of each."""

    def __init__(self, store: Store, book: Book, functions: Functions) -> None:
        self._store = store
        self._book = book
        self._functions = functions
        self._waiting: dict[str, tuple[Attempt, ...]] = {}  # of calls that the scheduler has not heard of

    async def load(self) -> int:
        """Count what an earlier server process left, and fetch the first of each function. Returns how many inputs."""
        seq, number = await self._store.one("calls_last_seq"), await self._store.one("outputs_last_number")
        self._book.begin(seq["seq"] if seq is not None else 0, number["number"] if number is not None else 0)
        inputs = 0
        for row in await self._store.read("calls_open_counts"):
            if row["function_id"] not in self._functions.by_id:
                continue
            line = self._book.line(row["function_id"], row["app_id"])
            line.stored, line.inputs = row["calls"], row["inputs"]
            line.stored_inputs = line.inputs
            inputs += line.inputs
            await self._fetch(line)
        return inputs

    def is_full(self, line: Line) -> bool:
        """Whether one more call that nobody waits for stays in the store."""
        return line.stored > 0 or line.calls + line.entering >= WINDOW

    def refill(self, line: Line | None) -> None:
        """Fetch more when few are left."""
        if line is None or not line.stored or line.calls >= _LOW or line.fetching is not None:
            return
        line.fetching = asyncio.get_running_loop().create_task(self._refill(line))

    async def take_up(self, row: Row) -> Call | None:
        """An open call from its row, with what has come of it; None when its app is gone or it ended meanwhile."""
        call_id = row["call_id"]
        if row["function_id"] not in self._functions.by_id:
            return None
        attempts = await self._store.read("attempts_of_call", call_id=call_id)
        call = _from_row(row)
        if not await self._read_outputs(call):
            self._end(call)
            return None
        known = self._book.live.get(call_id)
        if known is not None or call_id in self._book.recent:
            return known  # it came, and perhaps went, while its row was read
        line = self._book.line(call.function_id, call.app_id)
        _one_less(line, call)
        self._enter(call, attempts)
        return call

    def release(self) -> None:
        """The machines have said what they hold: the scheduler hears of everything that was taken up."""
        self._book.released = True
        for call in list(self._book.live.values()):
            self.queue(call)

    def queue(self, call: Call) -> None:
        """Let the scheduler know of a call, if it does not."""
        if call.queued or call.parked:
            return
        self._book.queue(call, self._waiting.pop(call.call_id, ()))
        for position in call.items or ():
            self._book.inbox.put(ItemsCame(call.call_id, position))

    async def read_chunk(self, call: Call, position: int) -> Chunk | None:
        """The chunk of a position from the store, kept in memory while it is given out."""
        await self._store.flush()
        row = await self._store.one("chunk_at", call_id=call.call_id, position=position)
        known = call.chunk_at(position)
        if known is not None or row is None or call.over:
            return known
        chunk = _chunk(row)
        self._book.keep(call, chunk, forced=True)
        return chunk

    async def read_orphan(self, call: Call) -> None:
        """A call that was never written down comes from its caller: its outputs may be here."""
        await self._read_outputs(call)

    async def close(self) -> None:
        """Stop fetching."""
        for line in self._book.lines.values():
            if line.fetching is not None:
                line.fetching.cancel()

    # inside

    async def _refill(self, line: Line) -> None:
        try:
            await self._fetch(line)
        except errors.Error as error:
            log.error("waiting calls could not be read from the store: %s", error)
        finally:
            line.fetching = None
        if line.calls < _LOW and line.stored > line.writing:
            self.refill(line)

    async def _fetch(self, line: Line) -> None:
        rows = await self._store.read("calls_window", function_id=line.function_id, after=line.after, limit=WINDOW)
        if not rows:
            line.stored = line.stored_inputs = line.writing
            return
        # All at once for the function: a visit for each call would cost more than all of them.
        attempts: dict[str, list[Row]] = {}
        for one in await self._store.read("attempts_of_function", function_id=line.function_id):
            attempts.setdefault(one["call_id"], []).append(one)
        function = self._functions.by_id.get(line.function_id)
        has_items = function is not None and (
            function.spec.is_generator or any(method.is_generator for method in function.spec.methods)
        )
        for row in rows:
            line.after = max(line.after, row["seq"])
            if row["call_id"] in self._book.live:
                continue
            call = _from_row(row)
            if (call.accepted != 1 or call.total != 1 or has_items) and not await self._read_outputs(call):
                self._end(call)
                continue
            if row["call_id"] in self._book.live or row["call_id"] in self._book.recent:
                continue
            _one_less(line, call)
            self._enter(call, attempts.get(call.call_id, ()))

    def _enter(self, call: Call, attempts: Iterable[Row]) -> None:
        found = tuple(
            Attempt(one["position"], one["attempt"], one["retries"], one["failures"])
            for one in attempts
            if not call.is_done(one["position"])
        )
        self._book.enter(call)
        if found:
            self._waiting[call.call_id] = found
        if self._book.released:
            self.queue(call)

    def _end(self, call: Call) -> None:
        """All outputs are there, and the server was killed before it wrote that down."""
        line = self._book.line(call.function_id, call.app_id)
        _one_less(line, call)
        ended: list[Statement] = [("call_done", done_row(call, time.time()))]
        self._store.write_soon([*ended, ("chunks_of_call_drop", {"call_id": call.call_id})])

    async def _read_outputs(self, call: Call) -> bool:
        """Which inputs have ended. False when all have, and the call with them."""
        succeeded, failed, after = 0, 0, 0
        done = Ranges()
        while True:
            rows = await self._store.read("outputs_index", call_id=call.call_id, after=after, limit=_INDEX)
            for row in rows:
                after = row["number"]
                if row["kind"] == results.ITEMS:
                    call.items = call.items or {}
                    stop = row["first"] + row["count"]
                    call.items[row["start"]] = max(stop, call.items.get(row["start"], 0))
                elif row["kind"] == results.VALUES:
                    succeeded += done.add_all(results.from_row(row).positions)
                elif row["kind"] == results.TAKEN:
                    succeeded += done.add(row["start"], row["start"] + row["count"])
                elif row["kind"] == results.END:
                    new = done.add(row["start"], row["start"] + 1)
                    well = results.rest_of_head(row["head"]).get("status") == "success"
                    succeeded, failed = succeeded + (new if well else 0), failed + (0 if well else new)
            if len(rows) < _INDEX:
                break
        call.last = after
        call.done = done if done.count else None
        call.succeeded, call.failed = succeeded, failed
        return call.total is None or call.ended < call.total or call.total == 0


def _from_row(row: Row) -> Call:
    call = Call(row["call_id"], row["function_id"], row["app_id"])
    call.seq, call.verb, call.method, call.created_at = row["seq"], row["verb"], row["method"], row["created_at"]
    if row["parent_call"]:
        call.parent = (row["parent_call"], row["parent_position"])
    call.accepted, call.total = row["accepted"], row["total"]
    call.succeeded, call.failed = row["succeeded"], row["failed"]
    call.caller_gone = bool(row["caller_gone"])
    call.loaded = True
    call.waited = not call.verb.startswith(("spawn", "schedule"))
    return call


def _one_less(line: Line, call: Call) -> None:
    line.stored = max(0, line.stored - 1)
    line.stored_inputs = max(0, line.stored_inputs - (call.accepted - call.ended))


def _chunk(row: Row) -> Chunk:
    body, sizes = row["body"], row["sizes"]
    listed = struct.unpack(f"!{row['count']}I", sizes) if sizes is not None else (len(body),)
    return Chunk(row["start"], listed, body, row["flags"])
