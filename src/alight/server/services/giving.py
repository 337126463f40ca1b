"""What goes to containers: bodies from memory or from the store; and what machines that come back hold already."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from alight.scheduler.events import AttemptsEnded, CallCancelled, InputsArrived
from alight.server import faults
from alight.server.events import Inbox
from alight.server.services import results
from alight.server.services.book import Book
from alight.server.services.call import Call, Chunk, Holding
from alight.server.services.outcomes import Outcomes
from alight.server.services.published import Published
from alight.server.services.ranges import Ranges
from alight.server.services.window import Window
from alight.store.base import Store
from alight.wire import chunk, errors
from alight.wire.codec import Buffer
from alight.wire.commands import Output, Run
from alight.wire.states import ResultStatus


class Giving:
    """Carries out what the scheduler decides about where inputs run."""

    def __init__(self, store: Store, book: Book, window: Window, outcomes: Outcomes, inbox: Inbox) -> None:
        self._store = store
        self._book = book
        self._window = window
        self._outcomes = outcomes
        self._inbox = inbox

    def give(
        self, call_id: str, start: int, stop: int, attempt: int, container_id: str
    ) -> list[tuple[bytes, Buffer]] | None:
        """What to send to a container, chunk by chunk; None when some of it has to be fetched from the store first."""
        call = self._book.live.get(call_id)
        if call is None:
            return []
        faults.at("dispatched")
        pieces: list[tuple[Chunk, int, int]] = []
        at = start
        while at < stop:
            one = call.chunk_at(at)
            if one is None:
                return None
            end = min(stop, one.start + one.count)
            pieces.append((one, at, end))
            at = end
        parts: list[tuple[bytes, Buffer]] = []
        for one, at, end in pieces:
            sizes, body = one.cut(at, end)
            flags = one.flags if call.waited else one.flags | chunk.SPAWNED
            head = chunk.Inputs(call_id, at, sizes, attempt, call.method, container_id, flags).encode()
            parts.append((head, body))
            one.given += end - at
            if one.given >= one.count and call.total != 1:
                self._book.drop(call, one)  # for another attempt it is read from the store
        self._book.hold(call, Holding(container_id, start, stop, attempt, time.time()))
        return parts

    async def fetch(self, run: Run, container_id: str) -> list[tuple[int, int]]:
        """Bring the bodies of inputs into memory; returns what there is to give, as ranges.

        Some may have been answered meanwhile, where they were given a second time. Inputs whose bodies are nowhere end
        with DataLossError.
        """
        call = self._book.live.get(run.call_id)
        at = run.start
        while call is not None and not call.over and at < run.stop:
            one = call.chunk_at(at) or await self._window.read_chunk(call, at)
            if one is not None:
                at = one.start + one.count
            elif call.is_done(at):
                at += 1
            else:
                if at >= call.accepted and call.total is None and not call.strange:
                    self._not_yet(call, run, container_id)
                else:
                    self._lost(call, at)
                return []
        if call is None or call.over:
            return []
        if call.done is None:
            return [(run.start, run.stop)]
        left = call.done.missing(run.start, run.stop)
        for low, high in Ranges(left).missing(run.start, run.stop):
            self._release(call, run.attempt, range(low, high), container_id)
        return left

    def adopt(self, run: Run, function: Published, container_id: str) -> None:
        """A machine holds inputs: if the store never heard of their call, its caller will come back for it."""
        call = self._book.live.get(run.call_id)
        if call is None:
            call = Call(run.call_id, function.function_id, function.app_id)
            call.created_at, call.strange, call.queued = time.time(), True, True
            call.arrived = Ranges()
            self._book.enter(call)
        if call.strange and call.arrived is not None:
            new = call.arrived.missing(run.start, run.stop)
            call.arrived.add(run.start, run.stop)
            if new:
                self._inbox.put(InputsArrived(run.call_id, call.function_id, tuple(new)))
        elif not call.queued:
            self._window.queue(call)
        # Its outputs may follow in the same breath, before the scheduler has said that they count.
        for start, stop in (
            call.done.missing(run.start, run.stop) if call.done is not None else ((run.start, run.stop),)
        ):
            self._book.hold(call, Holding(container_id, start, stop, run.attempt, time.time()))

    def unheard(self, run: Run) -> list[Run]:
        """Of the inputs of a run, those that have no end yet, as far as it is known here."""
        call = self._book.live.get(run.call_id)
        if call is None or call.done is None:
            return [run]
        return [Run(run.call_id, low, high, run.attempt) for low, high in call.done.missing(run.start, run.stop)]

    async def take_up(self, call_ids: Iterable[str]) -> set[str]:
        """Machines hold inputs of these calls: what waits in the store comes to memory. Returns those that are over:
        nobody wants what still runs of them.
        """
        over: set[str] = set()
        for call_id in dict.fromkeys(call_ids):
            if call_id in self._book.live:
                continue
            row = await self._store.one("call_by_id", call_id=call_id)
            if call_id in self._book.recent or (row is not None and row["done_at"] and row["status"] != results.ORPHAN):
                over.add(call_id)
            elif row is not None and row["done_at"] is None:
                await self._window.take_up(row)
        return over

    def adopted(self, call_id: str, positions: Sequence[int], container_id: str) -> None:
        """A node that came back runs these inputs."""
        call = self._book.live.get(call_id)
        if call is not None and positions:
            self._book.answered(call, container_id, positions)  # as far as it was known before
            self._book.hold(call, Holding(container_id, min(positions), max(positions) + 1, 1, time.time()))

    # inside

    def _not_yet(self, call: Call, run: Run, container_id: str) -> None:
        """A machine held inputs of a call that the store had never heard of, and gave them back before its caller, who
        is sending them again, came to them: to the scheduler they are news once they are here.
        """
        arrived, call.arrived = call.arrived, Ranges()
        for low, high in arrived.pairs() if arrived is not None else ():
            call.arrived.add(low, min(high, run.start))
            call.arrived.add(max(low, run.stop), high)
        self._release(call, run.attempt, range(run.start, run.stop), container_id)
        here = [(max(low, run.start), min(high, run.stop)) for low, high in call.open_ranges(run.start)]
        here = [(low, high) for low, high in here if low < high]
        if here:
            self._inbox.put(InputsArrived(call.call_id, call.function_id, tuple(here), call.parent))

    def _release(self, call: Call, attempt: int, positions: range, container_id: str) -> None:
        """A container does not get what it was to have: nothing of it takes up its room."""
        self._inbox.put(AttemptsEnded(call.call_id, container_id, attempt, positions, ResultStatus.SUCCESS))

    def _lost(self, call: Call, position: int) -> None:
        """The arguments of an input are nowhere: its disk refused them, or its container was lost before they came."""
        if call.strange:
            self._inbox.put(CallCancelled(call.call_id))
            self._book.leave(call)
            return
        error = errors.DataLossError(f"the arguments of input {position} are not in the store any more")
        self._inbox.put(CallCancelled(call.call_id))
        output = Output(call.call_id, position, 1, ResultStatus.INTERNAL, error=errors.to_wire(error))
        self._outcomes.end_rest(call, output)
