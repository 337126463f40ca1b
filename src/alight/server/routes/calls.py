"""Requests about calls: start, send inputs, wait, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from alight.link.peer import Stream
from alight.link.turn import turn_of
from alight.server.auth import CONTAINER, OWNER, Principal
from alight.server.request import QuickRoutes, Request, Routes
from alight.server.routes.telling import Teller
from alight.server.services.accepting import Sending
from alight.server.services.apps import Apps
from alight.server.services.call import Call
from alight.server.services.calls import Calls
from alight.server.services.functions import Functions
from alight.server.services.published import Published, may_use
from alight.server.services.readers import Reader
from alight.server.services.together import together
from alight.store.base import Row
from alight.wire import errors
from alight.wire.calling import CallCancel, CallResult, CallStart, CallUpdate


def routes(calls: Calls, functions: Functions, apps: Apps, why: Callable[[str], str]) -> Routes:
    async def start(request: Request) -> None:
        asked, stream = request.arguments(CallStart), request.stream
        function = functions.by_id.get(asked.function_id)
        if function is None:
            await _of_a_stopped_app(request, asked)
            return
        _check_use(request.who, function)
        call, row = await calls.accepting.start(asked, stream.opened_body, function)
        if asked.many and call is not None:
            await _many(stream, asked, call)
        elif not asked.wait:
            accepted = call.accepted if call is not None else (row["accepted"] if row is not None else 1)
            await stream.send(CallUpdate(asked.call_id, "accepted", accepted=accepted))
            stream.end_nowait()
            stream.peer.flush()  # its caller waits for this alone; what the scheduler makes of it comes after
        else:
            await _follow(stream, asked, call, row)

    async def _follow(stream: Stream, asked: CallStart, call: Call | None, row: Row | None) -> None:
        """Tell a caller what comes of inputs that are here already."""
        if asked.resend:
            accepted = call.accepted if call is not None else (row["accepted"] if row is not None else 0)
            await stream.send(CallUpdate(asked.call_id, "accepted", accepted=accepted))
        reader = await calls.reader(stream, call, row or {}, have=asked.have, items=asked.items)
        await _read(stream, reader, None)

    async def _read(stream: Stream, reader: Reader, timeout: float | None) -> None:
        call = reader.call
        teller = Teller(why)
        if call is not None:
            teller.add(stream, call)
        breaking = asyncio.get_running_loop().create_task(stream.wait_broken())
        breaking.add_done_callback(lambda _: reader.wake())
        try:
            await asyncio.wait_for(reader.follow(), timeout)
        except asyncio.TimeoutError:
            raise errors.TimeoutError(f"the call has not ended within {timeout:g} s") from None
        finally:
            breaking.cancel()
            teller.drop(stream)
            calls.leave(reader)

    async def _many(stream: Stream, asked: CallStart, call: Call) -> None:
        """Take a caller's inputs while telling what comes of them."""
        if asked.resend:
            await stream.send(CallUpdate(asked.call_id, "accepted", accepted=call.accepted))
        sending = Sending(call, asked.have if asked.resend else ())
        calls.accepting.resume(sending)
        call.senders += 1
        reading: asyncio.Task[None] | None = None
        if asked.wait:
            reader = await calls.reader(stream, call, {}, have=asked.have, items=asked.items)
            reading = asyncio.get_running_loop().create_task(_read(stream, reader, None))
        try:
            if reading is not None:
                # The call may be over before its caller has sent all.
                await _both(asyncio.ensure_future(_receive(stream, sending)), reading)
            else:
                await _receive(stream, sending)
                calls.accepting.end_inputs(sending)
                await calls.accepting.all_kept(sending)
                await stream.send(CallUpdate(asked.call_id, "accepted", accepted=call.accepted))
        finally:
            call.senders -= 1
            if reading is not None:
                reading.cancel()
            calls.accepting.sender_left(call)

    async def _receive(stream: Stream, sending: Sending) -> None:
        while not sending.call.over:
            messages = await stream.recv_all()
            if not messages:
                calls.accepting.end_inputs(sending)
                return
            for said, body in together(messages):
                await calls.accepting.accept(sending, said, body)

    async def _of_a_stopped_app(request: Request, asked: CallStart) -> None:
        """The app has ended; a call that was made before may still have its results."""
        try:
            call, row = await calls.find(asked.call_id)
        except errors.NotFoundError:
            functions.get(asked.function_id)
            raise
        await _check_call(request.who, row["app_id"])
        await _follow(request.stream, asked, call, row)

    async def result(request: Request) -> None:
        asked = request.arguments(CallResult)
        call, row = await calls.find(asked.call_id)
        await _check_call(request.who, row["app_id"])
        start, stop = (asked.index, asked.index + 1) if asked.index >= 0 else (asked.start, asked.stop)
        if asked.index >= 0:
            _check_index(asked, call, row)
        reader = await calls.reader(
            request.stream, call, row, start=start, stop=stop, have=asked.have, items=asked.items
        )
        await _read(request.stream, reader, None if asked.timeout is None else max(0.01, asked.timeout))

    async def cancel(request: Request) -> None:
        asked = request.arguments(CallCancel)
        _, row = await calls.find(asked.call_id)
        await _check_call(request.who, row["app_id"])
        await calls.cancel(asked.call_id, "the call was cancelled", kill=asked.terminate_containers)
        await request.stream.send({})

    async def _check_call(who: Principal, app_id: str) -> None:
        owner = await apps.owner_of(app_id)
        if who.kind == CONTAINER and owner is not None and owner[1] == who.environment and who.owner == owner[0]:
            return
        _check(who, app_id, owner[0] if owner is not None else "")

    return {"call.start": start, "call.result": result, "call.cancel": cancel}


