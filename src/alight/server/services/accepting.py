"""Inputs that callers send: accepted means kept, and what is sent again is taken once.

A connected caller's inputs go to disk in the same commits as everybody's, without waiting: after a crash the caller
sends them again by the call's id. A call that nobody waits for is on disk before its caller hears "accepted".
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from alight.link.turn import turn_of
from alight.scheduler.events import InputsArrived
from alight.server import faults
from alight.server.services import results
from alight.server.services.book import Book, Line, call_row, chunk_row
from alight.server.services.call import Call, Chunk
from alight.server.services.functions import Functions
from alight.server.services.outcomes import Outcomes
from alight.server.services.published import Published
from alight.server.services.window import Window
from alight.store.base import Row, Statement, Store
from alight.wire import chunk, errors, ids
from alight.wire.calling import CallStart
from alight.wire.codec import Buffer

_AHEAD = 8 << 20  # bytes of one call that may be on their way to the disk before its caller has to wait

log = logging.getLogger(__name__)


class Plain(Protocol):
    """What is said of a call of one small input whose caller waits."""

    call_id: str
    verb: str
    method: str
    parent_input: str


class Sending:
    """One caller's way of sending inputs: how much of it is on its way to the disk, and whether that failed."""

    def __init__(self, call: Call, have: tuple[tuple[int, int], ...] = ()) -> None:
        self.call = call
        self.have = have  # the caller has the answers of these, and perhaps nobody else
        self.under_way = 0
        self.error: Exception | None = None


