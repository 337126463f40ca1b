"""What comes back of a call, for one reader, over lost connections: the part that maps, generators and looks have
in common.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, List, Optional

from alight.sdk.lost import LostError
from alight.sdk.single import cancel_and_forget
from alight.sdk.waits import Waiting
from alight.wire import ambient, calling, errors

if TYPE_CHECKING:
    from alight.sdk.callee import Callee
    from alight.sdk.conversation import Message, Stream


class Answers:
    """The stream of a call. Subclasses say how it is opened, first and again, and what its messages mean.

    ``more`` is what readers call: the next results as a list, None when there are no more. ``close`` is called by a
    reader that stops, at any time, from any thread; it never waits.
    """

    cancels = True  # whether the call ends with its reader

    def __init__(self, callee: Callee, call_id: str) -> None:
        self.callee = callee
        self.call_id = call_id
        self.ended = False
        self._stream: Optional[Stream] = None
        self._told = Waiting(call_id)
        self._begun = False
        self._interrupted = False

    async def more(self) -> Optional[List[Any]]:
        """The next results. Raises what stands in their place, and then has no more."""
        if self.ended:
            return None
        try:
            if not self._begun:
                self._begun = True
                self.callee.client.held_calls.add(self.call_id)
                self._stream = await self._open(again=False)
            found = await self._next()
        except Exception:
            self.close()
            raise
        except BaseException:  # Ctrl-C, or the reader's task was cancelled
            self._interrupted = True
            self.close()
            raise
        if found is None:
            self._end()
        return found

    def close(self) -> None:
        """The reader stops: the call is cancelled, unless it ended or was only looked at."""
        if self.ended:
            return
        lives_on = self._interrupted and self.callee.running is not None and self.callee.running.detach
        if self._begun and self.cancels and not lives_on:
            cancel_and_forget(self.callee, self.call_id)
        stream = self._stream
        self._end()
        if stream is not None:
            stream.leave()
        carrier = self.callee.client.carrier
        if carrier is not None and self._begun:
            carrier.ensure_background()  # what is still on its way has to be read, or the server cannot write past it

    async def _open(self, *, again: bool) -> Stream:
        """Open the stream; ``again`` after a lost connection. May raise LostError."""
        raise NotImplementedError

    async def _next(self) -> Optional[List[Any]]:
        raise NotImplementedError

    def _end(self) -> None:
        """Everything was said, or nobody listens any more."""
        self.ended = True
        self._stream = None
        self.callee.client.held_calls.discard(self.call_id)
        self._told.over()

    async def _receive(self, within: Optional[float] = None) -> Optional[Message]:
        """The next message, None when the server ended the stream. Late (``within`` seconds): builtin TimeoutError."""
        assert self._stream is not None
        try:
            message = self._stream.take()
        except LostError as lost:
            await self._reopen(lost)
            message = None
        if message is not None:
            return message
        on_waiting = ambient.on_waiting
        if on_waiting is None:
            return await self._wait(within)
        on_waiting(True)
        try:
            return await self._wait(within)
        finally:
            on_waiting(False)

    async def _wait(self, within: Optional[float]) -> Optional[Message]:
        deadline = None if within is None else time.monotonic() + within
        while True:
            assert self._stream is not None
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                return await self._stream.recv_within(self._told.sooner(left))
            except errors.BuiltinTimeoutError:
                if not self._told.say() or (deadline is not None and time.monotonic() >= deadline):
                    raise
            except LostError as lost:
                await self._reopen(lost)

    async def _reopen(self, lost: LostError) -> None:
        while True:
            await self.callee.client.after_loss(lost)
            try:
                self._stream = await self._open(again=True)
            except LostError as once_more:
                lost = once_more
            else:
                return

    def _waits(self, update: calling.CallUpdate) -> None:
        """A word about how the call stands."""
        self._told.because(update.why)
