"""What a browser, a health check or a program gets on the server's port: a few plain answers, without a web framework.

The JSON API is ``rest``'s, calls without Python are ``http_calls``'. One request a connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Optional

from alight.server import http_calls, rest
from alight.server.http_calls import HttpCalls
from alight.server.measuring import Answer, Asker
from alight.server.rest import Rest
from alight.wire.version import __version__

log = logging.getLogger(__name__)
_LIMIT = 16 << 10
_SECONDS = 10.0
Metrics = Callable[[Asker], Awaitable[Answer]]


class Greeter(asyncio.Protocol):
    """Answers one HTTP request and closes."""

    def __init__(self, answer: Rest, calls: HttpCalls, metrics: Metrics) -> None:
        self._rest = answer
        self._metrics = metrics
        self._calls = calls
        self._room = asyncio.Event()
        self._room.set()
        self._asking: Optional[asyncio.Task[None]] = None
        self._transport: Optional[asyncio.Transport] = None
        self._seen = b""
        self._timer: Optional[asyncio.TimerHandle] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by class
        self._timer = asyncio.get_running_loop().call_later(_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._asking is not None:
            return
        self._seen += data
        if self._calling():
            return
        if b"\r\n\r\n" in self._seen or b"\n\n" in self._seen:
            self._answer()
        elif len(self._seen) > _LIMIT and self._transport is not None:
            self._transport.close()

    def _calling(self) -> bool:
        """Whether this is a call of a function, or for the API; begins it once its body is here."""
        head, found, body = self._seen.partition(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split()
        if len(words) < 2 or not words[1].startswith((http_calls.PREFIX, rest.ROOT)):
            return False
        of_api = words[1].startswith(rest.ROOT)
        most = rest.BODY_MOST if of_api else http_calls.BODY_MOST
        if not found:
            return len(head) <= _LIMIT
        pairs = (one.partition(":") for one in head.decode("latin-1").split("\r\n")[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdigit():
            self._write(411, "Length Required", "a body needs its Content-Length here\n", "text/plain")
        elif int(length) > most:
            self._write(413, "Content Too Large", f"bodies may have {most} bytes\n", "text/plain")
        elif len(body) >= int(length):
            if self._timer is not None:
                self._timer.cancel()  # from here on it is the function that takes its time
            begin = self._ask if of_api else self._call
            call = begin(words[0], words[1], headers, body[: int(length)])
            self._asking = asyncio.get_running_loop().create_task(call)
        return True

    async def _call(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        status, more, answer = await self._calls.answer(method, target, headers, body, self._uid())
        kind = more.pop("content-type", "application/json")
        self._write(status, HTTPStatus(status).phrase, answer.decode(), kind, more)

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _answer(self) -> None:
        line = self._seen.decode("latin-1").splitlines()[0].split()
        whole = line[1] if len(line) >= 2 else ""
        target = whole.split("?")[0]
        if len(line) < 2 or line[0] not in {"GET", "HEAD"}:
            self._write(405, "Method Not Allowed", "only GET is answered here\n", "text/plain")
        elif target == "/health":
            self._write(200, "OK", json.dumps({"ok": True, "version": __version__}) + "\n", "application/json")
        elif target == "/":
            text = f"Alight {__version__}. Let a machine in with: alight setup <this address>\n"
            self._write(200, "OK", text, "text/plain")
        elif target == "/metrics":
            self._asking = asyncio.get_running_loop().create_task(self._measured())
        else:
            self._write(404, "Not Found", "there is nothing at this path\n", "text/plain")

    async def _measured(self) -> None:
        pairs = (one.partition(":") for one in self._seen.decode("latin-1").splitlines()[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        host = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        try:
            status, kind, text = await self._metrics(Asker(headers, self._uid(), host))
        except Exception:  # as in _ask
            fault = os.urandom(4).hex()
            log.exception("fault %s at /metrics", fault)
            status, kind, text = 500, "text/plain", f"fault {fault}\n"
        self._write(status, HTTPStatus(status).phrase, text, kind)

    async def _ask(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        if headers.get("origin"):
            # Nothing here is a page's: a browser sends this for one of somebody else.
            self._write(403, "Forbidden", "this is not for pages: the dashboard has a host of its own\n", "text/plain")
            return
        try:
            status, fields, answer = await self._rest(method, target, headers, body, self._uid())
        except Exception:  # one of the four loops: a fault in one answer ends that connection alone
            fault = os.urandom(4).hex()
            log.exception("fault %s at %s %s", fault, method, target.partition("?")[0])
            said = json.dumps({"error": {"code": "internal", "message": f"fault {fault}"}})
            self._write(500, "Internal Server Error", said + "\n", "application/json")
            return
        if self._transport is None:
            return
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {fields[name]}" for name in fields)]
        length = [f"content-length: {len(answer)}"] if isinstance(answer, bytes) else []
        self._transport.write("\r\n".join([*lines, *length, "connection: close", "", ""]).encode("latin-1"))
        if not isinstance(answer, bytes):
            await self._stream(answer, mute=method == "HEAD")
        elif method != "HEAD":
            self._transport.write(answer)
        self._transport.close()

    async def _stream(self, pieces: AsyncIterator[bytes], *, mute: bool) -> None:
        """An answer without a known length ends with its connection; what fails in the middle is cut off."""
        try:
            if mute:
                return
            async for piece in pieces:
                await self._room.wait()
                if self._transport is None or self._transport.is_closing():
                    return
                self._transport.write(piece)
        except Exception:  # as above
            log.exception("fault %s in an answer that goes on", os.urandom(4).hex())
            if self._transport is not None:
                self._transport.abort()
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def _uid(self) -> Optional[int]:
        """Who is at the other end of the local socket; None over TCP."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is None or sock.family != socket.AF_UNIX:
            return None
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(uid)

    def _write(self, status: int, reason: str, text: str, kind: str, more: Mapping[str, str] = {}) -> None:
        if self._transport is None:
            return
        body = text.encode()
        lines = [
            f"HTTP/1.1 {status} {reason}",
            f"Content-Type: {kind}; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
            "X-Content-Type-Options: nosniff",
            "Content-Security-Policy: default-src 'none'",
            *(f"{name}: {value}" for name, value in more.items()),
        ]
        head = "\r\n".join(lines) + "\r\n\r\n"
        self._transport.write(head.encode() + body)
        self._transport.close()