class _Plain(msgspec.Struct):
    """``CallStart`` as it nearly always is. Reading it costs half: nothing is nested, and no default has to be made."""

    call_id: str
    function_id: str
    verb: str = "remote"
    method: str = ""
    parent_input: str = ""
    # Whoever says one of these takes the long way.
    many: bool = False
    wait: bool = True
    resend: bool = False
    json: bool = False
    payload: Any = None


_decode_plain = msgspec.json.Decoder(_Plain).decode


def quick_routes(calls: Calls, functions: Functions, why: Callable[[str], str]) -> QuickRoutes:
    teller, turn = Teller(why), turn_of(asyncio.get_running_loop())

    def start(request: Request) -> bool:
        """The common case: a new call of one input whose caller waits, of a function that is there."""
        stream = request.stream
        try:
            asked = _decode_plain(stream.raw_args)
        except msgspec.MsgspecError:
            return False
        function = functions.by_id.get(asked.function_id)
        if function is None or asked.many or not asked.wait or asked.resend or asked.json or asked.payload is not None:
            return False
        _check_use(request.who, function)
        call = calls.accepting.start_now(asked, stream.opened_body, function)
        if call is None:
            return False
        calls.listen(call, calls.reader_now(stream, call))
        turn.afterwards(lambda: teller.add(stream, call))
        return True

    return {"call.start": start}


async def _both(receiving: asyncio.Future[None], reading: asyncio.Future[None]) -> None:
    """Return when the reader has everything. Raises what fails first."""
    try:
        await asyncio.wait({receiving, reading}, return_when=asyncio.FIRST_COMPLETED)
        if receiving.done():
            await receiving
        await reading
    finally:
        receiving.cancel()


def _check_use(who: Principal, function: Published) -> None:
    """A container may call what it could look up: its own app's functions, and those of its owner and environment."""
    if not (may_use(who, function) or (who.kind == CONTAINER and who.app_id == function.app_id)):
        raise errors.PermissionDeniedError("this function or call belongs to somebody else")


def _check(who: Principal, app_id: str, owner: str) -> None:
    if who.kind == OWNER or (who.kind == CONTAINER and who.app_id == app_id):
        return
    if who.kind == CONTAINER or who.owner != owner:
        raise errors.PermissionDeniedError("this function or call belongs to somebody else")


def _check_index(asked: CallResult, call: Call | None, row: Row) -> None:
    accepted, total = (call.accepted, call.total) if call is not None else (row["accepted"], row["total"])
    if total is not None and asked.index >= accepted:
        raise errors.NotFoundError(f"the call {asked.call_id} has no input {asked.index}: it has {accepted}")
