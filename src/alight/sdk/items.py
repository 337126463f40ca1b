"""What a generator yields, from the caller's side: each item as it comes, once and in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional

from alight.sdk import outcomes, values
from alight.sdk.answers import Answers
from alight.sdk.large import put_blob
from alight.sdk.mapping import Results, pieces_of
from alight.sdk.ranges import Ranges
from alight.wire import ambient, calling, chunk, errors, payload
from alight.wire.codec import MAX_INLINE, Buffer, loads_head
from alight.wire.ids import CALL, new_id
from alight.wire.record import replace
from alight.wire.states import ResultStatus

if TYPE_CHECKING:
    from alight.sdk.callee import Callee
    from alight.sdk.conversation import Stream


class Generated(Answers):
    """A generator that runs elsewhere. A slow reader slows it down: what is not read is not taken off the wire."""

    def __init__(self, callee: Callee, args: Any, kwargs: Any) -> None:
        super().__init__(callee, new_id(CALL))
        self._args = (args, kwargs)
        self._body: Buffer = b""
        self._start = calling.CallStart(
            call_id=self.call_id,
            function_id=callee.function_id,
            verb="remote_gen",
            method=callee.method,
            parent_input=ambient.current_input_id.get() or "",
        )
        self._seen = Ranges()
        self._results = Results(callee, ordered=True, return_exceptions=False)
        self._total: Optional[int] = None
        self._problem: Optional[BaseException] = None

    async def _open(self, *, again: bool) -> Stream:
        start = self._start
        if again:
            pairs = self._seen.pairs()
            start = replace(start, resend=True, items=pairs[0][1] if pairs and not pairs[0][0] else 0)
        else:
            parts = values.of_arguments(self.callee, *self._args)
            size = payload.size_of(parts)
            if size > MAX_INLINE:
                where = calling.Payload(blob=await put_blob(self.callee.client, parts), size=size)
                start = self._start = replace(start, payload=where)
            else:
                self._body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._args = ((), {})
        return await self.callee.client.open("call.start", start, self._body)

    async def _next(self) -> Optional[List[Any]]:
        while True:
            ready = await self._results.take()
            if ready:
                return ready
            if self._total is not None and self._seen.count >= self._total:
                if self._problem is not None:
                    raise self._problem
                return None
            message = await self._receive()
            if message is None:
                raise errors.InternalError("the server ended a generator's call without its end")
            head, body = message
            if chunk.is_chunk(head):
                self._on_outputs(chunk.Outputs.decode(head), body)
            else:
                await self._on_update(loads_head(calling.CallUpdate, head), body)

    def _on_outputs(self, outputs: chunk.Outputs, body: bytes) -> None:
        if not outputs.is_items:
            raise errors.InvalidError(
                f"{self.callee.name} is not a generator: it returned one value", hint="use .remote()"
            )
        self._told.because("")
        for start, piece in pieces_of(outputs, body, self._seen):
            self._results.add(start, piece)

    async def _on_update(self, update: calling.CallUpdate, body: bytes) -> None:
        if update.state != "done":
            self._waits(update)
        elif update.status == ResultStatus.SUCCESS:
            self._total = update.items
        else:
            # What it yielded before it failed came before this word.
            self._problem = await outcomes.exception_of(self.callee, update, body)
            self._total = 0
