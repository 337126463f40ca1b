"""One connection to one peer, and the streams on it.

Wraps ``wire.connection.Connection`` (which knows the protocol) with an asyncio transport (which knows sockets).
Everything queued within one turn of the loop leaves in one write. A stream that nobody reads stops its sender, not
its neighbours.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import os
import socket
import struct
from typing import Any, AsyncIterator, Awaitable, Callable, Deque, Dict, List, Optional, Tuple, Type, TypeVar

import msgspec

from alight.wire import codec, errors
from alight.wire.codec import Buffer, Kind
from alight.wire.connection import Connection, Event
from alight.wire.messages import Hello, Open
from alight.wire.version import check_peer

T = TypeVar("T")
Message = Tuple[bytes, bytes]
OnStream = Callable[["Peer", "Stream"], Awaitable[None]]
OnHello = Callable[["Peer"], Awaitable[Hello]]
OnClose = Callable[["Peer"], None]

log = logging.getLogger(__name__)

_HELLO_SECONDS = 10.0
_encode = msgspec.json.encode
_open_decoder = msgspec.json.Decoder(Open)
_hello_decoder = msgspec.json.Decoder(Hello)


def decode(kind: Type[T], head: bytes) -> T:
    """A JSON head as a dataclass of ``wire``. Raises InternalError when it does not fit."""
    try:
        return msgspec.json.decode(head or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise errors.InternalError(f"a message {kind.__name__} could not be read: {error}") from error


def convert(kind: Type[T], args: Dict[str, Any]) -> T:
    """The args of a stream as a dataclass of ``wire``."""
    try:
        return msgspec.convert(args, kind)
    except msgspec.MsgspecError as error:
        raise errors.InvalidError(f"the arguments of {kind.__name__} do not fit: {error}") from error


class Stream:
    """A conversation. Messages are (head, body) pairs; heads are JSON, bodies opaque.

    Promised: order. Not promised: that what was sent arrived; the conversation itself says so where it matters.
    """

    def __init__(self, peer: Peer, number: int) -> None:
        self.peer = peer
        self.id = number
        self.method = ""
        self.args: Dict[str, Any] = {}
        self.opened_body = b""
        self.container = ""
        self._received: Deque[Message] = collections.deque()
        self._ended = False
        self._error: Optional[errors.Error] = None
        self._reader: Optional[asyncio.Future[None]] = None
        self._credit: Optional[asyncio.Future[None]] = None
        self._broke: Optional[asyncio.Future[None]] = None

    def arguments(self, kind: Type[T]) -> T:
        """The OPEN frame's args as a dataclass."""
        return convert(kind, self.args)

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
        while not self._received:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        message = self._received.popleft()
        if message[1]:
            self.peer.connection.took(self.id, len(message[1]))
            self.peer.flush_soon()
        return message

    async def expect(self, kind: Type[T]) -> T:
        """The next message's head as a dataclass; ConnectionError when the peer ended instead."""
        message = await self.recv()
        if message is None:
            raise errors.ConnectionError(f"the other side ended {self.method or 'a request'} without an answer")
        return decode(kind, message[0])

    async def end(self) -> None:
        """Say that nothing more comes from here."""
        self.peer.connection.end(self.id)
        self.peer.flush_soon()

    async def fail(self, error: BaseException) -> None:
        """End the conversation with an error."""
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
        self._received.append((head, body))
        self._wake()

    def on_end(self) -> None:
        self._ended = True
        self._wake()

    def on_error(self, error: errors.Error) -> None:
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

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        self._reader = None

    def _raise_if_broken(self) -> None:
        if self._error is not None:
            raise self._error