class Accepting:
    """Takes in calls and their inputs. A caller who had not sent all of them has ``grace`` seconds to come back."""

    def __init__(
        self, store: Store, functions: Functions, book: Book, window: Window, outcomes: Outcomes, grace: float
    ) -> None:
        self._store = store
        self._functions = functions
        self._inbox = book.inbox
        self._book = book
        self._window = window
        self._outcomes = outcomes
        self._recording = outcomes.recording
        self._grace = grace
        self._turn = turn_of(asyncio.get_running_loop())
        # Ids sort by time: a call that is older than this process may be in the store already.
        self._born = ids.new_id(ids.CALL)

    def start_now(self, asked: Plain, body: bytes, function: Published) -> Call | None:
        """A connected caller's new call of one input; None, with nothing done, where that has to wait or look."""
        call_id = asked.call_id
        if (
            call_id in self._book.live
            or call_id in self._book.recent
            or call_id < self._born
            or self._book.room < len(body)
            or self._recording.is_choked
            or not ids.is_id(call_id, ids.CALL)
        ):
            return None
        faults.at("received")
        call = Call(call_id, function.function_id, function.app_id)
        call.seq = self._book.next_seq()
        call.verb, call.method, call.waited = asked.verb, asked.method, True
        if asked.parent_input:
            call.parent = ids.of_input(asked.parent_input)
        call.created_at = time.time()
        call.accepted = call.total = 1
        one = call.unwritten = Chunk(0, (len(body),), body, 0)
        self._book.keep(call, one)
        self._enter_one(call)
        self._turn.afterwards(lambda: self._recording.begin(call))
        call.queued = True
        self._inbox.put(InputsArrived(call_id, call.function_id, ((0, 1),), call.parent))
        return call

    async def start(self, asked: CallStart, body: bytes, function: Published) -> tuple[Call | None, Row | None]:
        """Accept a call, or attach to it when it is known. Returns it, or the row of one that is over.

        One input of a call that nobody waits for is on disk when this returns; ``many`` are still to come (``accept``).
        Raises InvalidError, ConflictError for another's call, ResourceExhaustedError when the disk is full.
        """
        if not ids.is_id(asked.call_id, ids.CALL):
            raise errors.InvalidError("a call has an id that its caller made")
        faults.at("received")
        known = self._book.live.get(asked.call_id)
        orphan = False
        if known is None and (asked.resend or asked.call_id in self._book.recent or asked.call_id < self._born):
            await self._store.flush()
            row = await self._store.one("call_by_id", call_id=asked.call_id)
            known = self._book.live.get(asked.call_id)
            if known is None and row is not None:
                _check_same(row["function_id"], asked)
                orphan = row["status"] == results.ORPHAN
                if row["done_at"] is None:
                    known = await self._window.take_up(row)
                    if known is None:
                        return None, await self._store.one("call_by_id", call_id=asked.call_id) or row
                elif not orphan:
                    return None, row
        if known is not None:
            _check_same(known.function_id, asked)
            if known.timer is not None:
                known.timer.cancel()
                known.timer = None
            if known.strange:
                await self._claim(known, asked, body, function)
            return known, None
        if not orphan:
            self._check_disk()
        call = self._new(asked, function)
        if orphan:
            await self._claim(call, asked, body, function)
            return (call, None) if not call.over else (None, await self._store.one("call_by_id", call_id=call.call_id))
        if asked.many:
            self._begin_many(call)
        else:
            await self._begin_one(call, asked, body)
        return call, None

    def resume(self, sending: Sending) -> None:
        """A caller is back that has answers which may have died with an earlier server: they count."""
        call = sending.call
        for low, high in sending.have:
            self._outcomes.taken(call, low, min(high, call.accepted))

    async def accept(self, sending: Sending, said: chunk.Inputs, body: Buffer) -> None:
        """Inputs of a call come. Returns when there is room for more.

        Raises InvalidError for what does not fit, ResourceExhaustedError when the disk takes no more: what was accepted
        before is kept.
        """
        call, count = sending.call, len(said.sizes)
        if said.call_id != call.call_id or not count or sum(said.sizes) != len(body) or count > chunk.MOST:
            raise errors.InvalidError("a chunk of inputs does not fit its call, its sizes or its body")
        if said.start > call.accepted:
            raise errors.InvalidError(f"inputs before {said.start} are missing: {call.accepted} have come")
        if said.stop <= call.accepted or call.over or call.total is not None:
            return  # sent again, or of a call that has ended meanwhile
        self._check_disk()
        start, sizes = call.accepted, said.sizes
        if said.start < start:  # its first part was sent before
            again = start - said.start
            sizes, body = sizes[again:], memoryview(body)[sum(sizes[:again]) :]
        one = Chunk(start, sizes, body, said.flags & chunk.REFERENCE)
        call.accepted = said.stop
        self._line(call).inputs += one.count
        self._note_reference(call, one)
        row = chunk_row(call.call_id, one)
        progress = {"call_id": call.call_id, "accepted": call.accepted, "total": None}
        statements: list[Statement] = [("chunk_add", row), ("call_accepted", progress)]
        size = len(body)
        sending.under_way += size

        def written(error: Exception | None) -> None:
            sending.under_way -= size
            sending.error = sending.error or error
            faults.at("committed")

        self._store.write_then(statements, written)
        for low, high in sending.have:
            if low < said.stop and start < high:
                self._outcomes.taken(call, max(low, start), min(high, said.stop))
        kept = not call.parked and self._book.keep(call, one)
        if not call.parked:
            self._arrived(call, start)
        if not kept or sending.under_way > _AHEAD:
            await self._flush(sending)
        self._raise_failed(sending)
        if said.flags & chunk.LAST:
            self.end_inputs(sending)

    def end_inputs(self, sending: Sending) -> None:
        """The caller has sent all inputs."""
        call = sending.call
        if call.total is not None or call.over:
            return
        call.total = call.accepted
        self._store.write_soon(
            [("call_accepted", {"call_id": call.call_id, "accepted": call.accepted, "total": call.total})]
        )
        self._unpark(call)
        self._outcomes.finish_if_over(call)

    async def all_kept(self, sending: Sending) -> None:
        """Return when everything that was accepted is on disk. Raises ResourceExhaustedError."""
        await self._flush(sending)
        self._raise_failed(sending)

    def sender_left(self, call: Call) -> None:
        """A caller is gone that had not sent all inputs: it has its time to come back."""
        if call.total is None and not call.over and not call.senders and call.timer is None:
            call.timer = asyncio.get_running_loop().call_later(self._grace, self._caller_gone, call)

    # inside

    def _new(self, asked: CallStart, function: Published) -> Call:
        call = Call(asked.call_id, function.function_id, function.app_id)
        self._fill(call, asked)
        return call

    def _fill(self, call: Call, asked: CallStart) -> None:
        call.seq = self._book.next_seq()
        call.verb, call.method, call.waited = asked.verb, asked.method, asked.wait
        call.parent = ids.of_input(asked.parent_input) if asked.parent_input else None
        call.created_at = time.time()

    def _only_chunk(self, call: Call, asked: CallStart, body: bytes) -> Chunk:
        call.accepted = call.total = 1
        if asked.payload.blob:
            body = chunk.reference(asked.payload.blob, asked.payload.size)
            one = Chunk(0, (len(body),), body, chunk.REFERENCE)
            self._note_reference(call, one)
            return one
        return Chunk(0, (len(body),), body, chunk.JSON if asked.json else 0)

    def _enter_one(self, call: Call) -> None:
        self._book.enter(call)
        self._line(call).inputs += 1

    async def _begin_one(self, call: Call, asked: CallStart, body: bytes) -> None:
        one = self._only_chunk(call, asked, body)
        statements: list[Statement] = [
            ("call_add", call_row(call, call.created_at)),
            ("chunk_add", chunk_row(call.call_id, one)),
        ]
        line = self._line(call)
        if asked.wait:
            kept = self._book.keep(call, one)
            self._enter_one(call)
            if kept:
                self._store.write_soon(statements)
            else:
                await self._store.write(statements)
            if not call.over and not call.queued:
                self._book.queue(call)
            return
        parked = self._window.is_full(line)
        if parked:
            line.stored += 1
            line.stored_inputs += 1
            line.writing += 1
        else:
            line.entering += 1
        line.inputs += 1
        try:
            await self._store.write(statements)
        except BaseException:
            line.inputs -= 1
            line.stored -= parked
            line.stored_inputs -= parked
            raise
        finally:
            line.writing -= parked
            line.entering -= not parked
        faults.at("committed")
        if call.function_id not in self._functions.by_id:
            raise errors.NotFoundError("the app was stopped before this call was accepted")
        if parked:
            self._window.refill(line)
        elif call.call_id not in self._book.live:
            self._book.keep(call, one)
            self._book.enter(call)
            self._book.queue(call)

    def _begin_many(self, call: Call) -> None:
        call.parked = not call.waited and self._window.is_full(self._line(call))
        call.queued = True
        self._book.enter(call)
        self._store.write_soon([("call_add", call_row(call, call.created_at))])

    async def _claim(self, call: Call, asked: CallStart, body: bytes, function: Published) -> None:
        """The caller of a call that was never written down is back: what came of it meanwhile counts."""
        if call.strange:
            self._fill(call, asked)
        await self._store.flush()
        await self._window.read_orphan(call)
        call.strange = False
        call.loaded = True
        statements: list[Statement] = []
        if not asked.many:
            one = self._only_chunk(call, asked, body)
            statements.append(("chunk_add", chunk_row(call.call_id, one)))
            self._book.keep(call, one, forced=True)
        statements.insert(0, ("call_add", call_row(call, call.created_at)))
        if call.call_id not in self._book.live:
            self._book.enter(call)
        self._store.write_soon(statements)
        if not asked.many:
            self._line(call).inputs += 1 - call.ended
            self._arrived(call, 0)
            self._outcomes.finish_if_over(call)
        else:
            self._line(call).inputs -= call.ended
        call.queued = True

    def _arrived(self, call: Call, start: int) -> None:
        """Tell the scheduler of inputs from ``start`` on that it does not know."""
        ranges: Sequence[tuple[int, int]] = call.open_ranges(start)
        if call.arrived is not None:
            ranges = [part for low, high in ranges for part in call.arrived.missing(low, high)]
        if ranges:
            self._inbox.put(InputsArrived(call.call_id, call.function_id, tuple(ranges), call.parent))

    def _unpark(self, call: Call) -> None:
        if not call.parked:
            return
        call.parked = False
        line = self._line(call)
        if self._window.is_full(line) and call.seq > line.after:
            self._book.leave(call)
            line.stored += 1
            line.stored_inputs += call.accepted - call.ended
            self._window.refill(line)
        else:
            self._book.queue(call)

    def _caller_gone(self, call: Call) -> None:
        call.timer = None
        if call.over or call.total is not None or call.senders:
            return
        log.info("the caller of %s is gone: %d inputs were accepted", call.call_id, call.accepted)
        call.total, call.caller_gone = call.accepted, True
        self._write_quietly([("call_caller_gone", {"call_id": call.call_id, "total": call.total})])
        self._unpark(call)
        self._outcomes.finish_if_over(call)

    def _note_reference(self, call: Call, one: Chunk) -> None:
        if one.flags & chunk.REFERENCE:
            if one.count != 1:
                raise errors.InvalidError("a reference travels alone in its chunk")
            if call.references is None:
                call.references = {}
            call.references[one.start] = chunk.read_reference(one.body)[0]

    def _line(self, call: Call) -> Line:
        return self._book.line(call.function_id, call.app_id)

    async def _flush(self, sending: Sending) -> None:
        try:
            await self._store.flush()
        except errors.ResourceExhaustedError as error:
            sending.error = sending.error or error

    def _check_disk(self) -> None:
        """Raise ResourceExhaustedError while too much of what calls gave waits for a full disk."""
        if self._recording.is_choked:
            raise errors.ResourceExhaustedError(
                "the server takes no more inputs: its disk is full, and the results of others wait to be written",
                hint="free some space there; what was accepted before is kept, and goes on then",
            )

    def _raise_failed(self, sending: Sending) -> None:
        if sending.error is None:
            return
        if isinstance(sending.error, errors.ResourceExhaustedError):
            raise errors.ResourceExhaustedError(
                f"the server takes no more inputs of this call: {sending.error}",
                hint="free some space there; the inputs that were accepted before are kept and run",
            )
        raise sending.error

    def _write_quietly(self, statements: list[Statement]) -> None:
        try:
            self._store.write_soon(statements)
        except errors.ServiceError as error:
            log.info("not written down, the server is stopping: %s", error)


def _check_same(function_id: str, asked: CallStart) -> None:
    if function_id and function_id != asked.function_id:
        raise errors.ConflictError(f"the call {asked.call_id} is one of another function")
