"""Requests that a program of the user's own serves, on a port in its container: HTTP/1.1 on both sides.

Connections are kept and used for one request at a time. After an upgrade both sides are joined as they are.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import lru_cache
from typing import TYPE_CHECKING

from alight.gateway.answering import Prepared
from alight.gateway.exchange import SENT, WAITING, Exchange
from alight.gateway.framing import Body, Chunked, Endless, Sized
from alight.gateway.heads import Answer, BadRequest, read_answer
from alight.wire import errors

if TYPE_CHECKING:
    from alight.gateway.gateway import Gateway

log = logging.getLogger(__name__)
_END = b"\r\n\r\n"
_HEAD = b"HEAD"
_HEAD_BYTES = 256 << 10
_GIVE_UP = 5.0
_WAIT = 0.1
_KEPT = 256  # connections without a request, of one container
_FRESH = 1.0  # seconds for which a program hardly ends a connection that it has agreed to keep
_SHORTEST = 1e-4
_WORTH_KEEPING = 2048  # bytes of a head. Programs say the same again and again.


@lru_cache(maxsize=512)
def _read(block: bytes, method: bytes) -> tuple[Answer, Prepared]:
    """A head, in both forms. They are shared: nobody may change them."""
    answer = read_answer(block, method)
    return answer, Prepared.of_program(answer)


class Ports:
    """The connections to a port of one container."""

    def __init__(self, gateway: Gateway, container_id: str, port: int) -> None:
        self.container_id = container_id
        self.exchanges: dict[int, Spliced] = {}
        self._gateway = gateway
        self._port = port
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._dialling: dict[Exchange, asyncio.Task[None]] = {}
        self._number = 0
        self._gone = self._leaving = False

    def take(self, exchange: Spliced) -> None:
        """Carry a request to the program, on a connection that has none or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.transport.is_closing():
                continue
            if self._gateway.now() - connection.since > _FRESH and not exchange.may_repeat():
                self._idle.append(connection)
                break
            self._begin(exchange, connection, used=True)
            return
        self.take_anew(exchange)

    def take_anew(self, exchange: Spliced) -> None:
        """Carry a request to the program, on a new connection."""
        self._dialling[exchange] = asyncio.get_running_loop().create_task(self._dial(exchange))

    def forget(self, exchange: Spliced) -> None:
        """It is not wanted any more, and was not sent."""
        task = self._dialling.pop(exchange, None)
        if task is not None:
            task.cancel()

    def over(self, exchange: Spliced, connection: Connection, *, keep: bool) -> None:
        """A request is done with its connection."""
        self.exchanges.pop(exchange.number, None)
        connection.exchange = None
        if keep and not (self._gone or self._leaving) and len(self._idle) < _KEPT:
            connection.since = self._gateway.now()
            self._idle.append(connection)
        else:
            connection.transport.abort()

    def left(self, connection: Connection) -> None:
        """A connection has ended."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._all and not self._dialling:
            self._gateway.parted(self)

    @property
    def is_idle(self) -> bool:
        """See ``backend.Backend``."""
        return not (self.exchanges or self._dialling)

    def retire(self) -> None:
        """Its container has been told to leave, and looks whether anybody is connected: keep nothing open for later."""
        self._leaving = True
        for connection in self._idle:
            connection.transport.abort()

    def close(self) -> None:
        """See ``backend.Backend``."""
        self._gone = True
        dialling, self._dialling = self._dialling, {}
        for task in dialling.values():
            task.cancel()
        for connection in list(self._all):
            connection.transport.abort()
        for exchange in dialling:
            exchange.return_to_line()

    def _begin(self, exchange: Spliced, connection: Connection, *, used: bool) -> None:
        self._number += 1
        self.exchanges[self._number] = exchange
        connection.exchange = exchange
        exchange.send(self._number, connection, used=used)

    async def _dial(self, exchange: Spliced) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _GIVE_UP
        connection = Connection(self)
        while True:
            try:
                await self._gateway.connect(connection, self.container_id, self._port)
                break
            except (errors.Error, OSError) as error:
                if loop.time() >= until:
                    del self._dialling[exchange]
                    self._gateway.unreachable(self.container_id, f"nothing answers at its port {self._port}: {error}")
                    exchange.return_to_line()
                    return
            await asyncio.sleep(_WAIT)
        self._all.add(connection)
        if self._dialling.pop(exchange, None) is not None:
            self._begin(exchange, connection, used=False)


class Connection(asyncio.Protocol):
    """One connection to a program. ``since``: when it had its last request."""

    def __init__(self, ports: Ports) -> None:
        self.exchange: Spliced | None = None
        self.since = 0.0
        self.transport: asyncio.Transport
        self._ports = ports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by class

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.transport.abort()  # it speaks without having been asked
            return
        try:
            exchange.on_answer(data)
        except BadRequest as error:
            exchange.fail(str(error))
        except Exception:  # one of the four loops: what a program says ends its own connection alone
            log.exception("fault %s at an answer of a program", os.urandom(4).hex())
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._ports.exchanges.pop(exchange.number, None)
            exchange.hung_up()  # which may want another connection
        self._ports.left(self)

    def pause_writing(self) -> None:
        if self.exchange is not None and self.exchange.client is not None:
            self.exchange.client.hold_body()

    def resume_writing(self) -> None:
        if self.exchange is not None and self.exchange.client is not None:
            self.exchange.client.want_body()


class Spliced(Exchange):
    """One request to a program."""

    number = 0
    _connection: Connection | None = None
    _used = False
    _buffer = b""
    _body: Body | None = None
    _answer: Answer | None = None
    _prepared: Prepared | None = None
    _joined = False
    _held = False

    def send(self, number: int, connection: Connection, *, used: bool) -> None:
        """There is a connection: the head, and what has come of the body."""
        self.number, self._connection, self._used = number, connection, used
        self.sent()
        connection.transport.write(self._head())
        if self.head.length != 0:
            pieces, self._pieces = self._pieces, []
            self._forward(pieces, done=self.body_done)

    def feed(self, pieces: list[bytes], *, done: bool) -> None:
        self.body_done = done
        if self.state == SENT:
            self._forward(pieces, done=done)
        else:
            self._pieces = [*self._pieces, *pieces]
            if sum(map(len, self._pieces)) > _HEAD_BYTES and self.client is not None:
                self.client.hold_body()

    def on_data(self, data: bytes) -> None:
        """Bytes of the client after an upgrade."""
        if self._connection is not None:
            self._connection.transport.write(data)

    def on_answer(self, data: bytes) -> None:
        """Bytes of the program."""
        body = self._body
        if body is not None:
            pieces, rest = body.feed(data)
            if body.done and isinstance(body, Chunked):
                self.answering.trailers = body.trailers
            self._write(b"".join(pieces) if len(pieces) != 1 else pieces[0], last=body.done, more=bool(rest))
        elif not self._joined:
            self._read_head(self._buffer + data if self._buffer else data)
        elif self.client is not None:
            self.client.write(data)

    def hung_up(self) -> None:
        """The program ended the connection."""
        self._connection = None
        if isinstance(self._body, Endless):
            self._write(b"", last=True)
        elif self._joined:
            client, self.client = self.client, None
            self._end(max(_SHORTEST, self.gateway.now() - self.since))
            if client is not None:
                client.close()
        elif self._used and self.client is not None and not self.answering.begun and self.may_repeat():
            # It had been kept for too long: the program did not see the request.
            self.state, self._buffer = WAITING, b""
            self.server.take_anew(self)
        else:
            self.lost()

    def fail(self, said: str) -> None:
        """What the program says is no answer."""
        self._finish(keep=False)
        self._tell(502, f"{said} (request {self.request_id})")

    def cancel(self) -> None:
        """A program is told by the end of its connection."""
        if self.state == SENT:
            self.cancelled = self.gateway.now()
            self._finish(keep=False)

    def filled(self) -> None:
        if self._connection is not None and not self._held:
            self._held = True
            self._connection.transport.pause_reading()

    def drained(self) -> None:
        if self._connection is not None and self._held:
            self._held = False
            self._connection.transport.resume_reading()

    def rewind(self) -> None:
        self._connection, self._buffer, self._body, self._answer = None, b"", None, None

    # inside

    def _head(self) -> bytes:
        head, found, client = self.head, self.found, self.client
        assert client is not None
        path = found.path
        parts = [head.method, b" ", path, b"?", head.query] if head.query else [head.method, b" ", path]
        parts.append(b" HTTP/1.1\r\n")
        for name, value in head.fields:
            parts += (name, b": ", value, b"\r\n")
        parts += client.forwarded_lines(head)
        if found.root:
            parts += (b"x-forwarded-prefix: ", found.root, b"\r\n")
        if not head.host:
            parts.append(b"host: localhost\r\n")
        if head.chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        if head.upgrade:
            parts += (b"connection: Upgrade\r\nupgrade: ", head.upgrade, b"\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def _forward(self, pieces: list[bytes], *, done: bool) -> None:
        connection = self._connection
        if connection is None:
            return
        if self.head.chunked:
            parts = [part for one in pieces if one for part in (b"%x\r\n" % len(one), one, b"\r\n")]
            pieces = [*parts, b"0\r\n\r\n"] if done else parts
        if pieces:
            connection.transport.writelines(pieces)
        if self.client is not None and connection.transport.get_write_buffer_size() == 0:
            self.client.want_body()

    def _read_head(self, data: bytes) -> None:
        """Go on once the head of the answer proper is whole. Interim answers are left out: ours was given already."""
        while True:
            end = data.find(_END) + 4
            if end < 4:
                if len(data) > _HEAD_BYTES:
                    raise BadRequest("the program in the container answers with too large a head", 502)
                self._buffer = data
                return
            read = _read if end <= _WORTH_KEEPING else _read.__wrapped__
            answer, self._prepared = read(data[: end - 2], _HEAD if self.head.method == _HEAD else b"")
            data = data[end:]
            if answer.upgrade or answer.status >= 200:
                break
        self._buffer = b""
        self._start(answer, data)

    def _start(self, answer: Answer, data: bytes) -> None:
        """Pass a head on, and what came with it."""
        self._answer = answer
        size = len(data)
        if answer.upgrade:
            self._join(answer, data)
        elif answer.chunked:
            self._body = Chunked()
            self.on_answer(data)
        elif answer.length < 0:
            self._body = Endless()
            self._write(data, last=False)
        elif size < answer.length:
            self._body = Sized(answer.length - size)
            self._write(data, last=False)
        else:
            self._write(data[: answer.length], last=True, more=size > answer.length)

    def _join(self, answer: Answer, data: bytes) -> None:
        client = self.client
        if not self.head.upgrade or client is None:
            raise BadRequest("the program in the container changes the protocol without having been asked", 502)
        self._joined = self.answering.begun = True
        self.gateway.answered(101, self.answering)
        upgrade = b"connection: Upgrade\r\nupgrade: " + self.head.upgrade
        client.write(b"HTTP/1.1 101 Switching Protocols\r\n" + self.answering.tag + answer.lines + upgrade + _END)
        client.upgrade(self)
        if data:
            client.write(data)

    def _write(self, data: bytes, *, last: bool, more: bool = False) -> None:
        """A piece of the answer for the client. ``more``: the program says more than it announced, so that what
        follows on its connection cannot be told apart."""
        answer = self._answer
        if last:
            self._finish(keep=answer is not None and answer.keep and self.body_done and not more)
        client = self.client
        if client is None:
            return
        if self.answering.begun:
            self.answering.more(data, last=last)
        elif self._prepared is not None:
            self.answering.start(self._prepared, data, last=last)
        if last:
            self.client = None
            client.finished(keep=self.answering.keep)

    def _finish(self, *, keep: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._held:
                self._held = False
                connection.transport.resume_reading()
            self.server.over(self, connection, keep=keep)
        self._end(max(_SHORTEST, self.gateway.now() - self.since))
