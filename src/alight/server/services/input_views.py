"""What became of the inputs of a call, as many as are on somebody's screen; and those that failed, once more."""

from __future__ import annotations

from typing import Any

import msgspec

from alight.server.services import results
from alight.server.services.accepting import Sending
from alight.server.services.call_views import CallViews
from alight.server.services.calls import Calls
from alight.server.services.functions import Functions
from alight.server.services.json_calls import VERB as HTTP_VERB
from alight.store.base import Row, Store
from alight.wire import chunk, errors, ids
from alight.wire.calling import CallStart, CallUpdate, RunningInput
from alight.wire.dashboard import CallInputs, CallRetried, InputShown, InputsShown
from alight.wire.states import ResultStatus

_MOST = 1000  # inputs in one answer
_ROWS = 20_000  # outputs that are looked through for it
VERB = "spawn_retry"  # nobody has to stay for its end, as for all that begin with "spawn"
_decode_update = msgspec.json.Decoder(CallUpdate).decode


class InputViews:
    """Looks at inputs."""

    def __init__(self, store: Store, views: CallViews, calls: Calls, functions: Functions) -> None:
        self._store = store
        self._views = views
        self._calls = calls
        self._functions = functions

    async def inputs(self, asked: CallInputs, row: Row) -> InputsShown:
        """Inputs of a call by position."""
        await self._store.flush()
        limit, start = max(1, min(asked.limit, _MOST)), max(0, asked.start)
        call_id, total = row["call_id"], self._views.summary(row).accepted
        if asked.failed:
            rows = await self._store.read("outputs_failed_from", call_id=call_id, start=start, limit=limit + 1)
            shown = [_ended(call_id, _decode_update(one["head"]), int(one["position"])) for one in rows[:limit]]
            return InputsShown(tuple(shown), len(rows) > limit, int(row["failed"]), await self.is_retryable(row))
        stop = min(start + limit, total)
        found = await self._between(row, start, stop)
        return InputsShown(tuple(found), stop < total, total, await self.is_retryable(row))

    async def is_retryable(self, row: Row) -> bool:
        """Whether ``retry`` would find something to do."""
        if row["done_at"] is None or not row["failed"] or row["function_id"] not in self._functions.by_id:
            return False
        if row["verb"] == HTTP_VERB:
            return False
        return (
            await self._store.one("chunk_at", call_id=row["call_id"], position=await self._first_failed(row))
            is not None
        )

    async def retry(self, row: Row) -> CallRetried:
        """Start the failed inputs again, as a call of their own.

        Raises ConflictError where none failed, or the call goes on; NotFoundError without their arguments.
        """
        if row["done_at"] is None:
            raise errors.ConflictError(f"{row['call_id']} has not ended yet", hint="cancel it first, or wait")
        if not row["failed"]:
            raise errors.ConflictError(f"no input of {row['call_id']} failed")
        if row["verb"] == HTTP_VERB:
            raise errors.ConflictError("this call was made over HTTP: send it again")
        function = self._functions.by_id.get(row["function_id"])
        if function is None or function.gone:
            raise errors.ConflictError("its function is not there any more: the app has been stopped or changed")
        call_id = ids.new_id(ids.CALL)
        asked = CallStart(call_id, function.function_id, VERB, many=True, wait=False, method=row["method"])
        call = None
        sending: Sending | None = None
        count = 0
        for position in await self._failed(row):
            found = await self._argument(row["call_id"], position)
            if found is None:
                continue
            if sending is None:
                call, _ = await self._calls.accepting.start(asked, b"", function)
                if call is None:
                    raise errors.InternalError("a new call was taken for one that is over")
                sending = Sending(call)
                call.senders += 1
            flags, body = found
            await self._calls.accepting.accept(sending, chunk.Inputs(call_id, count, [len(body)], flags=flags), body)
            count += 1
        if sending is None or call is None:
            raise errors.NotFoundError(
                "the arguments of this call are not kept any more", hint="run it again from where it was called"
            )
        try:
            self._calls.accepting.end_inputs(sending)
            await self._calls.accepting.all_kept(sending)
        finally:
            call.senders -= 1
            self._calls.accepting.sender_left(call)
        return CallRetried(call_id, count)

    async def _argument(self, call_id: str, position: int) -> tuple[int, bytes] | None:
        """Flags and body of one input."""
        row = await self._store.one("chunk_at", call_id=call_id, position=position)
        if row is None:
            return None
        body = bytes(row["body"])
        if row["sizes"] is None:
            return row["flags"], body
        sizes = [int.from_bytes(row["sizes"][at : at + 4], "big") for at in range(0, len(row["sizes"]), 4)]
        before = sum(sizes[: position - row["start"]])
        return row["flags"], body[before : before + sizes[position - row["start"]]]

    async def _first_failed(self, row: Row) -> int:
        rows = await self._store.read("outputs_failed_from", call_id=row["call_id"], start=0, limit=1)
        return int(rows[0]["position"]) if rows else 0

    async def _failed(self, row: Row) -> list[int]:
        """Positions without a value."""
        call_id = row["call_id"]
        rows = await self._store.read("outputs_failed_from", call_id=call_id, start=0, limit=_ROWS)
        if len(rows) >= row["failed"]:
            return [int(one["position"]) for one in rows]
        done: set[int] = set()
        for one in await self._store.read("outputs_between", call_id=call_id, start=0, stop=1 << 62, limit=_ROWS):
            if one["kind"] in {results.VALUES, results.TAKEN}:
                done.update(results.from_row(one).positions)
        return [position for position in range(row["accepted"]) if position not in done]

    async def _between(self, row: Row, start: int, stop: int) -> list[InputShown]:
        call_id = row["call_id"]
        known: dict[int, InputShown] = {}
        rest: dict[str, Any] | None = None
        rows = await self._store.read("outputs_between", call_id=call_id, start=start, stop=stop, limit=_ROWS)
        for one in rows:
            if one["kind"] == results.REST:
                rest = results.rest_of_head(one["head"])
            elif one["kind"] == results.END:
                known[one["start"]] = _ended(call_id, _decode_update(one["head"]), one["start"])
            elif one["kind"] == results.VALUES:
                head = chunk.Outputs.decode(one["head"])
                for position in head.positions:
                    if start <= position < stop:
                        known[position] = InputShown(
                            position, ids.input_id(call_id, position), ResultStatus.SUCCESS, head.attempt,
                            head.container, ended=head.ended,
                        )  # fmt: skip
            else:
                for position in results.from_row(one).positions:
                    if start <= position < stop:
                        known[position] = InputShown(position, ids.input_id(call_id, position), ResultStatus.SUCCESS)
        if rest is None and row["done_at"] is not None:
            rest = results.rest_of_row(row)
        running = {one.position: one for one in self._views.running(call_id)} if rest is None else {}
        return [known.get(at) or _open(call_id, at, rest, running) for at in range(start, stop)]


def _open(call_id: str, at: int, rest: dict[str, Any] | None, running: dict[int, RunningInput]) -> InputShown:
    """An input without an output of its own."""
    if rest is not None:
        return _ended(call_id, msgspec.convert({**rest, "position": at}, CallUpdate), at)
    one = running.get(at)
    if one is None:
        return InputShown(at, ids.input_id(call_id, at), "waiting")
    return InputShown(at, one.input_id, "running", one.attempt, one.container, one.since)


def _ended(call_id: str, update: CallUpdate, position: int) -> InputShown:
    if update.status == ResultStatus.SUCCESS:
        words = ""
    elif update.failure is not None:
        words = f"{update.failure.type.removeprefix('builtins.')}: {update.failure.message}"
    else:
        words = str((update.error or {}).get("message", update.status))
    return InputShown(
        position,
        ids.input_id(call_id, position),
        update.status,
        update.attempt,
        update.container,
        error=words,
        failure=update.failure,
    )
