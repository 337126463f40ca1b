"""The server's own pages: a host of their own at the gateway's port, answered by somebody else, at the reader's pace.

What answers may be long (a stream of events, a file) or a WebSocket. Nothing here knows who may see what: that is for
whoever answers (``Site``), who is told all that a browser said.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from alight.gateway import sockets, websocket
from alight.gateway.answering import Answering, Prepared
from alight.gateway.heads import BadRequest, Request, is_clean
from alight.gateway.replies import STATUS_LINES

if TYPE_CHECKING:
    from alight.gateway.client import Client

log = logging.getLogger(__name__)
_MOST = 1 << 20  # bytes of a body
_MESSAGE = 1 << 20  # bytes of a WebSocket's message
_AHEAD = 64  # messages of a WebSocket that are not taken yet, before its client is made to wait


@dataclass(frozen=True)
class Asked:
    """A request. ``headers`` by names in lower case, ``address`` of the other end, ``secure``: it came by TLS."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    address: str = ""
    secure: bool = False
    cookies: tuple[str, ...] = field(default=())


class Talk(Protocol):
    """A WebSocket, as whoever answers it has it."""

    async def recv(self) -> str | bytes | None:
        """The client's next message, None when it is gone."""
        ...

    async def send(self, message: str | bytes) -> None:
        """A message for the client; waits while it reads too slowly. Nothing happens when it is gone."""
        ...


#: Status, header fields, and a body or its pieces as they come.
Said = tuple[int, Mapping[str, str], "bytes | AsyncIterator[bytes]"]
Serve = Callable[[Talk], Awaitable[None]]


class Site(Protocol):
    """Who answers."""

    async def answer(self, asked: Asked) -> Said:
        """A request."""
        ...

    async def socket(self, asked: Asked) -> Said | Serve:
        """A request for a WebSocket: what serves it, or why not."""
        ...


class SiteExchange:
    """One request for the server's own pages. See ``client.Served``."""

    def __init__(self, client: Client, head: Request, site: Site) -> None:
        self.head = head
        self.answering = Answering(client, method=head.method, version=head.version, keep=head.keep)
        self._client: Client | None = client
        self._site = site
        self._pieces: list[bytes] = []
        self._size = 0
        self._done = head.length == 0
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    def enter(self) -> None:
        """Its head is read."""
        if self._done:
            self._begin()
        elif self._client is not None and self.head.expects:
            self._client.continue_body()

    def feed(self, pieces: list[bytes], *, done: bool) -> None:
        """See ``client.Served``."""
        self._size += sum(map(len, pieces))
        if self._size > _MOST:
            raise BadRequest(f"bodies may have {_MOST >> 10} KiB here", 413)
        self._pieces += pieces
        self._done = done
        if done:
            self._begin()

    def left(self) -> None:
        """The client is gone: what streams to it ends. An answer that is being made goes on to its end."""
        self._client = None
        self._room.set()
        if self._task is not None and self.answering.begun:
            self._task.cancel()

    def drained(self) -> None:
        """See ``client.Served``."""
        self._room.set()

    def filled(self) -> None:
        """See ``client.Served``."""
        self._room.clear()

    def _begin(self) -> None:
        if self._task is None and self._client is not None:
            self._task = asyncio.get_running_loop().create_task(self._answer(self._client))

    async def _answer(self, client: Client) -> None:
        asked, self._pieces = _asked(client, self.head, b"".join(self._pieces)), []
        try:
            status, fields, body = await self._site.answer(asked)
            prepared = _prepared(status, fields)
        except Exception:  # noqa: BLE001  one of the four loops: a fault in one answer ends that request alone
            prepared, body = _fault(asked), b"internal error\n"
        if isinstance(body, bytes):
            if self._client is not None:
                self._client = None
                self.answering.start(prepared, body, last=True)
                client.finished(keep=self.answering.keep)
            return
        await self._stream(client, prepared, body, asked)

    async def _stream(self, client: Client, prepared: Prepared, pieces: AsyncIterator[bytes], asked: Asked) -> None:
        whole = False
        try:
            if self._client is not None:
                self.answering.start(prepared, b"", last=False)
                async for piece in pieces:
                    if self._is_alone():
                        return
                    if piece:
                        self.answering.more(piece, last=False)
                    await self._room.wait()
                whole = True
        except Exception:  # noqa: BLE001  one of the four loops, as above
            _fault(asked)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()
            if not self._is_alone():
                self._client = None
                if whole and self.answering.more(b"", last=True):
                    client.finished(keep=self.answering.keep)
                else:
                    client.abort()  # a part must not be taken for the whole

    def _is_alone(self) -> bool:
        """Whether the client is gone."""
        return self._client is None


