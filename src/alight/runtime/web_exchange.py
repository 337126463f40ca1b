"""One web request in its container, as far as frames go: what may be sent, what was taken, and its one end.

``asgi_http``, ``asgi_websocket`` and ``wsgi`` say what is asked and answered. Belongs to the event loop, save where a
subclass says otherwise. Promised: exactly one frame ends the request (``wire.web``), whatever user code does.
"""

from __future__ import annotations

import struct
import sys

from alight.runtime import failures
from alight.wire import web

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    from alight.runtime.web_connection import Connection

_CREDIT = struct.Struct("!I")
_GRANT_AT = web.WINDOW // 2
#: What frameworks raise when they hear that the client is gone; who raises it then has understood.
_UNDERSTOOD = frozenset({"ClientDisconnect", "WebSocketDisconnect", "CancelledError"})


class ClientGone(ConnectionError):
    """The client closed its connection, or is not waited for any more: nothing can be sent."""


class Request:
    """What the gateway says of a request; ``wire.web`` names the fields. Texts are bytes where applications get
    bytes."""

    __slots__ = ("fields", "flags", "full_path", "headers", "method", "name", "root_path")

    def __init__(self, flags: int, fields: List[bytes]) -> None:
        self.flags = flags
        self.fields = fields
        self.name = fields[0].decode("latin-1")
        self.method = fields[1].decode("latin-1")
        self.root_path = fields[6].decode("latin-1")
        self.full_path = fields[6] + fields[4]
        self.headers: List[Tuple[bytes, bytes]] = list(zip(fields[12::2], fields[13::2]))

    @property
    def endpoint(self) -> str:
        return self.fields[11].decode("latin-1")

    def __str__(self) -> str:
        return f"request {self.name} ({self.method} {self.full_path.decode('latin-1')})"


class Exchange:
    """``gone``: the client is, and user code may still run. ``over``: our last frame was said, and nothing that comes
    or is sent now means anything."""

    __slots__ = ("_taken", "connection", "credit", "gone", "over", "request", "stream")

    def __init__(self, connection: Connection, stream: int, request: Request) -> None:
        self.connection = connection
        self.stream = stream
        self.request = request
        self.credit = web.WINDOW
        self.gone = False
        self.over = False
        self._taken = 0

    def heard(self, kind: int, head: bytes, body: bytes) -> None:
        """A frame of the gateway."""
        if kind == web.CREDIT:
            self.credit += _CREDIT.unpack(body)[0]
            self.roomier()
        elif kind == web.CANCEL:
            if not self.gone:
                self.gone = True
                self.cancelled()
        else:
            self.arrived(kind, head, body)

    def arrived(self, kind: int, head: bytes, body: bytes) -> None:
        """More of the request."""
        raise NotImplementedError

    def roomier(self) -> None:
        """``credit`` grew."""
        raise NotImplementedError

    def cancelled(self) -> None:
        """``gone`` is set: nobody wants an answer any more."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The container ends before user code has: end that if it can be ended."""
        raise NotImplementedError

    def took(self, size: int) -> None:
        """User code has this much more of what came."""
        self._taken += size
        if self._taken >= _GRANT_AT and not self.over:
            self.connection.say(web.CREDIT, self.stream, b"", _CREDIT.pack(self._taken))
            self._taken = 0

    def end(self, kind: int, head: bytes = b"", body: bytes = b"") -> None:
        """Say the one frame that ends the request."""
        if not self.over:
            self.over = True
            self.connection.ended(self, kind, head, body)

    def answer(self, status: int, text: str) -> None:
        """End it with a sentence of ours, before anything was sent."""
        body = b"" if self.request.method == "HEAD" else text.encode() + b"\n"
        size = str(len(text.encode()) + 1).encode()
        fields = [str(status).encode(), b"content-type", b"text/plain; charset=utf-8", b"content-length", size]
        self.end(web.RESPONSE, web.pack(web.LAST, fields), body)

    def log(self, error: BaseException) -> None:
        """What user code raised, in the container's log; not what says only that the client is gone."""
        if self.gone and understood(error):
            return
        print(f"alight: {self.request} failed:", file=sys.stderr)
        failures.print_local(error)

    def internal_error(self) -> str:
        """What a client may know of an exception."""
        return internal_error(self.request.name)


def internal_error(name: str) -> str:
    return f"internal error, request {name}"


def understood(error: BaseException) -> bool:
    """Whether an exception says that the client is gone, as frameworks say it."""
    inner = getattr(error, "exceptions", None)
    if isinstance(inner, tuple) and inner:
        return all(understood(one) for one in inner)
    return isinstance(error, ConnectionError) or any(one.__name__ in _UNDERSTOOD for one in type(error).__mro__)


def head_of(status: Any, headers: Any, flags: int = 0) -> bytes:
    """A head from what an application says: a status (or a subprotocol) and pairs of bytes. ValueError for what no
    HTTP head may contain."""
    fields: List[bytes] = [status if type(status) is bytes else str(int(status)).encode()]
    for name, value in headers:
        fields.append(bytes(name).lower())
        fields.append(bytes(value))
    packed = b"\0".join(fields)
    if packed.count(b"\0") != len(fields) - 1 or b"\n" in packed or b"\r" in packed:
        raise ValueError("a header of the answer contains a line break or a zero byte")
    return bytes((flags,)) + packed


def environment_of(request: Request) -> Dict[str, str]:
    """What CGI would say of the headers. Several of one name are joined. Names with an underscore are left out: they
    would pass for those with a hyphen, which the gateway answers for (X-Forwarded-For)."""
    found: Dict[str, str] = {}
    for name, value in request.headers:
        if b"_" in name:
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        key = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
        text = value.decode("latin-1")
        found[key] = f"{found[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}" if key in found else text
    return found
