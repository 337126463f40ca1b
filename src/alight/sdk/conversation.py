"""One conversation on a connection: messages both ways, and futures that whoever waits reads the socket for.

Must not import sockets: the carrier brings what is said here.
"""

from __future__ import annotations

import json
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, Optional, Sequence, Tuple

from alight.sdk.future import Future
from alight.wire import errors
from alight.wire.codec import Buffer, Kind, dumps_head

if TYPE_CHECKING:
    from alight.sdk.carrier import Carrier
    from alight.wire.connection import Event

Message = Tuple[bytes, bytes]
OnMessage = Callable[[Optional[Message], Optional[errors.Error]], None]

_SAY_TAKEN = 64 << 10  # bytes: far below a stream's window, and more than most messages have


class Arrival(Future):
    """A future that this carrier's reader completes; waiting for it may mean reading."""

    __slots__ = ("_carrier",)

    def __init__(self, carrier: Carrier) -> None:
        super().__init__()
        self._carrier = carrier

    def wait(self, timeout: Optional[float] = None) -> bool:
        return self._carrier.wait_for(self, timeout)

    def on_done(self, callback: Callable[[], Any]) -> None:
        """``add_callback`` for the carrier's own followers, which see to the reading themselves."""
        super().add_callback(callback)

    def add_callback(self, callback: Callable[[], Any]) -> None:
        super().add_callback(callback)
        self._carrier.ensure_background()


class Stream:
    """A conversation with the server. Messages are (head, body) pairs."""

    __slots__ = ("_arrival", "_carrier", "_credit", "_ended", "_error", "_listener", "_queue", "_taken", "number")

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self.number = 0
        self._queue: Deque[Message] = deque()
        self._ended = False
        self._error: Optional[errors.Error] = None
        self._arrival: Optional[Arrival] = None
        self._credit: Optional[Arrival] = None
        self._listener: Optional[OnMessage] = None
        self._taken = 0  # bytes that were taken and not told

    async def recv(self) -> Optional[Message]:
        """The next message, None when the server ended its half. Raises the error that ended the stream."""
        while True:
            message = self._take()
            if message is not None:
                return message
            if self._over():
                return None
            arrival = self._new_arrival()
            if not self._queue and not self._ended and self._error is None:
                await arrival

    async def recv_within(self, seconds: Optional[float]) -> Optional[Message]:
        """``recv`` that raises the builtin TimeoutError when nothing comes in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            message = self._take()
            if message is not None:
                return message
            if self._over():
                return None
            arrival = self._new_arrival()
            if not self._queue and not self._ended and self._error is None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left < 0:
                    raise errors.BuiltinTimeoutError
                await arrival.within(left)

    async def send(self, message: Any = None, body: Buffer = b"") -> None:
        """Send one message; waits while the server has not taken enough of the earlier ones."""
        await self.write(b"" if message is None else dumps_head(message), body)

    async def write(self, head: bytes, body: Buffer = b"") -> None:
        """``send`` of a head that is encoded already."""
        await self._room()
        self._carrier.send(self.number, head, body)

    async def write_all(self, messages: Sequence[Tuple[bytes, Buffer]]) -> None:
        """``write`` of several, which leave together as far as the server takes them."""
        at = 0
        while at < len(messages):
            await self._room()
            at = self._carrier.send_from(self.number, messages, at)

    def take(self) -> Optional[Message]:
        """A message that is here already, or None."""
        return self._take()

    def end(self) -> None:
        """Say that nothing more comes from here."""
        self._carrier.end(self.number)

    def leave(self) -> None:
        """Stop listening; the server is told that nobody waits here any more."""
        self._carrier.fail(self.number, errors.to_wire(errors.ClientClosed("the caller stopped waiting")))
        if self._credit is not None:
            self._credit.set()  # whoever still sends here need not wait for the server to take it

    def listen(self, listener: OnMessage) -> None:
        """Have every message handed to ``listener`` by the thread that read it; (None, error or None) is the end."""
        self._listener = listener
        while True:
            message = self._take()
            if message is None:
                break
            listener(message, None)
        if self._ended or self._error is not None:
            listener(None, self._error)
        self._carrier.ensure_background()

    def arrival(self) -> Arrival:
        """A future that something on this stream completes: who waits for it may have to read."""
        return Arrival(self._carrier)

    def on_event(self, event: Event) -> None:
        """Called by the reading thread."""
        kind = event.kind
        if kind == Kind.DATA:
            if self._listener is not None:
                self._carrier.took(self.number, len(event.body))
                self._listener((event.head, event.body), None)
                return
            self._queue.append((event.head, event.body))
        elif kind == Kind.END:
            self._ended = True
            if self._listener is not None:
                self._listener(None, None)
        elif kind == Kind.CREDIT:
            if self._credit is not None:
                self._credit.set()
            return
        elif kind == Kind.ERROR:
            self.on_error(errors.from_wire(json.loads(event.head) if event.head else {}))
            return
        arrival = self._arrival
        if arrival is not None:
            arrival.set()

    def on_error(self, error: errors.Error) -> None:
        if self._error is None and not self._ended:
            self._error = error
            if self._listener is not None:
                self._listener(None, error)
        for future in (self._arrival, self._credit):
            if future is not None:
                future.set()

    async def _room(self) -> None:
        """Return when the server takes more. Raises the error that ended the stream."""
        carrier = self._carrier
        while not carrier.may_send(self.number):
            if self._error is not None:
                raise self._error
            credit = self._credit = Arrival(carrier)
            if not carrier.may_send(self.number):
                await credit
        if self._error is not None:
            raise self._error

    def _take(self) -> Optional[Message]:
        if not self._queue:
            return None
        message = self._queue.popleft()
        self._taken += len(message[1])
        if self._taken >= _SAY_TAKEN:
            self._carrier.took(self.number, self._taken)
            self._taken = 0
        return message

    def _over(self) -> bool:
        if self._queue:
            return False
        if self._error is not None:
            raise self._error
        return self._ended

    def _new_arrival(self) -> Arrival:
        arrival = self._arrival = Arrival(self._carrier)
        return arrival
