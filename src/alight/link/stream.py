"""A conversation on a connection, for asyncio: messages in, messages out, at the pace of who reads.

Who can take messages without waiting listens (``listen``) and costs no task; everybody else awaits ``recv``.
"""

from __future__ import annotations

import asyncio
import collections
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Deque, Dict, List, Optional, Tuple, Type, TypeVar

import msgspec

from alight.wire import errors
from alight.wire.codec import Buffer

if TYPE_CHECKING:
    from alight.link.peer import Peer

T = TypeVar("T")
Message = Tuple[bytes, bytes]

_encode = msgspec.json.encode
_decoders: Dict[Any, Any] = {}


def decode(kind: Type[T], head: bytes) -> T:
    """A JSON head as a dataclass of ``wire``. Raises InternalError when it does not fit."""
    try:
        found: T = decoder_of(kind).decode(head or b"{}")
    except msgspec.MsgspecError as error:
        raise errors.InternalError(f"a message {kind.__name__} could not be read: {error}") from error
    return found


def decoder_of(kind: Any) -> Any:
    """The decoder of a type: msgspec learns what a dataclass looks like once, not at every message."""
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found


class Stream:
    """A conversation. Messages are (head, body) pairs; heads are JSON, bodies opaque.

    Promised: order. Not promised: that what was sent arrived; the conversation itself says so where it matters.
    """

    def __init__(self, peer: Peer, number: int) -> None:
        self.peer = peer
        self.id = number
        self.method = ""
        self.raw_args: Any = b"{}"
        self.opened_body = b""
        self.container = ""
        self._received: Deque[Message] = collections.deque()
        self._ended = False
        self._error: Optional[Exception] = None
        self._reader: Optional[asyncio.Future[None]] = None
        self._credit: Optional[asyncio.Future[None]] = None
        self._broke: Optional[asyncio.Future[None]] = None
        self._listener: Optional[Callable[[bytes, bytes], None]] = None

    @property
    def args(self) -> Dict[str, Any]:
        """The OPEN frame's args, for who passes them on."""
        plain: Dict[str, Any] = msgspec.json.decode(self.raw_args)
        return plain

    def arguments(self, kind: Type[T]) -> T:
        """The OPEN frame's args as a dataclass."""
        try:
            found: T = decoder_of(kind).decode(self.raw_args)
        except msgspec.MsgspecError as error:
            raise errors.InvalidError(f"the arguments of {kind.__name__} do not fit: {error}") from error
        return found

    @staticmethod
    def decode(kind: Type[T], head: bytes) -> T:
        return decode(kind, head)

    async def send(self, message: Any = None, body: Buffer = b"") -> None:
        """Send one message; waits while the peer has not taken enough of the earlier ones.

        Raises the peer's error when it failed the stream, ConnectionError when the connection is gone.
        """
        await self.send_raw(b"" if message is None else _encode(message), body)

    async def send_raw(self, head: bytes, body: Buffer = b"") -> None:
        """``send`` for a head that is encoded already (relays)."""
        while True:
            self._raise_if_broken()
            if self.peer.connection.may_send(self.id):
                break
            self._credit = asyncio.get_running_loop().create_future()
            await self._credit
        self.peer.connection.send(self.id, head, body)
        self.peer.flush_soon()
        if self.peer.congested is not None:
            await self.peer.congested

    def send_nowait(self, message: Any = None, body: Buffer = b"") -> None:
        """Send without waiting for credit: for small control messages only."""
        self.peer.connection.send(self.id, b"" if message is None else _encode(message), body)
        self.peer.flush_soon()

    @property
    def may_send(self) -> bool:
        """Whether ``send`` would not have to wait for the peer to read."""
        return self.peer.connection.may_send(self.id) and self.peer.congested is None

    async def recv(self) -> Optional[Message]:
        """The next message, or None when the peer ended its half. Raises the error that failed the stream."""
        if not self._received and not await self._arrived():
            return None
        message = self._received.popleft()
        if message[1]:
            self.peer.connection.took(self.id, len(message[1]))
            self.peer.flush_soon()
        return message

    async def recv_all(self) -> List[Message]:
        """Every message that is here, at least one; none when the peer ended its half. Raises like ``recv``."""
        if not self._received and not await self._arrived():
            return []
        messages = list(self._received)
        self._received.clear()
        size = sum([len(body) for _, body in messages])
        if size:
            self.peer.connection.took(self.id, size)
            self.peer.flush_soon()
        return messages

    async def expect(self, kind: Type[T]) -> T:
        """The next message's head as a dataclass; ConnectionError when the peer ended instead."""
        message = await self.recv()
        if message is None:
            raise errors.ConnectionError(f"the other side ended {self.method or 'a request'} without an answer")
        return decode(kind, message[0])

    def listen(self, listener: Callable[[bytes, bytes], None]) -> None:
        """Have every message handed to ``listener`` as it comes; it must not wait. ``recv`` then waits for the end.

        What it raises ends the stream for us: ``recv`` raises it.
        """
        self._listener = listener
        received, self._received = self._received, collections.deque()
        for head, body in received:
            self.on_message(head, body)

    async def end(self) -> None:
        """Say that nothing more comes from here."""
        self.end_nowait()

    def end_nowait(self) -> None:
        """``end`` for code that never waits."""
        self.peer.connection.end(self.id)
        self.peer.flush_soon()

    def finish(self) -> None:
        """``end`` where it was the last word on both sides: the stream is over for us."""
        self.end_nowait()
        self.peer.forget_if_over(self)

    async def fail(self, error: BaseException) -> None:
        """End the conversation with an error. Who waits in ``recv`` of this side is not woken: see ``on_error``."""
        self.fail_nowait(error)

    def fail_nowait(self, error: BaseException) -> None:
        """``fail`` for code that never waits."""
        self.peer.connection.fail(self.id, _encode(errors.to_wire(error)))
        self.peer.flush_soon()
        self.peer.forget(self)

    @property
    def broken(self) -> bool:
        """Whether the other side failed the stream or the connection is gone."""
        return self._error is not None

    async def wait_broken(self) -> None:
        """Return when the other side failed the stream or is gone: nobody waits for an answer on it any more."""
        if self._error is None:
            if self._broke is None:
                self._broke = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._broke)

    async def wait_ended(self) -> None:
        """Return when the peer ended its half, failed, or is gone. Drops what it still says."""
        try:
            while await self.recv() is not None:
                pass
        except errors.Error:
            return

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            message = await self.recv()
            if message is None:
                return
            yield message

    def on_message(self, head: bytes, body: bytes) -> None:
        listener = self._listener
        if listener is None:
            self._received.append((head, body))
            self._wake()
        elif self._error is None:
            if body:
                self.peer.connection.took(self.id, len(body))
            try:
                listener(head, body)
            except Exception as error:  # noqa: BLE001  not ours to judge: it is raised in the task that waits for the end
                self.on_error(error)

    def on_end(self) -> None:
        self._ended = True
        self._wake()

    def on_error(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        if self._broke is not None and not self._broke.done():
            self._broke.set_result(None)
        self._wake()
        self.on_credit()

    def on_credit(self) -> None:
        if self._credit is not None and not self._credit.done():
            self._credit.set_result(None)
        self._credit = None

    async def _arrived(self) -> bool:
        """Whether there is a message, once that is known. Raises the error that failed the stream."""
        while not self._received:
            if self._error is not None:
                raise self._error
            if self._ended:
                return False
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return True

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        self._reader = None

    def _raise_if_broken(self) -> None:
        if self._error is not None:
            raise self._error
