"""Looking at a call that somebody started: its results by number, one after the other, from any process."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Deque, List, Optional, Sequence, Tuple

from alight.sdk.answers import Answers
from alight.sdk.lost import LostError
from alight.sdk.mapping import Results, piece_of, pieces_of
from alight.sdk.ranges import Ranges
from alight.sdk.sending import WINDOW
from alight.sdk.single import result_of, update_of, wait
from alight.wire import ambient, calling, chunk, errors
from alight.wire.codec import loads_head

if TYPE_CHECKING:
    from alight.sdk.callee import Callee
    from alight.sdk.conversation import Message, Stream
    from alight.sdk.sync import Future

_TOGETHER = 256  # calls that are looked at together
_PATIENT = 1.0  # seconds between looks for answers that came on another connection


class Looked(Answers):
    """Results ``start`` to ``stop`` of a call (None: the last that there will be), in order. Reading ends nothing.

    Asked for a window at a time, so that one slow input does not have all later results wait in memory.
    """

    cancels = False

    def __init__(self, callee: Callee, call_id: str, start: int, stop: Optional[int]) -> None:
        super().__init__(callee, call_id)
        self._stop = stop
        self._at = start
        self._seen = Ranges()
        self._results = Results(callee, ordered=True, return_exceptions=False, start=start)

    async def _open(self, *, again: bool) -> Stream:
        del again  # what was seen is said, and nothing else has to be done anew
        until = self._at + WINDOW if self._stop is None else min(self._stop, self._at + WINDOW)
        message = calling.CallResult(self.call_id, index=-1, start=self._at, stop=until, have=self._seen.pairs())
        return await self.callee.client.open("call.result", message)

    async def _next(self) -> Optional[List[Any]]:
        while True:
            ready = await self._results.take()
            if ready:
                return ready
            message = await self._receive()
            if message is None:
                if self._results.held_bytes:
                    raise errors.InternalError("the server ended a look at a call and left results out")
                until = self._at + WINDOW
                if self._seen.count < WINDOW or (self._stop is not None and until >= self._stop):
                    return None
                self._at, self._seen = until, Ranges()
                self._stream = await self._open(again=True)
                continue
            head, body = message
            if chunk.is_chunk(head):
                self._told.because("")
                for start, piece in pieces_of(chunk.Outputs.decode(head), body, self._seen):
                    self._results.add(start, piece)
                continue
            update = loads_head(calling.CallUpdate, head)
            if update.state != "done":
                self._waits(update)
            elif self._seen.add(update.position, update.position + 1):
                self._results.add(update.position, piece_of(update, body))


async def gather(calls: Sequence[Tuple[Callee, str]]) -> List[Any]:
    """The results of several calls, in order. The first failure is raised as soon as it is known."""
    results: List[Any] = []
    on_waiting = ambient.on_waiting
    for start in range(0, len(calls), _TOGETHER):
        if on_waiting is not None:
            on_waiting(True)
        try:
            results += await _together(calls[start : start + _TOGETHER])
        finally:
            if on_waiting is not None:
                on_waiting(False)
    return results


async def _together(calls: Sequence[Tuple[Callee, str]]) -> List[Any]:
    heard: Deque[Tuple[int, Optional[Message], Optional[errors.Error]]] = deque()
    bell: List[Future] = []
    streams: List[Stream] = []
    values: List[Any] = [None] * len(calls)
    missing = set(range(len(calls)))

    def listener(number: int) -> Any:
        def hear(message: Optional[Message], error: Optional[errors.Error]) -> None:
            heard.append((number, message, error))
            for one in bell:
                one.set()

        return hear

    try:
        for number, (callee, call_id) in enumerate(calls):
            stream = await callee.client.open("call.result", calling.CallResult(call_id))
            streams.append(stream)
            stream.listen(listener(number))
        while missing:
            bell[:] = [streams[min(missing)].arrival()]
            if not heard:
                await bell[0].within(_PATIENT)
            while heard:
                number, message, error = heard.popleft()
                if number not in missing:
                    continue
                callee, call_id = calls[number]
                if isinstance(error, LostError):  # asking again comes back by itself, and keeps doing so
                    values[number] = await wait(callee, "call.result", call_id, calling.CallResult(call_id))
                elif message is None:
                    raise error or errors.InternalError("the server ended call.result without a result")
                else:
                    update = update_of(message)
                    if update is not None and update.state != "done":
                        continue
                    values[number] = await result_of(callee, message, update)
                missing.discard(number)
    finally:
        for number in missing:
            if number < len(streams):
                streams[number].leave()
    return values
