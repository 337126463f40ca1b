"""One connection to one peer, and the streams on it.

Wraps ``wire.connection.Connection`` (which knows the protocol) with an asyncio transport (which knows sockets).
Everything queued within one turn of the loop leaves in one write. A stream that nobody reads stops its sender, not
its neighbours.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from typing import Any, Awaitable, Callable, Dict, List, Optional, Type, TypeVar

import msgspec

from alight.link.stream import Stream as Stream  # noqa: PLC0414  who talks to peers reads it from here
from alight.link.turn import turn_of
from alight.wire import codec, errors
from alight.wire.codec import Buffer, Kind
from alight.wire.connection import Connection, Event
from alight.wire.messages import Hello, Open
from alight.wire.version import check_peer

T = TypeVar("T")
OnStream = Callable[["Peer", "Stream"], Awaitable[None]]
OnHello = Callable[["Peer"], Awaitable[Hello]]
OnClose = Callable[["Peer"], None]
#: Serves a stream without waiting, or returns False: then OnStream does, in a task of its own.
AtOnce = Callable[["Peer", "Stream"], bool]

log = logging.getLogger(__name__)

_HELLO_SECONDS = 10.0
_encode = msgspec.json.encode


class _Open(msgspec.Struct):
    """``Open`` with its args unread: who serves the stream knows what they are."""

    method: str
    args: msgspec.Raw = msgspec.Raw(b"{}")
    container: str = ""


_open_decoder = msgspec.json.Decoder(_Open)
_hello_decoder = msgspec.json.Decoder(Hello)


class Peer(asyncio.Protocol):
    """The other end of a connection: says hello, opens streams, answers ours."""

    def __init__(  # noqa: PLR0913  `Answers` in dial.py is what callers fill in
        self,
        *,
        ours: Optional[Hello],
        dialled: bool = False,
        on_stream: Optional[OnStream] = None,
        at_once: Optional[AtOnce] = None,
        on_hello: Optional[OnHello] = None,
        on_close: Optional[OnClose] = None,
        http: Optional[Callable[[], asyncio.Protocol]] = None,
    ) -> None:
        self._dialled = dialled
        self._ours = ours
        self._on_stream = on_stream
        self._at_once = at_once
        self._beginning = False
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
        self._flush_planned = self._in_turn = False
        self._preface = b"" if not self._dialled else None
        self._loop = asyncio.get_running_loop()
        self._turn = turn_of(self._loop)
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
        self.flush()

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
        self.flush()
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
        turn = self._turn
        begun = turn.begin()
        self._beginning = False
        try:
            for event in events:
                self._on_event(event)
            self.flush_soon()
        finally:
            if begun:
                turn.end()

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
        if kind == Kind.DATA and self.hello is not None and not self._greeting:
            stream = self._streams.get(event.stream)
            if stream is not None:
                stream.on_message(event.head, event.body)
        elif kind == Kind.HELLO:
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
            if kind == Kind.CREDIT:
                stream.on_credit()
            elif kind == Kind.END:
                stream.on_end()
                self.forget_if_over(stream)
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
        stream.method, stream.raw_args, stream.container = head.method, head.args, head.container
        if event.body:
            stream.opened_body = event.body
            self.connection.took(event.stream, len(event.body))
        # Requests begin in the order in which they came: not before one whose task has yet to take its first step.
        if self._at_once is not None and not self._beginning and self._at_once(self, stream):
            return
        if self._on_stream is None:
            self.connection.fail(
                event.stream, _encode(errors.to_wire(errors.UnimplementedError("this side answers no requests")))
            )
            self._streams.pop(event.stream, None)
            return
        self._beginning = True
        self._start(self._serve_stream(stream, self._on_stream))

    def serve(self, stream: Stream) -> None:
        """Serve a stream that was to be served at once in a task after all."""
        assert self._on_stream is not None
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
            self.forget_if_over(stream)

    # writing

    def flush_soon(self) -> None:
        """Write what is queued at the end of this turn."""
        if self._turn.under_way:
            if not self._in_turn:
                self._in_turn = True
                self._turn.write(self)
        elif not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush_as_planned)

    def flush(self) -> None:
        """Write what is queued."""
        self._in_turn = False
        pieces = self.connection.take_output()
        if not pieces or self._transport is None or self._transport.is_closing():
            return
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)

    def _flush_as_planned(self) -> None:
        self._flush_planned = False
        self.flush()

    # inside

    def forget(self, stream: Stream) -> None:
        """Drop a stream that is over for us."""
        self._streams.pop(stream.id, None)

    def forget_if_over(self, stream: Stream) -> None:
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
