"""WebSockets of applications in containers: the protocol is spoken here, the runtime sees messages."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from alight.gateway import websocket
from alight.gateway.answering import prepare
from alight.gateway.exchange import SENT
from alight.gateway.framed import Framed, frame
from alight.gateway.heads import Request
from alight.wire import web

if TYPE_CHECKING:
    from alight.gateway.client import Client
    from alight.gateway.table import Found

_CODE = struct.Struct("!H")


def is_asked_for(head: Request) -> bool:
    """Whether a request wants a WebSocket."""
    return head.upgrade == b"websocket" and head.method == b"GET"


def fault_of(head: Request) -> str:
    """What is wrong with a request for a WebSocket; "" if nothing is."""
    said = dict(head.fields)
    if said.get(b"sec-websocket-version") != b"13":
        return "WebSockets are spoken here in version 13"
    if len(said.get(b"sec-websocket-key", b"")) != 24 or head.length != 0:
        return "the request for a WebSocket is malformed"
    return ""


class Socket(Framed):
    """One WebSocket, from the request for it to the end of the application's code."""

    flags = web.WEBSOCKET
    _open = False
    _closed = False  # no more messages of the client are taken
    _asked = 0.0  # since when a ping is not answered
    _heard = 0.0

    def __init__(self, client: Client, head: Request, found: Found, request_id: str) -> None:
        super().__init__(client, head, found, request_id)
        self._messages: list[tuple[int, bytes]] = []  # of the client, not sent yet
        self._reader = websocket.Reader(self.gateway.limits.message_bytes)

    def on_frame(self, kind: int, head: bytes, body: bytes) -> None:
        if kind == web.MESSAGE:
            client = self.client
            if client is not None and self._open:
                client.write(websocket.encode(websocket.TEXT if head[0] & web.TEXT else websocket.BINARY, body))
                self._unsaid += len(body)
                if self._unsaid >= web.WINDOW // 4 and not client.is_slow:
                    self.drained()
        elif kind == web.ACCEPT:
            self._accept(head)
        elif kind == web.CLOSE:
            self._over()
            code = _CODE.unpack_from(body)[0] if len(body) > 1 else websocket.NORMAL
            self._close(code, body[2:])
        elif kind == web.CANCEL and self._open:
            self._over()
            self._close(websocket.SERVER_FAULT, b"")
        elif kind == web.RESPONSE and not self._open and self.client is not None:
            self.answering.keep = False
            super().on_frame(kind, head, body)
        else:
            super().on_frame(kind, head, body)

    def on_data(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._closed:
            return
        self._heard = self.gateway.now()
        try:
            for kind, payload in self._reader.feed(data):
                self._on_event(kind, payload)
        except websocket.Violation as error:
            self._leave(error.code, str(error).encode())
            self._close(error.code, str(error).encode())

    def look(self, now: float) -> None:
        """See that the client is there."""
        every = self.gateway.limits.ping_seconds
        if not self._open or self.client is None:
            return
        if self._asked <= self._heard:
            if now - self._heard > every:
                self._asked = now
                self.client.write(websocket.encode(websocket.PING, b""))
        elif now - self._asked > every:
            self._leave(websocket.ABNORMAL, b"")
            client, self.client = self.client, None
            client.abort()

    def left(self) -> None:
        client_was_open = self._open and self.client is not None
        if client_was_open:
            self.client = None
            self._leave(websocket.ABNORMAL, b"")
        else:
            super().left()

    def cancel(self) -> None:
        if not self.cancelled and self.state == SENT:
            self._closed = True
        super().cancel()

    def timed_out(self) -> None:
        if not self._open:
            super().timed_out()
            return
        self.cancel()
        self._close(websocket.SERVER_FAULT, b"the function's timeout is over")

    def lost(self) -> None:
        if not self._open:
            super().lost()
            return
        self._end(0.0)
        self._close(websocket.SERVER_FAULT, b"its container ended")

    # inside

    def _accept(self, head: bytes) -> None:
        client = self.client
        if client is None or self._open:
            return
        chosen, _, rest = head[1:].partition(b"\0")
        try:
            lines = prepare(b"101\0" + rest if rest else b"101").lines
        except ValueError as error:
            self.cancel()
            self._tell(502, f"the application accepts with {error} (request {self.request_id})")
            return
        key = next(value for name, value in self.head.fields if name == b"sec-websocket-key")
        said = (
            self.answering.tag
            + b"upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: "
            + websocket.accept_key(key)
        )
        if chosen:
            said += b"\r\nsec-websocket-protocol: " + chosen
        self._open = True
        self._heard = self.gateway.now()
        self.gateway.answered(101, self.answering)
        client.write(lines + said + b"\r\n\r\n")
        client.upgrade(self)

    def _on_event(self, kind: int, payload: bytes) -> None:
        if self._closed:
            return
        if kind == websocket.PING:
            if self.client is not None:
                self.client.write(websocket.encode(websocket.PONG, payload))
        elif kind == websocket.CLOSE:
            code, reason = websocket.read_close(payload)
            self._leave(code, reason)
            self._close(websocket.NORMAL if code == websocket.NO_STATUS else code, b"")
        elif kind != websocket.PONG:
            self._messages.append((web.TEXT if kind == websocket.TEXT else 0, payload))
            self._push()

    def _push(self) -> None:
        """Messages of the client, as far as the application keeps up."""
        messages = self._messages
        while messages and not self.cancelled:
            flags, payload = messages[0]
            size = len(payload)
            if size > self._credit and self._credit < web.WINDOW:
                break
            self._credit -= size
            self.server.write(frame(web.MESSAGE, self.number, bytes((flags,)), payload))
            del messages[0]
        if self.client is None:
            return
        if messages:
            self.client.hold_body()
        else:
            self.client.want_body()

    def _leave(self, code: int, reason: bytes) -> None:
        """Tell the application that the client is gone, or going."""
        if not self._closed:
            self._closed = True
            self._messages = []
            if self.state == SENT:
                self.cancelled = self.gateway.now()  # from here on only the end of its code is waited for
                self.server.write(frame(web.CLOSE, self.number, b"", _CODE.pack(code) + reason))

    def _close(self, code: int, reason: bytes) -> None:
        """The last word to the client."""
        self._closed = True
        client, self.client = self.client, None
        if client is None:
            return
        if self._open:
            client.write(websocket.encode_close(code, reason))
            client.linger()
        elif not self.answering.begun:
            client.answer(403, "the application does not take this WebSocket")
