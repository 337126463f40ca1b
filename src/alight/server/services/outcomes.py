"""What comes of inputs: from the frame that a machine brings to whoever waits and to the rows that say so.

The scheduler is the guard. A frame waits here for its word, within one turn of the loop; positions that it does not
call finished do not count, whatever the frame says. Frames that come twice, late or from somebody else change nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from alight.link.turn import turn_of
from alight.scheduler.events import AttemptsEnded, ItemsCame
from alight.server import faults
from alight.server.services import results
from alight.server.services.book import Book, call_row, done_row
from alight.server.services.call import Call
from alight.server.services.frame import Frame
from alight.server.services.recording import Recording
from alight.server.services.results import END, ITEMS, REST, TAKEN, VALUES, Recorded
from alight.server.services.window import Window
from alight.server.tally import Tally
from alight.store.base import Statement, Store
from alight.wire import chunk, errors
from alight.wire.codec import Buffer
from alight.wire.commands import Output
from alight.wire.states import ResultStatus

_SWEEP = 1024  # inputs that have ended before their arguments' rows are deleted together
_KEPT_TO_RETRY = 64 << 20  # bytes of arguments of one call that failed

log = logging.getLogger(__name__)


class Outcomes:
    """Takes answers in.

    ``let_go`` hears of a blob that nobody needs, ``on_over`` of a call that is over: what came of it is on its way to
    the store, ``on_failed`` of inputs that ended badly and how many they are, or that are tried again. ``follows`` says
    whether a container is one of a cluster whose values are nobody's.
    """

    def __init__(self, store: Store, book: Book, window: Window, recording: Recording) -> None:
        self._store = store
        self._book = book
        self._window = window
        self.recording = recording
        self._pending: dict[tuple[str, str], list[Frame]] = {}
        self._strays: dict[str, list[Frame]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = turn_of(asyncio.get_running_loop())
        self.let_go: Callable[[str], None] = lambda blob: None
        self.on_over: Callable[[Call], None] = lambda call: None
        self.on_failed: Callable[[Call, Output, int, bool], None] = lambda call, output, count, again: None
        self.tally = Tally()
        self.follows: Callable[[str], bool] = lambda container_id: False
        self._aside: dict[tuple[str, str], Frame] = {}

    # from nodes

    def on_values(self, said: chunk.Outputs, head: Buffer, body: Buffer, app_id: str, function_id: str) -> None:
        """Values or items of a call."""
        frame = Frame(said.call_id, said.container, said.serial, said.attempt, said.positions)
        frame.head, frame.body, frame.flags = head, body, said.flags
        frame.item_of = said.position
        frame.busy, frame.ended = said.busy, said.ended
        frame.app_id, frame.function_id = app_id, function_id
        self._take(frame, ResultStatus.SUCCESS, said.busy)

    def on_end(self, output: Output, body: Buffer, app_id: str, function_id: str) -> None:
        """The end of one input that is no plain value."""
        frame = Frame(
            output.call_id,
            output.container,
            output.serial,
            output.attempt,
            range(output.position, output.position + 1),
        )
        frame.output, frame.body = output, body
        if output.started_at:
            frame.busy, frame.ended = max(0.0, output.ended_at - output.started_at), output.ended_at
        frame.app_id, frame.function_id = app_id, function_id
        self._take(frame, output.status, frame.busy)

    # from the scheduler

    def finish(self, call_id: str, positions: Sequence[int], container_id: str) -> None:
        """These answers count: tell who waits, write them down, then let the node forget them."""
        call = self._book.live.get(call_id)
        aside = self._aside.pop((call_id, container_id), None)
        if call is None:
            if aside is not None:
                self.recording.forget(aside)
            return
        if aside is not None:
            self._pending.setdefault((call_id, container_id), []).append(aside)
        for frame in self._pending.get((call_id, container_id), ()):
            if frame.positions is positions or frame.positions == positions:
                self._apply(call, frame, frame.positions)
                return
        wanted = set(positions)
        for frame in self._pending.get((call_id, container_id), ()):
            counted = [position for position in frame.positions if position in wanted]
            if counted:
                wanted.difference_update(counted)
                self._apply(call, frame, _together(counted))

    def set_aside(self, call_id: str, container_id: str, *, keep: bool) -> None:
        """An answer that counts only once others are there (see ``scheduler.gangs``), or not any longer."""
        before = self._aside.pop((call_id, container_id), None)
        if before is not None and not keep:
            self.recording.forget(before)
        for frame in self._pending.pop((call_id, container_id), ()) if keep else ():
            self._aside[call_id, container_id] = frame

    def stepped(self) -> None:
        """The scheduler has spoken: what it did not call finished is late, or is tried again."""
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        for frames in pending.values():
            for frame in frames:
                if not frame.used:
                    self.recording.forget(frame)

    def forget_pending(self) -> None:
        """The scheduler failed: nothing is acknowledged, so everything comes again when its node reconnects."""
        self._pending.clear()

    def again(self, call_id: str, position: int, attempt: int, retries: int, failures: int) -> None:
        """The input is tried again."""
        call = self._book.live.get(call_id)
        if call is None:
            return
        for holding in list(call.holdings or ()):
            if holding.start <= position < holding.stop:
                for frame in self._pending.get((call_id, holding.container_id), ()):
                    if frame.output is not None and frame.output.position == position:
                        self.on_failed(call, frame.output, 1, True)
                self._book.answered(call, holding.container_id, range(position, position + 1))
        self.recording.begin(call)
        call.retried = True
        call.ticket = None  # its result belongs after this in the store
        row = {"call_id": call_id, "position": position, "attempt": attempt, "retries": retries, "failures": failures}
        self._store.write_soon([("attempt_put", row)])

    def fail(self, call_id: str, positions: Sequence[int], status: str, error: dict[str, Any] | None) -> None:
        """Inputs end without an answer of their own."""
        call = self._book.live.get(call_id)
        if call is None:
            return
        failure, body = None, b""
        if status == ResultStatus.INIT_FAILURE:
            failure, body = self._book.init_failures.get(call.function_id, (None, b""))
        if call.total is not None and call.total > 1 and len(positions) >= call.accepted - call.ended:
            self.end_rest(call, Output(call_id, 0, 1, status, failure=failure, error=error), body)
            return
        for position in positions:
            if not call.is_done(position):
                self._end_one(call, Output(call_id, position, 1, status, failure=failure, error=error), body)

    def end_rest(self, call: Call, output: Output, body: bytes = b"") -> None:
        """All open inputs of a call end in the same way, and the call with them: one row, however many they are."""
        if call.over:
            return
        if call.total == 1 and call.accepted == 1:
            self._end_one(call, output, body)
            return
        call.total = call.accepted
        said = json.loads(results.end_of_input(output))
        call.rest = (said, body)
        number = self._book.next_number()
        call.last = number
        row = Recorded(number, REST, 0, range(max(1, call.accepted)), json.dumps(said).encode(), body)
        self.tally.ended(call.function_id, output.status, call.accepted - call.ended, time.time())
        self.on_failed(call, output, call.accepted - call.ended, False)
        self._count(call, 0, call.accepted - call.ended)
        status = output.status if output.status == ResultStatus.CANCELLED else results.FAILED
        statements: list[Statement] = [("output_add", row.row(call.call_id, time.time()))]
        error = json.dumps(output.error) if output.error is not None else None
        if call.strange:
            self._book.leave(call)
            return
        statements += self._over(call, status, error)
        self.recording.write(call, statements, None)

    def taken(self, call: Call, start: int, stop: int) -> None:
        """The caller has the answers of these inputs, whatever became of our rows of them: they are not run again."""
        if call.over or stop <= start:
            return
        for low, high in call.done.missing(start, stop) if call.done is not None else ((start, stop),):
            positions = range(low, high)
            self._count(call, call.mark_done(positions), 0)
            self._forget_references(call, positions)
            recorded = Recorded(self._book.next_number(), TAKEN, low, positions, b"", b"")
            self._tell(call, recorded)
            self.recording.write(call, self._statements(call, recorded), None)
            # What waits in line for them leaves it; a container that has them already answers for nobody.
            self._book.inbox.put(AttemptsEnded(call.call_id, "", 1, positions, ResultStatus.SUCCESS))

    def forget(self, call: Call, said: dict[str, Any]) -> None:
        """A call's app has ended: who waits hears so. Its row is written with the app's own."""
        call.total = call.accepted
        call.rest = (said, b"")
        self._leave(call)
        self._let_go_references(call)

    def finish_if_over(self, call: Call) -> None:
        """No more inputs will come: the call may have been waiting for that alone."""
        if not call.over and call.total is not None and call.ended >= call.total:
            self.recording.write(call, self._over(call), None)

    async def drain(self) -> None:
        """Wait for what is being written down."""
        await self._store.flush()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # inside, taking in

    def _take(self, frame: Frame, status: str, busy: float) -> None:
        faults.at("output_received")
        call = self._book.live.get(frame.call_id)
        if call is None:
            self._stray(frame, status, busy)
            return
        if frame.function_id and call.function_id != frame.function_id:
            log.warning("%s answers inputs of %s, which is not its own", frame.container_id, frame.call_id)
            self.recording.forget(frame)
            return
        if not call.queued:
            self._window.queue(call)
        if frame.flags & chunk.ITEMS:
            self._take_items(call, frame)
            return
        self._pending.setdefault((frame.call_id, frame.container_id), []).append(frame)
        self._book.inbox.put(
            AttemptsEnded(frame.call_id, frame.container_id, frame.attempt, frame.positions, status, busy)
        )

    def _take_items(self, call: Call, frame: Frame) -> None:
        """Items need no word of the scheduler: they count while their container runs the input, once each."""
        position, numbers = frame.item_of, frame.positions
        runs = any(
            one.container_id == frame.container_id and one.start <= position < one.stop for one in call.holdings or ()
        )
        known = (call.items or {}).get(position, 0)
        if not runs or call.is_done(position) or numbers[-1] < known:
            self.recording.forget(frame)
            return
        head: Buffer = frame.head
        body = frame.body
        if numbers[0] < known:
            cut = results.cut(head, body, lambda number: number >= known)
            assert cut is not None
            numbers, head, body = cut[0].positions, cut[1], cut[2]
        if call.items is None:
            call.items = {}
        if position not in call.items:
            self._book.inbox.put(ItemsCame(call.call_id, position))
        call.items[position] = numbers[-1] + 1
        call.ticket = None
        recorded = Recorded(self._book.next_number(), ITEMS, position, numbers, head, body)
        call.unread += len(body)
        self._tell(call, recorded)
        statements: list[Statement] = [("output_add", recorded.row(call.call_id, time.time()))]
        if call.strange:
            statements.insert(0, ("call_orphan", {**_orphan_row(call, time.time()), "seq": self._book.next_seq()}))
        self.recording.write(call, statements, frame)

    def _stray(self, frame: Frame, status: str, busy: float) -> None:
        """No such call is in memory: it is over, waits in the store, or was never written down."""
        if not frame.flags & chunk.ITEMS:
            # Whatever becomes of it, its container is free.
            self._book.inbox.put(
                AttemptsEnded(frame.call_id, frame.container_id, frame.attempt, frame.positions, status, busy)
            )
        if self.follows(frame.container_id):
            self.recording.forget(frame)
            return
        waiting = self._strays.get(frame.call_id)
        if waiting is not None:
            waiting.append(frame)
            return
        self._strays[frame.call_id] = [frame]
        self._background(self._find_strays(frame.call_id))

    async def _find_strays(self, call_id: str) -> None:
        try:
            await self._store.flush()
            row = await self._store.one("call_by_id", call_id=call_id)
            if row is not None and row["done_at"] is None:
                await self._window.take_up(row)
        except errors.Error as error:
            log.error("outputs of %s could not be looked up: %s", call_id, error)
            self._strays.pop(call_id, None)
            return  # not acknowledged: they come again
        frames = self._strays.pop(call_id, [])
        for frame in frames:
            if call_id in self._book.live:
                status = frame.output.status if frame.output is not None else ResultStatus.SUCCESS
                self._take(frame, status, 0.0)
            elif row is None or row["status"] == results.ORPHAN:
                self._keep_orphan(frame)
            else:
                self.recording.forget(frame)

    def _keep_orphan(self, frame: Frame) -> None:
        """Its caller was connected, so nobody waited for its row: it comes again by id, and finds this."""
        if not frame.function_id:
            self.recording.forget(frame)  # nobody knows whose it is
            return
        now = time.time()
        orphan = {**_orphan_row(frame, now), "seq": self._book.next_seq()}
        row = self._recorded(frame, frame.positions).row(frame.call_id, now)
        self.recording.write(None, [("call_orphan", orphan), ("output_add", row)], frame)

    # inside, what counts

    def _apply(self, call: Call, frame: Frame, positions: Sequence[int]) -> None:
        frame.used = True
        self._book.answered(call, frame.container_id, positions)
        left = call.left(positions)  # a machine that was given up may come back with what others have done since
        if len(left) != len(positions):
            positions = _together(list(left)) if left else ()
        new = call.mark_done(positions)
        if not new:
            self.recording.forget(frame)
            return
        recorded = self._recorded(frame, positions)
        well = frame.output is None or frame.output.status == ResultStatus.SUCCESS
        self._count(call, new if well else 0, 0 if well else new)
        if frame.output is not None and not well:
            self.on_failed(call, frame.output, new, False)
        self.tally.answered(call, frame, new)
        self._forget_references(call, positions)
        self._tell(call, recorded)
        if call.ticket is not None and call.total == 1 and call.accepted == 1:
            self._leave(call)
            self._turn.afterwards(lambda: self._write_together(call, recorded, frame))
        else:
            self.recording.write(call, self._statements(call, recorded), frame)

    def _end_one(self, call: Call, output: Output, body: Buffer) -> None:
        position = output.position
        if call.mark_done(range(position, position + 1)):
            head = results.end_of_input(output)
            recorded = Recorded(self._book.next_number(), END, position, range(position, position + 1), head, body)
            self._count(call, 0, 1)
            self.tally.ended(call.function_id, output.status, 1, time.time())
            self.on_failed(call, output, 1, False)
            self._forget_references(call, recorded.positions)
            self._tell(call, recorded)
            # A call of one input that was cancelled is a cancelled call, not a failed one.
            status = output.status if output.status == ResultStatus.CANCELLED and call.total == 1 else ""
            self.recording.write(call, self._statements(call, recorded, status), None)

    def _recorded(self, frame: Frame, positions: Sequence[int]) -> Recorded:
        number = self._book.next_number()
        if frame.output is not None:
            said = results.end_of_input(frame.output)
            return Recorded(number, END, positions[0], positions, said, frame.body)
        if frame.flags & chunk.ITEMS:
            return Recorded(number, ITEMS, frame.item_of, positions, frame.head, frame.body)
        head: Buffer = frame.head
        body = frame.body
        if positions is not frame.positions:
            wanted = set(positions)
            found = results.cut(head, body, wanted.__contains__)
            assert found is not None
            head, body = found[1], found[2]
        return Recorded(number, VALUES, positions[0], positions, head, body, frame.flags & chunk.REFERENCE)

    def _count(self, call: Call, succeeded: int, failed: int) -> None:
        call.succeeded += succeeded
        call.failed += failed
        self._book.line(call.function_id, call.app_id).inputs -= succeeded + failed

    def _tell(self, call: Call, recorded: Recorded) -> None:
        call.last = recorded.number
        if call.readers:
            for reader in call.readers:
                reader.offer(recorded)
            faults.at("reply_sent", call.readers[0].stream.peer.flush)

    def _statements(self, call: Call, recorded: Recorded, status: str = "") -> list[Statement]:
        now = time.time()
        statements: list[Statement] = [("output_add", recorded.row(call.call_id, now))]
        if call.strange:
            orphan = {**_orphan_row(call, now), "seq": self._book.next_seq()}
            if call.arrived is not None and call.ended >= call.arrived.count:
                self._book.leave(call)  # what a machine held of it is over; its caller finds the rows
            return [("call_orphan", orphan), *statements]
        if call.total is not None and call.ended >= call.total:
            return statements + self._over(call, status)
        counts = {"call_id": call.call_id, "succeeded": call.succeeded, "failed": call.failed}
        statements.append(("call_progress", counts))
        prefix = call.done.prefix if call.done is not None else 0
        if prefix - call.forgotten >= _SWEEP and not call.failed:
            call.forgotten = prefix
            statements.append(("chunks_done", {"call_id": call.call_id, "upto": prefix}))
        return statements

    def _over(self, call: Call, status: str = "", error: str | None = None) -> list[Statement]:
        """A call is over: readers are told, and it leaves memory."""
        self._leave(call)
        return self._rows_of_end(call, status, error)

    def _rows_of_end(self, call: Call, status: str = "", error: str | None = None) -> list[Statement]:
        statements: list[Statement] = [("call_done", done_row(call, time.time(), status, error))]
        if call.retried or call.loaded:
            statements.append(("attempts_drop", {"call_id": call.call_id}))
        if call.loaded:
            # Which of its arguments are large is in the rows that go.
            self._background(self._drop_loaded(call))
        elif call.failed and call.references is None and status != ResultStatus.CANCELLED:
            # Somebody may want to try those again (call.retry) while the results are kept.
            statements.append(("chunks_of_call_bound", {"call_id": call.call_id, "most": _KEPT_TO_RETRY}))
        else:
            statements.append(("chunks_of_call_drop", {"call_id": call.call_id}))
            self._let_go_references(call)
        return statements

    def _leave(self, call: Call) -> None:
        call.over = True
        self._book.leave(call)
        for container_id, serial in call.held_acks or ():
            self.recording.acknowledge(container_id, serial)
        call.held_acks = None
        for reader in call.readers or ():
            reader.over()
        self._window.refill(self._book.lines.get(call.function_id))
        self.on_over(call)

    async def _drop_loaded(self, call: Call) -> None:
        try:
            for row in await self._store.read("chunks_references", call_id=call.call_id):
                self.let_go(chunk.read_reference(row["body"])[0])
            await self._store.write([("chunks_of_call_drop", {"call_id": call.call_id})], urgent=False)
        except errors.Error as error:
            log.error("the arguments of %s could not be dropped: %s", call.call_id, error)

    def _forget_references(self, call: Call, positions: Sequence[int]) -> None:
        """An input that is done needs its large arguments no more."""
        if call.references:
            for position in positions:
                name = call.references.pop(position, "")
                if name:
                    self.let_go(name)

    def _let_go_references(self, call: Call) -> None:
        for name in (call.references or {}).values():
            self.let_go(name)
        call.references = None

    # inside, writing

    def _write_together(self, call: Call, recorded: Recorded, frame: Frame) -> None:
        """A call that is over, if it can be before its own rows were begun: one row for it, one for what came of it."""
        now = time.time()
        row = call_row(call, call.created_at)
        row["succeeded"], row["failed"] = call.succeeded, call.failed
        row["done_at"], row["status"] = now, "failed" if call.failed else "success"
        statements: list[Statement] = [("call_add_done", row), ("output_add", recorded.row(call.call_id, now))]
        # The arguments of what failed are rows of their own.
        if not call.failed and self.recording.replace(call, statements, frame):
            self._let_go_references(call)
        else:
            self.recording.write(call, [statements[1], *self._rows_of_end(call)], frame)

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _orphan_row(one: Call | Frame, now: float) -> dict[str, Any]:
    return {"call_id": one.call_id, "function_id": one.function_id, "app_id": one.app_id, "now": now}


def _together(positions: list[int]) -> Sequence[int]:
    if positions[-1] - positions[0] + 1 == len(positions) and positions == list(range(positions[0], positions[-1] + 1)):
        return range(positions[0], positions[-1] + 1)
    return tuple(positions)
