"""Calls: accepted means kept; answered once, guarded by input id and attempt.

A connected caller's input goes to disk in the same commits as everybody's, without waiting: after a crash the caller
sends it again by id. A call that nobody waits for is on disk before its caller hears "accepted". A node keeps an output
until the row that holds it is committed. User bytes pass through here and are never looked at.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alight.scheduler.events import AttemptEnded, InputArrived, InputCancelled
from alight.server.events import Inbox
from alight.server.services import results
from alight.server.services.functions import Functions, Published
from alight.server.services.results import Result
from alight.store.base import Statement, Store, Ticket
from alight.wire import errors, ids
from alight.wire.commands import Command, GiveInput, Output
from alight.wire.failure import Failure
from alight.wire.messages import CallStart, Payload
from alight.wire.states import InputState, ResultStatus

log = logging.getLogger(__name__)
_REMEMBERED = 65_536


@dataclass
class Live:
    """An input that is not done. ``body`` is None when it has to be read from the store."""

    input_id: str
    call_id: str
    function_id: str
    app_id: str
    payload: Payload
    method: str = ""
    parent: str = ""
    body: bytes | None = b""
    attempt: int = 1
    state: str = InputState.WAITING
    container: str = ""
    adopted: bool = False
    answer: tuple[Output, bytes] | None = None  # waits for the scheduler's word: final, or tried again
    ticket: Ticket | None = None  # of the write that adds it
    listeners: list[Callable[[Result], None]] = field(default_factory=list)  # told before ``done`` is set
    done: asyncio.Future[Result] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Calls:
    """Verbs on calls, and what the loop and the nodes do to their inputs."""

    def __init__(self, store: Store, functions: Functions, inbox: Inbox, bodies_in_memory: int) -> None:
        self._store = store
        self._functions = functions
        self._inbox = inbox
        self._room = bodies_in_memory
        # Ids sort by time: an input that is older than this process may be in the store already.
        self._born = ids.new_id(ids.INPUT)
        self._finished: OrderedDict[str, None] = OrderedDict()
        self.live: dict[str, Live] = {}
        self._by_call: dict[str, str] = {}
        self._recovered: dict[str, InputArrived] = {}
        self.init_failures: dict[str, tuple[Failure | None, bytes]] = {}  # by function: what importing it raised
        self.let_go: Callable[[str], None] = lambda blob: None
        self.acknowledge: Callable[[str, str], None] = lambda container, input_id: None
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> int:
        """Take up the inputs of an earlier server process; returns how many. They are queued by ``release``."""
        count = 0
        for row in await self._store.read("inputs_unfinished"):
            if row["function_id"] not in self._functions.by_id:
                continue
            payload = Payload(row["blob"], row["size"])
            live = Live(
                row["input_id"],
                row["call_id"],
                row["function_id"],
                row["app_id"],
                payload,
                row["method"] or "",
                row["parent_input"] or "",
                body=b"" if row["blob"] else None,
                attempt=row["attempt"],
            )
            self._enter(live)
            self._recovered[live.input_id] = InputArrived(
                live.input_id, live.function_id, live.attempt, row["retries"], row["failures"], live.parent
            )
            count += 1
        return count

    def release(self, input_id: str | None = None) -> None:
        """Queue what was taken up: all, once the machines have said what they hold, or the one that a machine names."""
        for name in list(self._recovered) if input_id is None else [input_id]:
            arrived = self._recovered.pop(name, None)
            if arrived is not None and name in self.live:
                self._inbox.put(arrived)

    async def start(self, asked: CallStart, body: bytes, function: Published) -> Live | Result:
        """Accept a call, or attach to it when it is known. Returns the live input, or its result.

        With ``wait=False`` it returns after the commit. Raises ResourceExhaustedError when the disk is full.
        """
        if not ids.is_id(asked.input_id, ids.INPUT) or not ids.is_id(asked.call_id, ids.CALL):
            raise errors.InvalidError("a call and its input have ids that their caller made")
        known = self.live.get(asked.input_id)
        if known is not None:
            self._attach(known, asked)
            return known
        if asked.resend or asked.input_id in self._finished or asked.input_id < self._born:
            found = await self._find_finished(asked)
            if found is not None:
                return found
        live = _live(asked, body, function)
        statements = _add_statements(live, time.time())
        if asked.wait and self._room >= len(body):
            self._store.write_soon(statements)
        else:
            await self._store.write(statements)
            if asked.input_id in self.live:  # sent twice while the first was on its way to disk
                return self.live[asked.input_id]
            if function.function_id not in self._functions.by_id:
                raise errors.NotFoundError("the app was stopped before this call was accepted")
        self._enter(live)
        self._inbox.put(InputArrived(live.input_id, live.function_id, parent=live.parent))
        return live

    def start_now(self, asked: CallStart, body: bytes, function: Published) -> Live | None:
        """``start`` for a connected caller's new call; None, with nothing done, where that has to wait or look."""
        input_id = asked.input_id
        if (
            not asked.wait
            or asked.resend
            or input_id in self.live
            or input_id in self._finished
            or input_id < self._born
            or self._room < len(body)
            or not (ids.is_id(input_id, ids.INPUT) and ids.is_id(asked.call_id, ids.CALL))
        ):
            return None
        live = _live(asked, body, function)
        live.ticket = self._store.write_soon(_add_statements(live, time.time()), independent=True)
        self._enter(live)
        self._inbox.put(InputArrived(input_id, live.function_id, parent=live.parent))
        return live

    async def find(self, call_id: str, index: int) -> Live | tuple[Result, str]:
        """A call's input, or its result with its app's id. Raises NotFoundError, OutputExpiredError."""
        live = self.live.get(self._by_call.get(call_id, ""))
        if live is not None and index == 0:
            return live
        await self._store.flush()
        row = await self._store.one("input_of_call", call_id=call_id, position=index)
        if row is None:
            raise errors.NotFoundError(f"there is no call {call_id}", hint="results are kept for 7 days")
        if row["state"] != InputState.DONE:
            found = self.live.get(row["input_id"])
            if found is None:
                raise errors.ServiceError(f"the call {call_id} is ending: ask again")
            return found
        return results.from_row(row, call_id), row["app_id"]

    def body_waits(self, input_id: str) -> bool:
        """Whether an input's arguments have to be read from the store."""
        live = self.live.get(input_id)
        return live is not None and live.body is None

    async def body(self, input_id: str) -> bytes:
        """The arguments of an input, from the store."""
        row = await self._store.one("input_body", input_id=input_id)
        return bytes(row["body"] or b"") if row is not None else b""

    def give(
        self, input_id: str, attempt: int, container_id: str, body: bytes | None = None
    ) -> tuple[Command, bytes] | None:
        """The command that gives an input to a container; None when it has ended meanwhile."""
        live = self.live.get(input_id)
        if live is None or live.attempt != attempt:
            return None
        live.state, live.container, live.adopted = InputState.RUNNING, container_id, False
        function = self._functions.by_id.get(live.function_id)
        timeout = function.spec.timeout if function is not None else 300.0
        give = GiveInput(container_id, input_id, live.call_id, attempt, live.payload, live.method, timeout)
        return Command("give", container=container_id, give=give), (body if live.body is None else live.body) or b""

    def on_output(self, output: Output, body: bytes, app_id: str, function_id: str) -> None:
        """A node brings the end of an attempt. Late and foreign ones change nothing, and are acknowledged."""
        self.release(output.input_id)
        live = self.live.get(output.input_id)
        if live is None:
            self._inbox.put(AttemptEnded(output.input_id, output.attempt, output.container, output.status))
            self._background(self._keep_orphan(output, body, app_id, function_id))
            return
        foreign = live.function_id != function_id or (live.container and live.container != output.container)
        late = output.attempt != live.attempt and not (live.adopted and live.container == output.container)
        if foreign or late:
            log.info("an output of %s attempt %d came late from %s", output.input_id, output.attempt, output.container)
            self._inbox.put(AttemptEnded(output.input_id, output.attempt, output.container, output.status))
            self.acknowledge(output.container, output.input_id)
            return
        live.answer = (output, body)
        self._inbox.put(AttemptEnded(output.input_id, live.attempt, output.container, output.status))

    def adopted(self, input_id: str, container_id: str) -> None:
        """A node that came back runs this input."""
        live = self.live.get(input_id)
        if live is not None:
            live.state, live.container, live.adopted = InputState.RUNNING, container_id, True

    def adopt_unknown(self, input_id: str, function: Published, container_id: str) -> None:
        """A node holds an input that the store never heard of: its caller will come back for it."""
        if input_id in self.live or input_id in self._finished:
            return
        live = Live(input_id, "", function.function_id, function.app_id, Payload(), body=None)
        live.state, live.container, live.adopted = InputState.RUNNING, container_id, True
        self.live[input_id] = live

    def finish(self, input_id: str) -> None:
        """The answer that came is final: tell who waits, write it down, then let the node forget it."""
        live = self.live.get(input_id)
        if live is None or live.answer is None:
            return
        output, body = live.answer
        result = results.from_output(output, body, live.call_id, live.attempt)
        self._settle(live, result)
        self._keep(live, result, acknowledge=True)

    def again(self, input_id: str, attempt: int, retries: int, failures: int) -> None:
        """The input is tried again: earlier attempts' answers are late from now on."""
        live = self.live.get(input_id)
        if live is None:
            return
        if live.answer is not None:
            self.acknowledge(live.answer[0].container, input_id)
        live.attempt, live.state, live.container, live.answer, live.adopted = (
            attempt,
            InputState.WAITING,
            "",
            None,
            False,
        )
        live.ticket = None  # its result belongs after this in the store
        row = {"input_id": input_id, "attempt": attempt, "retries": retries, "failures": failures}
        self._store.write_soon([("input_again", row)])

    def fail(self, input_id: str, status: str, error: dict[str, Any] | None) -> None:
        """The input ends without an answer of its own."""
        live = self.live.get(input_id)
        if live is None:
            return
        failure, body = None, b""
        if status == ResultStatus.INIT_FAILURE:
            failure, body = self.init_failures.get(live.function_id, (None, b""))
        output = Output(input_id, live.attempt, status, live.container, failure=failure, error=error)
        result = results.from_output(output, body, live.call_id, live.attempt)
        self._settle(live, result)
        self._keep(live, result, acknowledge=False)

    def cancel(self, input_id: str, why: str, *, kill: bool = False) -> None:
        """Nobody wants it any more, nor what it called."""
        live = self.live.get(input_id)
        if live is None:
            return
        self._inbox.put(InputCancelled(input_id, kill))
        self.fail(input_id, ResultStatus.CANCELLED, {"code": "remote", "message": why})
        for child in [one.input_id for one in self.live.values() if one.parent == input_id]:
            self.cancel(child, why, kill=kill)

    def forget_app(self, app_id: str, reason: str) -> None:
        """The app has ended: whoever waits hears so. The rows are written with the app's own."""
        message = f"the app was stopped{f': {reason}' if reason else ''}"
        for live in [one for one in self.live.values() if one.app_id == app_id]:
            error = {"code": "remote", "message": message}
            output = Output(live.input_id, live.attempt, ResultStatus.CANCELLED, live.container, error=error)
            self._settle(live, results.from_output(output, b"", live.call_id, live.attempt))
            self.let_go(live.payload.blob)

    async def drain(self) -> None:
        """Wait for what is being written down."""
        await self._store.flush()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # inside

    def _enter(self, live: Live) -> None:
        self.live[live.input_id] = live
        self._by_call[live.call_id] = live.input_id
        if live.body:
            self._room -= len(live.body)
            if self._room < 0:  # it is in the store; memory is for what will run soon
                self._room += len(live.body)
                live.body = None

    def _settle(self, live: Live, result: Result) -> None:
        self.live.pop(live.input_id, None)
        self._by_call.pop(live.call_id, None)
        self._room += len(live.body or b"")
        self._finished[live.input_id] = None
        if len(self._finished) > _REMEMBERED:
            self._finished.popitem(last=False)
        for tell in live.listeners:
            tell(result)
        if not live.done.done():
            live.done.set_result(result)

    def _attach(self, live: Live, asked: CallStart) -> None:
        if live.call_id == asked.call_id:
            return
        if live.call_id:
            raise errors.ConflictError(f"the input {asked.input_id} belongs to another call")
        live.call_id, live.body, live.payload = asked.call_id, b"", asked.payload
        self._by_call[live.call_id] = live.input_id
        self._store.write_soon(_add_statements(live, time.time()))

    async def _find_finished(self, asked: CallStart) -> Result | None:
        await self._store.flush()
        row = await self._store.one("input_by_id", input_id=asked.input_id)
        if row is None or row["state"] != InputState.DONE:
            return None
        if row["call_id"] == asked.input_id:
            claim = {"input_id": asked.input_id, "call_id": asked.call_id}
            await self._store.write([("orphan_claim", claim)])
        elif row["call_id"] != asked.call_id:
            raise errors.ConflictError(f"the input {asked.input_id} belongs to another call")
        return results.from_row(row, asked.call_id)

    def _keep(self, live: Live, result: Result, *, acknowledge: bool) -> None:
        """Write a result down, with others'; its node may forget it once it is on disk."""
        row = results.to_row(result, time.time())
        statements: list[Statement] = [("input_done", row)]
        if not live.call_id:
            statements = [("orphan_done", {**row, "function_id": live.function_id, "app_id": live.app_id})]
        if result.update.payload.blob:
            statements.append(_blob_ref(result.update.payload.blob, live.input_id))
        container, input_id = result.update.container, live.input_id

        def written(error: Exception | None) -> None:
            if error is not None:
                # Its node keeps it and brings it again when it reconnects.
                log.error("the result of %s could not be written down: %s", input_id, error)
                return
            if acknowledge:
                self.acknowledge(container, input_id)
            self.let_go(live.payload.blob)  # as it is with small arguments: an input that is done needs none

        self._store.write_then(statements, written, live.ticket)

    async def _keep_orphan(self, output: Output, body: bytes, app_id: str, function_id: str) -> None:
        result = results.from_output(output, body, "", output.attempt)
        row = {**results.to_row(result, time.time()), "function_id": function_id, "app_id": app_id}
        try:
            await self._store.write([("orphan_done", row)])
        except errors.Error as error:
            log.error("an output of %s could not be written down: %s", output.input_id, error)
            return
        self._finished[output.input_id] = None
        self.acknowledge(output.container, output.input_id)

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _live(asked: CallStart, body: bytes, function: Published) -> Live:
    return Live(
        asked.input_id,
        asked.call_id,
        function.function_id,
        function.app_id,
        asked.payload,
        asked.method,
        asked.parent_input,
        body,
    )


def _add_statements(live: Live, now: float) -> list[Statement]:
    call = {
        "call_id": live.call_id,
        "function_id": live.function_id,
        "app_id": live.app_id,
        "method": live.method,
        "parent_input": live.parent,
        "now": now,
    }
    entry = {
        "input_id": live.input_id,
        "call_id": live.call_id,
        "position": 0,
        "function_id": live.function_id,
        "app_id": live.app_id,
        "body": live.body or None,
        "blob": live.payload.blob,
        "size": live.payload.size,
        "now": now,
    }
    statements: list[Statement] = [("call_add", call), ("input_add", entry)]
    if live.payload.blob:
        statements.append(_blob_ref(live.payload.blob, live.input_id))
    return statements


def _blob_ref(digest: str, holder: str) -> Statement:
    return ("blob_ref_add", {"digest": digest, "holder": holder, "now": time.time()})
