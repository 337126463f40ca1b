"""Calls: looked at, listened to, ended.

User bytes pass through here and are never looked at. What callers send is ``accepting``'s, what comes of inputs
``outcomes``', what waits in the store ``window``'s, what goes to containers ``giving``'s.
"""

from __future__ import annotations

import asyncio
import logging

from alight.link.peer import Stream
from alight.scheduler.events import CallCancelled
from alight.server.events import Inbox
from alight.server.services import results
from alight.server.services.accepting import Accepting
from alight.server.services.book import Book, call_row
from alight.server.services.call import Call
from alight.server.services.functions import Functions
from alight.server.services.giving import Giving
from alight.server.services.outcomes import Outcomes
from alight.server.services.readers import Reader
from alight.server.services.recording import Recording
from alight.server.services.window import Window
from alight.store.base import Row, Statement, Store
from alight.wire import errors
from alight.wire.commands import Output
from alight.wire.states import InputState, ResultStatus

log = logging.getLogger(__name__)


class Calls:
    """Verbs on calls, and what the loop and the nodes do to their inputs."""

    def __init__(
        self, store: Store, functions: Functions, inbox: Inbox, bodies_in_memory: int, caller_grace: float = 120.0
    ) -> None:
        self._store = store
        self._functions = functions
        self._inbox = inbox
        self._grace = caller_grace
        self.book = Book(inbox, bodies_in_memory)
        self.window = Window(store, self.book, functions)
        self.recording = Recording(store)
        self.outcomes = Outcomes(store, self.book, self.window, self.recording)
        self.giving = Giving(store, self.book, self.window, self.outcomes, inbox)
        self.accepting = Accepting(store, functions, self.book, self.window, self.outcomes, caller_grace)
        self.live = self.book.live
        self.init_failures = self.book.init_failures

    async def load(self) -> int:
        """Take up the calls of an earlier server process; returns how many inputs. ``release`` queues them."""
        count = await self.window.load()
        for row in await self._store.read("calls_unended"):
            call = self.live.get(row["call_id"])
            if call is None and row["function_id"] in self._functions.by_id:
                full = await self._store.one("call_by_id", call_id=row["call_id"])
                call = await self.window.take_up(full) if full is not None else None
            if call is not None:
                self.accepting.sender_left(call)
        return count

    def release(self) -> None:
        """The machines have said what they hold."""
        self.window.release()

    # asking

    def counts(self, call_id: str) -> dict[str, int] | None:
        """Inputs of a call by state: waiting, running, succeeded, failed. None when it is not in memory."""
        call = self.live.get(call_id)
        return self.book.counts(call) if call is not None else None

    def line(self, function_id: str) -> tuple[int, int]:
        """How many inputs of a function wait, and how many lie in containers."""
        line = self.book.lines.get(function_id)
        return (max(0, line.inputs - line.running), line.running) if line is not None else (0, 0)

    def beyond(self, function_id: str) -> int:
        """How many inputs of a function wait in the store alone."""
        line = self.book.lines.get(function_id)
        return line.stored_inputs if line is not None else 0

    async def find(self, call_id: str) -> tuple[Call | None, Row]:
        """A call with its row, live or over. Raises NotFoundError."""
        call = self.live.get(call_id)
        if call is None:
            await self._store.flush()
            call = self.live.get(call_id)
        if call is not None and not call.strange:
            return call, call_row(call, call.created_at)
        row = await self._store.one("call_by_id", call_id=call_id)
        if row is None or row["status"] == results.ORPHAN:
            raise errors.NotFoundError(f"there is no call {call_id}", hint="results are kept for 7 days")
        return self.live.get(call_id), row

    async def reader(  # noqa: PLR0913  what it wants is what it has
        self,
        stream: Stream,
        call: Call | None,
        row: Row,
        *,
        start: int = 0,
        stop: int | None = None,
        have: tuple[tuple[int, int], ...] = (),
        items: int = 0,
    ) -> Reader:
        """Who wants what came of a call. Give it back with ``leave``. Raises OutputExpiredError."""
        if call is None and row["done_at"] is None:
            call = await self.window.take_up(row)  # it waits in the store
            if call is None:
                await self._store.flush()
                row = await self._store.one("call_by_id", call_id=row["call_id"]) or row
        if call is None and row["status"] == results.EXPIRED:
            raise errors.OutputExpiredError(f"the results of {row['call_id']} were kept for their time and are gone")
        reader = Reader(self._store, stream, call, row, start=start, stop=stop, have=have, items=items)
        if call is not None:
            self.listen(call, reader)
        return reader

    def reader_now(self, stream: Stream, call: Call) -> Reader:
        """The reader of a call that has just begun."""
        return Reader(self._store, stream, call)

    def listen(self, call: Call, reader: Reader) -> None:
        """Let a reader hear of a call's outputs from now on."""
        reader.on_read = lambda size: self.recording.on_read(call, size)
        if call.readers is None:
            call.readers = []
        call.readers.append(reader)

    def leave(self, reader: Reader) -> None:
        """A reader has what it wants, or is gone."""
        call = reader.call
        if call is not None and call.readers and reader in call.readers:
            call.readers.remove(reader)
            if call.over and call.items and call.waited and not reader.stream.broken:
                drop: list[Statement] = [("items_drop", {"call_id": call.call_id})]
                asyncio.get_running_loop().call_later(self._grace, self._write_quietly, drop)

    # ending

    async def cancel(self, call_id: str, why: str, *, kill: bool = False) -> None:
        """Nobody wants it any more, nor what it called. What is done stays done."""
        call, row = await self.find(call_id)
        error = {"code": "remote", "message": why}
        if call is not None:
            self._inbox.put(CallCancelled(call_id, kill))
            self.outcomes.end_rest(call, Output(call_id, 0, 1, ResultStatus.CANCELLED, error=error))
        elif row["done_at"] is None:
            found = await self.window.take_up(row)
            if found is not None:
                await self.cancel(call_id, why, kill=kill)
                return
        children = list(self.book.children.get(call_id, ()))
        children += [row["call_id"] for row in await self._store.read("calls_open_children", call_id=call_id)]
        for child_id in dict.fromkeys(children):
            await self.cancel(child_id, why, kill=kill)

    def forget_app(self, app_id: str, reason: str) -> None:
        """The app has ended: whoever waits hears so. The rows are written with the app's own."""
        error = {"code": "remote", "message": f"the app was stopped{f': {reason}' if reason else ''}"}
        for function_id in [line.function_id for line in self.book.lines.values() if line.app_id == app_id]:
            line = self.book.lines.pop(function_id)
            if line.fetching is not None:
                line.fetching.cancel()
        for call in [one for one in self.live.values() if one.app_id == app_id]:
            said = {
                "call_id": call.call_id,
                "state": InputState.DONE,
                "status": ResultStatus.CANCELLED,
                "error": error,
            }
            self.outcomes.forget(call, said)
        for function_id in [line.function_id for line in self.book.lines.values() if line.app_id == app_id]:
            del self.book.lines[function_id]

    async def drain(self) -> None:
        """Wait for what is being written down."""
        for call in self.live.values():
            if call.timer is not None:
                call.timer.cancel()
        await self.window.close()
        await self.outcomes.drain()

    def _write_quietly(self, statements: list[Statement]) -> None:
        try:
            self._store.write_soon(statements)
        except errors.ServiceError as error:
            log.info("not written down, the server is stopping: %s", error)
