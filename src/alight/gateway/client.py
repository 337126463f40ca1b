"""The connection of one client: its requests one after another, however they come in."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from alight.gateway import replies
from alight.gateway.framing import Body, Chunked, Sized
from alight.gateway.heads import BadRequest, Request, has_bare_newline, read_request

if TYPE_CHECKING:
    from alight.gateway.answering import Answering
    from alight.gateway.gateway import Gateway

log = logging.getLogger(__name__)
_END = b"\r\n\r\n"
_PIPELINE = 64 << 10  # bytes of later requests that may wait
_DISCARD_SECONDS = 2.0  # for the rest of a body that nobody reads
_SECURE = b"https"


class Raw(Protocol):
    """Who takes the bytes of a connection that does not speak HTTP any more."""

    def on_data(self, data: bytes) -> None: ...


class Served(Protocol):
    """A request on its way, as its client sees it."""

    head: Request
    answering: Answering

    def enter(self) -> None:
        """Its head is read, and what came with it of its body."""

    def feed(self, pieces: list[bytes], *, done: bool) -> None:
        """Bytes of its body."""

    def left(self) -> None:
        """The client is gone."""

    def drained(self) -> None:
        """The client has read what was written."""

    def filled(self) -> None:
        """The client reads more slowly than its answer comes."""


@dataclass(frozen=True)
class Refusal:
    """What a request gets that nobody serves."""

    status: int
    said: str
    extra: bytes = b""


class Client(asyncio.Protocol):
    """See the module. ``ends``: addresses of both ends, for containers."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.ends: list[bytes] = []
        self.scheme = b"http"
        self.is_slow = False
        self.is_local = False
        self.transport: asyncio.Transport
        self.address = b""
        self._buffer = b""
        self._exchange: Served | None = None
        self._body: Body | None = None
        self._body_size = 0
        self._own_lines = b""
        self._raw: Raw | None = None
        self._keep = True
        self._advancing = self._held = self._closing = self._expects = False
        self._since = 0.0  # of what is waited for: a head, its end, the end of a body that nobody reads

    # from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by class
        peer = transport.get_extra_info("peername")
        here = transport.get_extra_info("sockname")
        if transport.get_extra_info("ssl_object") is not None:
            self.scheme = _SECURE
        if isinstance(peer, tuple) and isinstance(here, tuple):
            self.address = str(peer[0]).encode()
            self.ends = [self.address, b"%d" % peer[1], str(here[0]).encode(), b"%d" % here[1]]
        else:
            self.is_local = True
            self.ends = [b"", b"", b"localhost", b""]
        self._since = self.gateway.now()
        if not self.gateway.joined(self):
            self._refuse(503, "too many connections are open here")

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.on_data(data)
            return
        if self._closing:
            return
        try:
            if self._body is not None:
                self._on_body(data)
            elif self._exchange is not None:
                self._buffer += data
                if len(self._buffer) > _PIPELINE:
                    self.hold_body()
            else:
                if not self._buffer:
                    self._since = self.gateway.now()
                    self._buffer = data
                else:
                    self._buffer += data
                self._advance()
        except BadRequest as error:
            self._on_bad(error)
        except Exception:  # one of the four loops: a fault at one request ends its connection alone
            fault = os.urandom(4).hex()
            log.exception("fault %s at a request of %s", fault, self.address.decode("latin-1"))
            self._refuse(500, f"internal error (fault {fault})")

    def eof_received(self) -> None:
        return None  # whoever ends its half is taken to be gone: that is how browsers and curl leave

    def connection_lost(self, exc: Exception | None) -> None:
        self.gateway.parted_client(self)
        self._closing = True
        self._raw = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.left()

    def pause_writing(self) -> None:
        self.is_slow = True
        if self._exchange is not None:
            self._exchange.filled()

    def resume_writing(self) -> None:
        self.is_slow = False
        if self._exchange is not None:
            self._exchange.drained()

    # from exchanges

    def write(self, data: bytes) -> None:
        """Bytes of an answer."""
        self.transport.write(data)

    def continue_body(self) -> None:
        """The client waits to be told before it sends its body."""
        self._expects = False
        self.transport.write(replies.CONTINUE)

    def hold_body(self) -> None:
        """Read no more for now."""
        if not self._held:
            self._held = True
            self.transport.pause_reading()

    def want_body(self) -> None:
        """Read on."""
        if self._held:
            self._held = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def upgrade(self, raw: Raw) -> None:
        """From now on the connection's bytes are ``raw``'s, with what has come already."""
        self._raw = raw
        data, self._buffer = self._buffer, b""
        self.want_body()
        if data:
            raw.on_data(data)

    def finished(self, *, keep: bool) -> None:
        """The answer is written: the next request, please."""
        self._exchange = None
        self._keep = self._keep and keep
        self._since = self.gateway.now()
        if self._expects:  # it may send its body now, or not
            self.close()
        elif self._body is not None:  # nobody reads the rest of its body
            self.want_body()
        elif not self._keep:
            self.close()
        elif self._held:
            self.want_body()
            self._resume()
        elif self._buffer:
            self._resume()

    def answer(self, status: int, text: str, extra: bytes = b"") -> None:
        """An answer of the gateway's own to the request at hand."""
        exchange = self._exchange
        self.gateway.answered(status, None if exchange is None else exchange.answering)
        head_only = exchange is not None and exchange.head.method == b"HEAD"
        keep = self._keep and exchange is not None and exchange.head.keep and self._body is None
        tag = exchange.answering.tag if exchange is not None else b""
        self.write(replies.own(status, text, keep=keep, head_only=head_only, extra=tag + extra))
        self.finished(keep=keep)

    def abort(self, *, after_writing: bool = False) -> None:
        """End the connection so that the client cannot take a part for the whole."""
        self._closing = True
        self._since = self.gateway.now()
        if after_writing:
            self.transport.close()
        else:
            self.transport.abort()

    def close(self) -> None:
        """End the connection once everything is written."""
        self._closing = True
        self._since = self.gateway.now()
        self.transport.close()

    def linger(self) -> None:
        """``close``, but let the client read first: what it still sends would make its system drop what we said."""
        self._closing = True
        self._since = self.gateway.now()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.want_body()
        else:
            self.transport.close()

    def forwarded(self, head: Request) -> list[bytes]:
        """X-Forwarded-…: our own word, unless a proxy of the operator's is at the other end."""
        came, host, scheme = self.address, head.host, self.scheme
        if self.gateway.limits.trust_forwarded:
            said = dict(head.forwarded)
            before = said.get(b"x-forwarded-for", b"")
            came = before + b", " + came if before else came
            host = said.get(b"x-forwarded-host", host)
            scheme = said.get(b"x-forwarded-proto", scheme)
        return [b"x-forwarded-for", came, b"x-forwarded-proto", scheme, b"x-forwarded-host", host]

    def forwarded_lines(self, head: Request) -> tuple[bytes, ...]:
        """``forwarded`` as parts of a head."""
        if not self._own_lines or self.gateway.limits.trust_forwarded:
            name_for, came, name_proto, scheme, name_host, host = self.forwarded(head)
            own = b"%b: %b\r\n%b: %b\r\n%b: " % (name_for, came, name_proto, scheme, name_host)
            if self.gateway.limits.trust_forwarded:
                return own, host, b"\r\n"
            self._own_lines = own
        return self._own_lines, head.host, b"\r\n"

    # from the clock

    def look(self, now: float) -> None:
        """End what takes too long, as far as it is the client's doing."""
        limits, passed = self.gateway.limits, now - self._since
        if self._closing:
            if passed > _DISCARD_SECONDS and not self.is_slow:
                self.transport.abort()
            return
        if self._raw is not None or self._exchange is not None:
            return
        if self._body is not None:
            if passed > _DISCARD_SECONDS:
                self.close()
        elif self._buffer:
            if passed > limits.head_seconds:
                self._refuse(408, "the request's head took too long")
        elif passed > limits.idle_seconds:
            self.close()

    # inside

    def _resume(self) -> None:
        if not self._advancing:
            try:
                self._advance()
            except BadRequest as error:
                self._on_bad(error)

    def _advance(self) -> None:
        """Begin the next request, and those behind it that are answered at once."""
        self._advancing = True
        try:
            while self._exchange is None and self._body is None and self._buffer and not self._closing:
                buffer = self._buffer
                end = buffer.find(_END)
                if end < 0:
                    self._look_at_start(buffer)
                    return
                if buffer[0] in b"\r\n":
                    buffer = self._buffer = buffer.lstrip(b"\r\n") if buffer[:2] == b"\r\n" else buffer
                    end = buffer.find(_END)
                    if end < 0:
                        return
                if end > self.gateway.limits.head_bytes:
                    raise BadRequest("the request's head is too large", 431)
                self._buffer = buffer[end + 4 :]
                self._begin(read_request(buffer[: end + 2]))
        finally:
            self._advancing = False

    def _look_at_start(self, buffer: bytes) -> None:
        if len(buffer) > self.gateway.limits.head_bytes:
            raise BadRequest("the request's head is too large", 431)
        if has_bare_newline(buffer[:-1] if buffer[-1:] == b"\r" else buffer):
            raise BadRequest("lines end with a carriage return and a line feed")

    def _begin(self, head: Request) -> None:
        most = self.gateway.limits.body_bytes
        if most is not None and head.length is not None and head.length > most:
            raise BadRequest(f"bodies may have {most} bytes here", 413)
        self._keep = head.keep
        if head.chunked:
            self._body = Chunked()
        elif head.length:
            self._body = Sized(head.length)
        self._body_size = 0
        self._expects = head.expects and self._body is not None
        exchange = self.gateway.exchange_for(self, head)
        if isinstance(exchange, Refusal):
            keep = head.keep and self._body is None
            said = replies.own(exchange.status, exchange.said, keep=keep, head_only=head.method == b"HEAD",
                               extra=exchange.extra)  # fmt: skip
            self.gateway.answered(exchange.status)
            self.write(said)
            self.finished(keep=keep)
            return
        self._exchange = exchange
        data, rest = self._buffer, b""
        if self._body is not None and data:
            self._buffer = b""
            pieces, rest = self._body.feed(data)
            self._count(pieces)
            exchange.feed(pieces, done=self._body.done)
            if self._body.done:
                self._body, self._buffer = None, rest
        exchange.enter()

    def _on_body(self, data: bytes) -> None:
        body = self._body
        assert body is not None
        pieces, rest = body.feed(data)
        self._count(pieces)
        done = body.done
        if done:
            self._body = None
            self._buffer += rest
        if self._exchange is not None:
            self._exchange.feed(pieces, done=done)
        elif done:
            if self._keep:
                self._advance()
            else:
                self.close()

    def _count(self, pieces: list[bytes]) -> None:
        most = self.gateway.limits.body_bytes
        if most is not None:
            self._body_size += sum(map(len, pieces))
            if self._body_size > most:
                raise BadRequest(f"bodies may have {most} bytes here", 413)

    def _on_bad(self, error: BadRequest) -> None:
        """Whatever follows cannot be told from what was sent: the connection ends."""
        exchange, self._exchange = self._exchange, None
        begun = exchange is not None and exchange.answering.begun
        if exchange is not None:
            exchange.left()
        if begun:
            self.abort()
        else:
            self._refuse(error.status, str(error))

    def _refuse(self, status: int, text: str) -> None:
        if not self._closing:
            self.gateway.answered(status)
            self.write(replies.own(status, text, keep=False))
            self.linger()