class Peer(asyncio.Protocol):
    """The other end of a connection: says hello, opens streams, answers ours."""

    def __init__(
        self,
        *,
        ours: Optional[Hello],
        dialled: bool = False,
        on_stream: Optional[OnStream] = None,
        on_hello: Optional[OnHello] = None,
        on_close: Optional[OnClose] = None,
        http: Optional[Callable[[], asyncio.Protocol]] = None,
    ) -> None:
        self._dialled = dialled
        self._ours = ours
        self._on_stream = on_stream
        self._on_hello = on_hello
        self._on_close = on_close
        self._http = http
        self.connection = Connection(initiator=self._dialled)
        self.hello: Optional[Hello] = None
        self.info: Dict[str, Any] = {}
        self.uid: Optional[int] = None
        self.pid: Optional[int] = None
        self.congested: Optional[asyncio.Future[None]] = None
        self._streams: Dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: Optional[asyncio.Transport] = None
        self._flush_planned = False
        self._preface = b"" if not self._dialled else None
        self._loop = asyncio.get_running_loop()
        self._greeted: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._pong: Optional[asyncio.Future[None]] = None
        self._held: List[Event] = []
        self._greeting = False
        self._hello_timer: Optional[asyncio.TimerHandle] = None

    # using it

    async def open(
        self, method: str, args: Any = None, body: Buffer = b"", *, container: str = "", end: bool = False
    ) -> Stream:
        """Open a stream. ``end``: nothing more will be sent from here."""
        if self._closed.done():
            raise errors.ConnectionError("the connection is closed")
        plain = args if isinstance(args, dict) or args is None else msgspec.to_builtins(args)
        head = _encode(Open(method=method, args=plain or {}, container=container))
        number = self.connection.open(head, body, end=end)
        stream = Stream(self, number)
        stream.method = method
        self._streams[number] = stream
        self.flush_soon()
        if self.congested is not None:
            await self.congested
        return stream

    async def call(self, method: str, args: Any, reply: Type[T], body: Buffer = b"", *, container: str = "") -> T:
        """A request with one answer."""
        stream = await self.open(method, args, body, container=container, end=True)
        return await stream.expect(reply)

    def greet(self, hello: Hello) -> None:
        """Say our first words, on an end that dialled."""
        assert self._transport is not None
        self._transport.write(codec.PREFACE)
        self.connection.hello(_encode(hello))
        self._flush()

    async def wait_greeted(self) -> None:
        """Return when both sides have said hello. Raises what the other side refused with."""
        await asyncio.shield(self._greeted)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    async def ping(self, seconds: float) -> None:
        """Return when the peer answered. Raises ConnectionError after ``seconds``."""
        self._pong = self._loop.create_future()
        self.connection.ping()
        self.flush_soon()
        try:
            await asyncio.wait_for(asyncio.shield(self._pong), seconds)
        except asyncio.TimeoutError:
            raise errors.ConnectionError(f"the other side has not answered for {seconds:g} s") from None

    @property
    def closed(self) -> bool:
        return self._closed.done()

    @property
    def transport(self) -> Optional[asyncio.Transport]:
        return self._transport

    def close(self) -> None:
        """Write what is queued, then close."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by class
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._read_credentials(sock)
        if self._ours is not None:
            self.greet(self._ours)
        self._hello_timer = self._loop.call_later(_HELLO_SECONDS, self._no_hello)

    def data_received(self, data: bytes) -> None:
        if self._preface is not None:
            rest = self._read_preface(data)
            if rest is None:
                return
            data = rest
        try:
            events = self.connection.receive(data)
        except errors.InternalError as error:
            self._refuse(error)
            return
        for event in events:
            self._on_event(event)
        self.flush_soon()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        if self.congested is None:
            self.congested = self._loop.create_future()

    def resume_writing(self) -> None:
        if self.congested is not None and not self.congested.done():
            self.congested.set_result(None)
        self.congested = None

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        if self._closed.done():
            return
        self._closed.set_result(None)
        self.resume_writing()
        lost = errors.ConnectionError("the connection was lost" if exc is None else f"the connection was lost: {exc}")
        if not self._greeted.done():
            self._greeted.set_exception(lost)
            self._greeted.exception()  # it may be that nobody waits
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.on_error(lost)
        if self._on_close is not None and self.hello is not None:
            self._on_close(self)

    # events

    def _on_event(self, event: Event) -> None:
        kind = event.kind
        if kind == Kind.HELLO:
            self._on_peer_hello(event)
        elif kind == Kind.ERROR and event.stream == 0:
            error = errors.from_wire(msgspec.json.decode(event.head))
            if not self._greeted.done():
                self._greeted.set_exception(error)
                self._greeted.exception()
            self.close()
        elif self.hello is None or self._greeting:
            self._held.append(event)  # said before the greeting is over: kept in order
        elif kind == Kind.OPEN:
            self._on_open(event)
        elif kind == Kind.PONG:
            if self._pong is not None and not self._pong.done():
                self._pong.set_result(None)
        else:
            stream = self._streams.get(event.stream)
            if stream is None:
                return
            if kind == Kind.DATA:
                stream.on_message(event.head, event.body)
            elif kind == Kind.CREDIT:
                stream.on_credit()
            elif kind == Kind.END:
                stream.on_end()
                self._forget_if_over(stream)
            elif kind == Kind.ERROR:
                self._streams.pop(stream.id, None)
                stream.on_error(errors.from_wire(msgspec.json.decode(event.head or b"{}")))

    def _on_peer_hello(self, event: Event) -> None:
        try:
            hello = _hello_decoder.decode(event.head)
            check_peer(hello.wire, hello.version, hello.role)
        except errors.Error as error:
            self._refuse(error)
            return
        except msgspec.MsgspecError:
            self._refuse(errors.VersionError("the other side's first words are not Alight's"))
            return
        self.hello = hello
        if self._dialled or self._on_hello is None:
            self._finish_greeting()
            return
        self._greeting = True
        self._start(self._greet(self._on_hello))

    async def _greet(self, on_hello: OnHello) -> None:
        try:
            answer = await on_hello(self)
        except errors.Error as error:
            self._refuse(error)
            return
        self.connection.hello(_encode(answer))
        self.flush_soon()
        self._greeting = False
        self._finish_greeting()

    def _finish_greeting(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        if not self._greeted.done():
            self._greeted.set_result(None)
        held, self._held = self._held, []
        for event in held:
            self._on_event(event)

    def _on_open(self, event: Event) -> None:
        stream = Stream(self, event.stream)
        self._streams[event.stream] = stream
        try:
            head = _open_decoder.decode(event.head)
        except msgspec.MsgspecError as error:
            self.connection.fail(event.stream, _encode(errors.to_wire(errors.InternalError(f"unreadable: {error}"))))
            self._streams.pop(event.stream, None)
            return
        stream.method, stream.args, stream.container = head.method, head.args, head.container
        stream.opened_body = event.body
        self.connection.took(event.stream, len(event.body))
        if self._on_stream is None:
            self.connection.fail(
                event.stream, _encode(errors.to_wire(errors.UnimplementedError("this side answers no requests")))
            )
            self._streams.pop(event.stream, None)
            return
        self._start(self._serve_stream(stream, self._on_stream))

    async def _serve_stream(self, stream: Stream, on_stream: OnStream) -> None:
        try:
            await on_stream(self, stream)
            await stream.end()
        except errors.Error as error:
            await stream.fail(error)
        except asyncio.CancelledError:
            await stream.fail(errors.ServiceError("the other side is stopping"))
            raise
        except Exception:  # one of the loops: a fault in one request must not end the others
            fault = os.urandom(4).hex()
            log.exception("fault %s in %s", fault, stream.method)
            await stream.fail(
                errors.InternalError(
                    f"Alight failed at {stream.method} (fault {fault})", hint="`alight server logs` shows what happened"
                )
            )
        finally:
            self._forget_if_over(stream)

    # writing

    def flush_soon(self) -> None:
        """Write what is queued at the end of this turn of the loop."""
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        pieces = self.connection.take_output()
        if not pieces or self._transport is None or self._transport.is_closing():
            return
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)

    # inside

    def forget(self, stream: Stream) -> None:
        """Drop a stream that is over for us."""
        self._streams.pop(stream.id, None)

    def _forget_if_over(self, stream: Stream) -> None:
        if not self.connection.is_open(stream.id):
            self._streams.pop(stream.id, None)

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse(self, error: errors.Error) -> None:
        self.connection.refuse(_encode(errors.to_wire(error)))
        if not self._greeted.done():
            self._greeted.set_exception(error)
            self._greeted.exception()
        self.close()

    def _no_hello(self) -> None:
        if self.hello is None:
            self._refuse(errors.ConnectionError(f"nobody said hello within {_HELLO_SECONDS:g} s"))

    def _read_preface(self, data: bytes) -> Optional[bytes]:
        """The bytes after our preface; None while it is not whole or when the connection was handed to HTTP."""
        assert self._preface is not None
        seen = self._preface + data
        want = codec.PREFACE
        if seen[: len(want)] == want:
            self._preface = None
            return seen[len(want) :]
        if want.startswith(seen):
            self._preface = seen
            return None
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        transport = self._transport
        assert transport is not None
        if self._http is None:
            transport.close()
            return None
        protocol = self._http()
        self._transport = None
        if not self._closed.done():
            self._closed.set_result(None)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(seen)
        return None

    def _read_credentials(self, sock: Any) -> None:
        family = getattr(sock, "family", None)
        if family == getattr(socket, "AF_UNIX", None) and hasattr(socket, "SO_PEERCRED"):
            self.pid, self.uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        elif family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
