"""Says why calls wait, and that they run, to callers who have waited long enough to wonder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from alight.link.peer import Stream
from alight.server.services.call import Call
from alight.wire.calling import CallUpdate
from alight.wire.states import InputState

_FIRST_WORD = 0.3  # a call that runs at once needs no word about waiting
_NEXT_WORDS = 0.5
_LOOK = 0.1  # seconds


class Teller:
    """One timer for everybody: most calls are over before it looks once."""

    def __init__(self, why: Callable[[str], str]) -> None:
        self._why = why
        self._waiting: dict[Stream, _Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Stream, call: Call) -> None:
        """Somebody waits for this call."""
        loop = asyncio.get_running_loop()
        self._waiting[stream] = _Waiting(call, loop.time() + _FIRST_WORD)
        if self._timer is None:
            self._timer = loop.call_later(_FIRST_WORD, self._look, loop)

    def drop(self, stream: Stream) -> None:
        """Nobody waits here any more."""
        self._waiting.pop(stream, None)
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for stream, one in list(self._waiting.items()):
            if stream.broken or one.call.over:
                del self._waiting[stream]
            elif now >= one.next:
                one.next = now + _NEXT_WORDS
                self._tell(stream, one)
        if self._waiting:
            self._timer = loop.call_later(_LOOK, self._look, loop)

    def _tell(self, stream: Stream, one: _Waiting) -> None:
        call = one.call
        holdings = call.holdings
        if holdings:
            first = holdings[0]
            update = CallUpdate(
                call.call_id,
                InputState.RUNNING,
                first.start,
                attempt=first.attempt,
                container=first.container_id,
            )
        elif call.accepted > call.ended:
            update = CallUpdate(call.call_id, InputState.WAITING, why=self._why(call.call_id))
        else:
            return  # its caller has sent nothing that is not answered
        words = (update.state, update.why)
        if words != one.said and stream.may_send:
            one.said = words
            stream.send_nowait(update)


@dataclass
class _Waiting:
    """Who waits for a call: when they hear next (of the loop's clock), and what they heard last."""

    call: Call
    next: float
    said: tuple[str, str] = ("", "")
