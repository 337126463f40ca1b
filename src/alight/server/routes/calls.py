"""Requests about calls: start, wait, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from alight.link.peer import Stream
from alight.server.auth import CONTAINER, OWNER, Principal
from alight.server.request import Request, Routes
from alight.server.services.apps import Apps
from alight.server.services.calls import Calls, Live
from alight.server.services.functions import Functions
from alight.server.services.results import Result
from alight.wire import errors
from alight.wire.messages import CallCancel, CallResult, CallStart, CallUpdate
from alight.wire.states import InputState

_FIRST_WORD = 0.3  # a call that runs at once needs no word about waiting
_NEXT_WORDS = 0.5


def routes(calls: Calls, functions: Functions, apps: Apps, why: Callable[[str], str]) -> Routes:
    async def start(request: Request) -> None:
        asked = request.arguments(CallStart)
        function = functions.by_id.get(asked.function_id)
        if function is None:
            await _of_a_stopped_app(request, asked)
            return
        _check(request.who, function.app_id, function.owner)
        found = await calls.start(asked, request.stream.opened_body, function)
        if not asked.wait:
            await request.stream.send(CallUpdate(asked.call_id, "accepted", asked.input_id))
        else:
            await _follow(request.stream, found, why)

    async def _of_a_stopped_app(request: Request, asked: CallStart) -> None:
        """The app has ended; a call that was made before may still have its result."""
        try:
            found = await calls.find(asked.call_id, 0)
        except errors.NotFoundError:
            functions.get(asked.function_id)
            raise
        await _check_result(request.who, found)
        await _follow(request.stream, found[0] if isinstance(found, tuple) else found, why)

    async def result(request: Request) -> None:
        asked = request.arguments(CallResult)
        found = await calls.find(asked.call_id, asked.index)
        await _check_result(request.who, found)
        work = _follow(request.stream, found[0] if isinstance(found, tuple) else found, why)
        if asked.timeout is None or isinstance(found, tuple):
            await work
            return
        try:
            await asyncio.wait_for(work, max(0.0, asked.timeout))
        except asyncio.TimeoutError:
            raise errors.TimeoutError(f"the call has not ended within {asked.timeout:g} s") from None

    async def cancel(request: Request) -> None:
        asked = request.arguments(CallCancel)
        found = await calls.find(asked.call_id, 0)
        await _check_result(request.who, found)
        if isinstance(found, Live):
            calls.cancel(found.input_id, "the call was cancelled", kill=asked.terminate_containers)
        await request.stream.send({})

    async def _check_result(who: Principal, found: Live | tuple[Result, str]) -> None:
        app_id = found.app_id if isinstance(found, Live) else found[1]
        owner = await apps.owner_of(app_id)
        if who.kind == CONTAINER and owner is not None and owner[1] == who.environment and who.owner == owner[0]:
            return
        _check(who, app_id, owner[0] if owner is not None else "")

    return {"call.start": start, "call.result": result, "call.cancel": cancel}


def _check(who: Principal, app_id: str, owner: str) -> None:
    if who.kind == OWNER or (who.kind == CONTAINER and who.app_id == app_id):
        return
    if who.kind == CONTAINER or who.owner != owner:
        raise errors.PermissionDeniedError("this function or call belongs to somebody else")


async def _follow(stream: Stream, found: Live | Result, why: Callable[[str], str]) -> None:
    """Tell how a call goes on until it is done."""
    if isinstance(found, Result):
        await stream.send(found.update, found.body)
        return
    if not found.done.done():
        teller = _Teller(stream, found, why)
        try:
            await asyncio.shield(found.done)
        finally:
            teller.close()
    done = found.done.result()
    await stream.send(done.update, done.body)


class _Teller:
    """Says why a call waits, and that it runs, to a caller who has waited long enough to wonder."""

    def __init__(self, stream: Stream, live: Live, why: Callable[[str], str]) -> None:
        self._stream = stream
        self._live = live
        self._why = why
        self._said = ("", "")
        self._timer = asyncio.get_running_loop().call_later(_FIRST_WORD, self._tell)

    def close(self) -> None:
        self._timer.cancel()

    def _tell(self) -> None:
        if self._stream.broken:
            return
        live = self._live
        words = (live.state, self._why(live.input_id) if live.state == InputState.WAITING else "")
        if words != self._said and self._stream.may_send:
            self._said = words
            update = CallUpdate(
                live.call_id, live.state, live.input_id, attempt=live.attempt, container=live.container, why=words[1]
            )
            self._stream.send_nowait(update)
        self._timer = asyncio.get_running_loop().call_later(_NEXT_WORDS, self._tell)
