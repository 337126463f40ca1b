"""One call with many inputs: ``map`` and its kin, from the caller's side.

Inputs leave while results come; results are handed out in lists, so that an item costs its reader next to nothing.
What was answered is known by position, so that after a lost connection each result still comes once, and in order.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Deque, Dict, List, NamedTuple, Optional, Sequence

from alight.sdk import outcomes, progress, values
from alight.sdk.answers import Answers
from alight.sdk.inputs import Pump, Source
from alight.sdk.ranges import Ranges
from alight.sdk.sending import Sending
from alight.wire import ambient, calling, chunk, errors
from alight.wire.codec import loads_head
from alight.wire.ids import CALL, new_id

if TYPE_CHECKING:
    from alight.sdk.callee import Callee
    from alight.sdk.conversation import Stream

_AT_ONCE = 1024  # results in one list: the rest stays packed until it is asked for
_COUNT_EVERY = 0.1  # seconds between two words about how far it is
_ASK_AFTER = 0.5  # seconds that a spawn waits for room before it asks how much the server has


class Many(Answers):
    """A call whose inputs are still being sent."""

    def __init__(self, callee: Callee, source: Source, verb: str, *, wait: bool = True) -> None:
        super().__init__(callee, new_id(CALL))
        self._start = calling.CallStart(
            call_id=self.call_id,
            function_id=callee.function_id,
            verb=verb,
            many=True,
            wait=wait,
            method=callee.method,
            parent_input=ambient.current_input_id.get() or "",
        )
        self._answered = Ranges()
        self._sending = Sending(self.call_id, callee.method) if wait else Sending(self.call_id, callee.method, None)
        self._pump = Pump(callee, source, self._sending, keep=not wait)

    async def _open(self, *, again: bool) -> Stream:
        client = self.callee.client
        if not again:
            stream = await client.open("call.start", self._start, end=False)
            self._sending.attach(stream)
            self._pump.start()
            return stream
        from alight.wire.record import replace  # noqa: PLC0415  after a lost connection alone

        start = replace(self._start, resend=True, have=self._answered.pairs())
        stream = await client.open("call.start", start, end=False)
        first = await stream.recv()
        update = None if first is None or chunk.is_chunk(first[0]) else loads_head(calling.CallUpdate, first[0])
        if update is None or update.state != "accepted":
            raise errors.InternalError("the server did not say how many inputs of a call it has")
        self._sending.attach(stream, update.accepted)
        return stream

    def _end(self) -> None:
        super()._end()
        self._pump.close()


class Spawned(Many):
    """Inputs for whoever comes for the results later. ``more`` gives an empty list once all of them are on disk."""

    def __init__(self, callee: Callee, source: Source) -> None:
        super().__init__(callee, source, "spawn_map", wait=False)
        self._shown = 0  # so many inputs the server had when it was asked last

    async def _next(self) -> Optional[List[Any]]:
        while True:
            try:
                message = await self._receive(_ASK_AFTER)
            except errors.BuiltinTimeoutError:
                await self._make_room()
                continue
            if message is None:
                raise errors.InternalError("the server ended a call without saying that it has its inputs")
            update = loads_head(calling.CallUpdate, message[0])
            self._sending.accepted(update.accepted)
            if self._sending.over and update.state == "accepted" and update.accepted >= self._sending.put:
                if self._pump.problem is not None:
                    raise self._pump.problem
                self._end()
                return []

    async def _make_room(self) -> None:
        """Inputs are kept until the server has them on disk. It tells how many it has when asked; those that it had at
        the last question are on disk by now.
        """
        if self._sending.room() > 0:
            return
        shown = await self.callee.client.call("call.show", calling.CallShow(self.call_id), calling.CallDetails)
        self._sending.accepted(self._shown)
        self._shown = shown.call.accepted


class _Piece(NamedTuple):
    """Consecutive results as they came: values (``sizes``), or what an input ended with instead."""

    stop: int
    sizes: Sequence[int]
    body: bytes
    reference: bool = False
    update: Optional[calling.CallUpdate] = None
    container: str = ""
    log_offset: int = 0


class Results:
    """Results between their arrival and their turn. Positions come in any order and each once."""

    def __init__(self, callee: Callee, *, ordered: bool, return_exceptions: bool, start: int = 0) -> None:
        self._callee = callee
        self._what = f"the result of {callee.name}()"
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._next = start
        self._waiting: Dict[int, _Piece] = {}  # by their first position
        self._line: Deque[_Piece] = deque()
        self._ready: List[Any] = []
        self._problem: Optional[BaseException] = None
        self.held_bytes = 0  # of what waits for its turn

    def add(self, start: int, piece: _Piece) -> None:
        """Something that came."""
        if self._ordered:
            self._waiting[start] = piece
            self.held_bytes += len(piece.body)
        else:
            self._line.append(piece)

    async def take(self) -> List[Any]:
        """What may be handed out now; raises what stands in the place of a value, at its turn."""
        while len(self._ready) < _AT_ONCE and self._problem is None:
            if not self._ordered:
                if not self._line:
                    break
                piece = self._line.popleft()
            else:
                found = self._waiting.pop(self._next, None)
                if found is None:
                    break
                piece, self._next = found, found.stop
                self.held_bytes -= len(piece.body)
            await self._unpack(piece)
            if piece.reference:
                break  # one large value at a time
        if self._ready or self._problem is None:
            ready, self._ready = self._ready, []
            return ready
        raise self._problem

    async def _unpack(self, piece: _Piece) -> None:
        running = self._callee.running
        if running is not None and piece.log_offset and progress.is_shown():
            await running.output_until(piece.container, piece.log_offset)
        if piece.update is not None:
            self._failed(await outcomes.exception_of(self._callee, piece.update, piece.body))
        elif piece.reference:
            try:
                self._ready.append(await outcomes.large_value(self._callee, chunk.read_reference(piece.body)))
            except errors.Error as error:
                self._failed(error)
        else:
            values.all_of(piece.sizes, piece.body, self._what, self._ready, self._failed)

    def _failed(self, error: BaseException) -> bool:
        """Whether results after this one are wanted."""
        if self._return_exceptions:
            self._ready.append(error)
            return True
        self._problem = error
        return False


def pieces_of(outputs: chunk.Outputs, body: bytes, seen: Ranges) -> List[Any]:
    """(start, piece) of what is new in a frame of outputs; ``seen`` learns of it."""
    found = []
    sizes, positions = outputs.sizes, outputs.positions
    awaited = 0 if outputs.flags & chunk.UNSENT else outputs.log_offset
    more = (outputs.is_reference, None, outputs.container, awaited)
    if type(positions) is range:
        for start, stop in seen.add(positions.start, positions.stop):
            if stop - start == len(sizes):
                found.append((start, _Piece(stop, sizes, body, *more)))
                continue
            first = start - positions.start
            offset, own = sum(sizes[:first]), sizes[first : first + stop - start]
            found.append((start, _Piece(stop, own, body[offset : offset + sum(own)], *more)))
        return found
    offset = 0
    for position, size in zip(positions, sizes):
        if seen.add(position, position + 1):
            found.append((position, _Piece(position + 1, (size,), body[offset : offset + size], *more)))
        offset += size
    return found


def piece_of(update: calling.CallUpdate, body: bytes) -> Any:
    """The piece for an input that is done and brought no value."""
    return _Piece(update.position + 1, (0,), body, False, update, update.container, update.log_offset)


class Mapped(Many):
    """Inputs in, results out. ``more`` gives results in lists, in the order of the inputs or as they come."""

    def __init__(self, callee: Callee, source: Source, verb: str, *, ordered: bool, return_exceptions: bool) -> None:
        super().__init__(callee, source, verb)
        self._ordered = ordered
        self._results = Results(callee, ordered=ordered, return_exceptions=return_exceptions)
        self._counted = time.monotonic()
        self._shown = False

    async def _next(self) -> Optional[List[Any]]:
        sending = self._sending
        while True:
            ready = await self._results.take()
            if ready:
                sending.held_bytes = self._results.held_bytes
                if self._ordered:
                    sending.release(len(ready))
                return ready
            if sending.said_all and self._answered.count >= sending.put:
                break
            message = await self._receive()
            if message is None:
                if sending.over and self._answered.count >= sending.put:
                    break
                raise errors.InternalError(
                    f"the server ended a call with {self._answered.count} of {sending.put} results"
                )
            self._on_message(*message)
            sending.held_bytes = self._results.held_bytes
            if progress.is_shown():
                self._say_count()
        if self._pump.problem is not None:
            raise self._pump.problem
        return None

    def _on_message(self, head: bytes, body: bytes) -> None:
        if chunk.is_chunk(head):
            outputs = chunk.Outputs.decode(head)
            self._told.because("")
            for start, piece in pieces_of(outputs, body, self._answered):
                self._add(start, piece)
            return
        update = loads_head(calling.CallUpdate, head)
        if update.state != "done":
            if update.accepted:
                self._sending.accepted(update.accepted)
            self._waits(update)
            return
        self._told.because("")
        if self._answered.add(update.position, update.position + 1):
            self._add(update.position, piece_of(update, body))

    def _add(self, start: int, piece: _Piece) -> None:
        self._results.add(start, piece)
        self._sending.answered(start, piece.stop)
        if not self._ordered:
            self._sending.release(piece.stop - start)

    def _say_count(self) -> None:
        now = time.monotonic()
        if now - self._counted < _COUNT_EVERY:
            return
        self._counted, self._shown = now, True
        of = f"{self._sending.put:,}" if self._sending.over else f"{self._sending.put:,} so far"
        progress.counted(self.call_id, f"map {self.callee.name}: {self._answered.count:,} of {of} done")

    def _end(self) -> None:
        super()._end()
        if self._shown:
            self._shown = False
            progress.counted(self.call_id, "")


class Mapping:
    """A map that nobody has read yet: nothing is looked up or sent before somebody does."""

    def __init__(self, begin: Callable[[], Awaitable[Answers]], *, unread: str = "nothing was run") -> None:
        self.unread = unread  # what is said when nobody ever reads it
        self._begin: Optional[Callable[[], Awaitable[Answers]]] = begin
        self._answers: Optional[Answers] = None

    async def more(self) -> Optional[List[Any]]:
        """The next results as a list, None when there are no more."""
        if self._answers is None:
            if self._begin is None:
                return None
            begin, self._begin = self._begin, None
            self._answers = await begin()
        return await self._answers.more()

    def close(self) -> None:
        """Stop: what is not done is cancelled. Never waits."""
        self._begin = None
        if self._answers is not None:
            self._answers.close()


__all__ = ["Mapped", "Mapping", "Results", "Spawned", "piece_of", "pieces_of"]
