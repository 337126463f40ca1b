"""Requests about calls: start, wait, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from alight.link.peer import Stream
from alight.server.auth import CONTAINER, OWNER, Principal
from alight.server.request import QuickRoutes, Request, Routes
from alight.server.services import results
from alight.server.services.apps import Apps
from alight.server.services.calls import Calls, Live
from alight.server.services.functions import Functions
from alight.server.services.results import Result
from alight.wire import errors
from alight.wire.messages import CallCancel, CallResult, CallStart, CallUpdate
from alight.wire.states import InputState

_FIRST_WORD = 0.3  # a call that runs at once needs no word about waiting
_NEXT_WORDS = 0.5
_LOOK = 0.1  # seconds


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


def quick_routes(calls: Calls, functions: Functions, why: Callable[[str], str]) -> QuickRoutes:
    teller = _Teller(why)

    def start(request: Request) -> bool:
        """The common case: a new call whose caller waits, of a function that is there."""
        asked = request.arguments(CallStart)
        function = functions.by_id.get(asked.function_id)
        if function is None:
            return False
        _check(request.who, function.app_id, function.owner)
        stream = request.stream
        live = calls.start_now(asked, stream.opened_body, function)
        if live is None:
            return False

        def answer(result: Result) -> None:
            teller.drop(stream)
            if not stream.broken:
                stream.send_nowait(results.head(result.update), result.body)
                stream.finish()

        live.listeners.append(answer)
        teller.add(stream, live)
        return True

    return {"call.start": start}


def _check(who: Principal, app_id: str, owner: str) -> None:
    if who.kind == OWNER or (who.kind == CONTAINER and who.app_id == app_id):
        return
    if who.kind == CONTAINER or who.owner != owner:
        raise errors.PermissionDeniedError("this function or call belongs to somebody else")


async def _follow(stream: Stream, found: Live | Result, why: Callable[[str], str]) -> None:
    """Tell how a call goes on until it is done."""
    if isinstance(found, Result):
        await stream.send(results.head(found.update), found.body)
        return
    if not found.done.done():
        teller = _Teller(why)
        teller.add(stream, found)
        try:
            await asyncio.shield(found.done)
        finally:
            teller.drop(stream)
    done = found.done.result()
    await stream.send(results.head(done.update), done.body)


class _Teller:
    """Says why calls wait, and that they run, to callers who have waited long enough to wonder."""

    def __init__(self, why: Callable[[str], str]) -> None:
        self._why = why
        self._waiting: dict[Stream, _Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Stream, live: Live) -> None:
        """Somebody waits for this input."""
        loop = asyncio.get_running_loop()
        self._waiting[stream] = _Waiting(live, loop.time() + _FIRST_WORD)
        if self._timer is None:
            self._timer = loop.call_later(_FIRST_WORD, self._look, loop)

    def drop(self, stream: Stream) -> None:
        """Nobody waits here any more."""
        self._waiting.pop(stream, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for everybody: most calls are over before it looks once."""
        self._timer = None
        now = loop.time()
        for stream, one in list(self._waiting.items()):
            if stream.broken:
                del self._waiting[stream]
            elif now >= one.next:
                one.next = now + _NEXT_WORDS
                self._tell(stream, one)
        if self._waiting:
            self._timer = loop.call_later(_LOOK, self._look, loop)

    def _tell(self, stream: Stream, one: _Waiting) -> None:
        live = one.live
        words = (live.state, self._why(live.input_id) if live.state == InputState.WAITING else "")
        if words != one.said and stream.may_send:
            one.said = words
            update = CallUpdate(
                live.call_id, live.state, live.input_id, attempt=live.attempt, container=live.container, why=words[1]
            )
            stream.send_nowait(update)


@dataclass
class _Waiting:
    """Who waits for an input: when they hear next (of the loop's clock), and what they heard last."""

    live: Live
    next: float
    said: tuple[str, str] = ("", "")