class SiteSocket:
    """A WebSocket of the server's own pages. See ``client.Served`` and ``Talk``."""

    def __init__(self, client: Client, head: Request, site: Site) -> None:
        self.head = head
        self.answering = Answering(client, method=head.method, version=head.version, keep=False)
        self._client: Client | None = client
        self._site = site
        self._reader = websocket.Reader(_MESSAGE)
        self._messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._open = self._over = False

    def enter(self) -> None:
        """Its head is read."""
        if self._client is not None:
            self._task = asyncio.get_running_loop().create_task(self._serve(self._client))

    def feed(self, pieces: list[bytes], *, done: bool) -> None:
        """See ``client.Served``: a request for a WebSocket has no body."""

    def left(self) -> None:
        """The client is gone."""
        self._client = None
        self._end()

    def drained(self) -> None:
        """See ``client.Served``."""
        self._room.set()

    def filled(self) -> None:
        """See ``client.Served``."""
        self._room.clear()

    # from the connection

    def on_data(self, data: bytes) -> None:
        """Bytes of the client."""
        try:
            for kind, payload in self._reader.feed(data):
                self._on_event(kind, payload)
        except websocket.Violation as error:
            self._close(error.code, str(error).encode())

    # from who serves it

    async def recv(self) -> str | bytes | None:
        """See ``Talk``."""
        if self._over and self._messages.empty():
            return None
        message = await self._messages.get()
        if self._client is not None and self._messages.qsize() < _AHEAD:
            self._client.want_body()
        return message

    async def send(self, message: str | bytes) -> None:
        """See ``Talk``."""
        await self._room.wait()
        if self._client is not None and not self._over:
            text = isinstance(message, str)
            payload = message.encode() if isinstance(message, str) else message
            self._client.write(websocket.encode(websocket.TEXT if text else websocket.BINARY, payload))

    # inside

    async def _serve(self, client: Client) -> None:
        asked = _asked(client, self.head, b"")
        try:
            found = await self._site.socket(asked)
            if self._client is None:
                return
            if isinstance(found, tuple):
                status, fields, body = found
                self._client = None
                self.answering.start(_prepared(status, fields), body if isinstance(body, bytes) else b"", last=True)
                client.finished(keep=False)
                return
            self._accept(client)
            await found(self)
            self._close(websocket.NORMAL, b"")
        except Exception:  # noqa: BLE001  one of the four loops: a fault in one conversation ends it alone
            _fault(asked)
            if self._open:
                self._close(websocket.SERVER_FAULT, b"internal error")
            elif self._client is not None:
                self._client = None
                client.abort()

    def _accept(self, client: Client) -> None:
        key = next(value for name, value in self.head.fields if name == b"sec-websocket-key")
        said = b"upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: " + websocket.accept_key(key)
        self._open = True
        client.write(STATUS_LINES[101] + said + b"\r\n\r\n")
        client.upgrade(self)

    def _on_event(self, kind: int, payload: bytes) -> None:
        if self._over:
            return
        if kind == websocket.PING:
            if self._client is not None:
                self._client.write(websocket.encode(websocket.PONG, payload))
        elif kind == websocket.CLOSE:
            self._close(websocket.NORMAL, b"")
        elif kind != websocket.PONG:
            self._messages.put_nowait(payload.decode() if kind == websocket.TEXT else payload)
            if self._messages.qsize() >= _AHEAD and self._client is not None:
                self._client.hold_body()

    def _close(self, code: int, reason: bytes) -> None:
        client, self._client = self._client, None
        self._end()
        if client is not None and self._open:
            client.write(websocket.encode_close(code, reason))
            client.linger()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._room.set()
            self._messages.put_nowait(None)


def exchange(client: Client, head: Request, site: Site) -> SiteExchange | SiteSocket:
    """What a request for the server's own pages becomes. Raises BadRequest."""
    if not sockets.is_asked_for(head):
        return SiteExchange(client, head, site)
    fault = sockets.fault_of(head)
    if fault:
        raise BadRequest(fault)
    return SiteSocket(client, head, site)


def _asked(client: Client, head: Request, body: bytes) -> Asked:
    target = (head.path + (b"?" + head.query if head.query else b"")).decode("latin-1")
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.fields}
    cookies = tuple(value.decode("latin-1") for name, value in head.fields if name == b"cookie")
    said = dict(zip(client.forwarded(head)[::2], client.forwarded(head)[1::2], strict=True))
    secure = said.get(b"x-forwarded-proto", b"") == b"https"
    fields["host"] = head.host.decode("latin-1")
    if head.upgrade:  # one of the fields that are about the connection
        fields["upgrade"] = head.upgrade.decode("latin-1")
    return Asked(head.method.decode(), target, fields, body, client.address.decode("latin-1"), secure, cookies)


def _prepared(status: int, fields: Mapping[str, str]) -> Prepared:
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
    if not is_clean(part for pair in lines for part in pair):
        raise ValueError("header fields with line breaks in them")
    return Prepared.of_fields(status, lines)


def _fault(asked: Asked) -> Prepared:
    fault = os.urandom(4).hex()
    log.exception("fault %s at %s %s", fault, asked.method, asked.target.partition("?")[0])  # noqa: LOG004  of handlers
    return Prepared.of_fields(500, [(b"content-type", b"text/plain; charset=utf-8"), (b"alight-fault", fault.encode())])
