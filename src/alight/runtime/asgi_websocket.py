"""WebSockets of ASGI applications. The gateway speaks the protocol with the client; here are whole messages."""

from __future__ import annotations

import struct
from collections import deque

from alight.runtime.asgi_http import Asked
from alight.runtime.web_exchange import ClientGone, head_of
from alight.wire import web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, List, Optional, Tuple

    from alight.runtime.web_connection import Connection
    from alight.runtime.web_exchange import Request

_CODE = struct.Struct("!H")
_NORMAL, _NO_CODE, _LOST, _NOT_TEXT, _FAILED = 1000, 1005, 1006, 1007, 1011


class WebSocket(Asked):
    """One WebSocket, or the request for one that is denied."""

    __slots__ = ("_closed", "_connected", "_denial", "_messages", "_open")

    def __init__(self, connection: Connection, stream: int, request: Request) -> None:
        super().__init__(connection, stream, request)
        self._messages: Deque[Tuple[bool, bytes]] = deque()
        self._connected = False  # user code was told of it
        self._open = False
        self._denial: Optional[List[bytes]] = None  # an answer that denies it: head, pieces of its body
        self._closed: Tuple[int, str] = (_LOST, "")

    def arrived(self, kind: int, head: bytes, body: bytes) -> None:
        if kind == web.MESSAGE:
            self._messages.append((bool(head[0] & web.TEXT), body))
            self._heard_news()
        elif kind == web.CLOSE and not self.gone:
            code = _CODE.unpack_from(body)[0] if len(body) >= _CODE.size else _NO_CODE
            self._closed = (code, body[2:].decode("utf-8", "replace"))
            self.gone = True  # user code hears of it, and ends as it likes
            self._heard_news()
            self.roomier()

    def unfinished(self) -> None:
        if self._open:
            code = self._closed[0] if self.gone and self._closed[0] != _LOST else _NORMAL
            self._close(code)
        elif self.gone:
            self.end(web.CANCEL)
        else:
            self.log(RuntimeError("the application neither accepted nor closed the WebSocket"))
            self.answer(500, self.internal_error())

    def failed(self, error: BaseException) -> None:
        if self._open:
            self._close(_FAILED)
        elif self.gone:
            self.end(web.CANCEL)
        else:
            self.answer(500, self.internal_error())

    async def receive(self) -> Dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while True:
            if self._messages:
                is_text, body = self._messages.popleft()
                self.took(len(body))
                if not is_text:
                    return {"type": "websocket.receive", "bytes": body}
                try:
                    return {"type": "websocket.receive", "text": body.decode()}
                except UnicodeDecodeError:
                    self._closed = (_NOT_TEXT, "a text message was not UTF-8")
                    self._close(*self._closed)
            if self.gone or self.over:
                code, reason = self._closed
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            await self._wait_for_news()

    async def send(self, message: Dict[str, Any]) -> None:
        self._check_there()
        kind = message["type"]
        if kind == "websocket.send" and self._open:
            text = message.get("text")
            body, flags = (bytes(message["bytes"]), 0) if text is None else (text.encode(), web.TEXT)
            # A message over the window travels alone, nearly: what is held back of a credit is less than half of it.
            while len(body) > self.credit and self.credit <= web.WINDOW // 2:
                await self._wait_for_room()
                self._check_there()
            self.credit -= len(body)
            self.connection.say(web.MESSAGE, self.stream, bytes((flags,)), body)
        elif kind == "websocket.accept" and not self._open:
            chosen = (message.get("subprotocol") or "").encode("latin-1")
            self._open = True
            self.connection.say(web.ACCEPT, self.stream, head_of(chosen, message.get("headers", ())))
        elif kind == "websocket.close":
            if self._open:
                self._closed = (message.get("code", _NORMAL), message.get("reason") or "")
                self._close(*self._closed)
            else:
                self.answer(403, "the WebSocket was refused")
            self._heard_news()
        elif kind == "websocket.http.response.start" and not self._open and self._denial is None:
            self._denial = [head_of(message["status"], message.get("headers", ()))[1:]]
        elif kind == "websocket.http.response.body" and self._denial is not None:
            self._denial.append(bytes(message.get("body", b"")))
            if not message.get("more_body", False):
                head, *pieces = self._denial
                self.end(web.RESPONSE, bytes((web.LAST,)) + head, b"".join(pieces))
        else:
            state = "is open" if self._open else "was not accepted yet"
            raise RuntimeError(f"{kind!r} cannot be sent while the WebSocket {state}")

    def _check_there(self) -> None:
        if self.gone or self.over:
            raise ClientGone(f"the client of {self.request} is gone, or its WebSocket was closed")

    def _close(self, code: int, reason: str = "") -> None:
        self.end(web.CLOSE, b"", _CODE.pack(code) + reason.encode()[:123])
