"""What a browser or a health check gets on the server's port: a few plain answers, without a web framework.

The dashboard and the REST API come with the web gateway; until then this only says what listens here.
"""

from __future__ import annotations

import asyncio
import json
from typing import Optional

from alight.wire.version import __version__

_LIMIT = 16 << 10
_SECONDS = 10.0


class Greeter(asyncio.Protocol):
    """Answers one HTTP request and closes."""

    def __init__(self) -> None:
        self._transport: Optional[asyncio.Transport] = None
        self._seen = b""
        self._timer: Optional[asyncio.TimerHandle] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by class
        self._timer = asyncio.get_running_loop().call_later(_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if b"\r\n\r\n" in self._seen or b"\n\n" in self._seen:
            self._answer()
        elif len(self._seen) > _LIMIT and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Optional[BaseException]) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _answer(self) -> None:
        line = self._seen.split(b"\n", 1)[0].decode("latin-1").split()
        target = line[1].split("?")[0] if len(line) >= 2 else ""
        if len(line) < 2 or line[0] not in {"GET", "HEAD"}:
            self._write(405, "Method Not Allowed", "only GET is answered here\n", "text/plain")
        elif target == "/health":
            self._write(200, "OK", json.dumps({"ok": True, "version": __version__}) + "\n", "application/json")
        elif target == "/":
            text = f"Alight {__version__}. Let a machine in with: alight setup <this address>\n"
            self._write(200, "OK", text, "text/plain")
        else:
            self._write(404, "Not Found", "there is nothing at this path\n", "text/plain")

    def _write(self, status: int, reason: str, text: str, kind: str) -> None:
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
        ]
        head = "\r\n".join(lines) + "\r\n\r\n"
        self._transport.write(head.encode() + body)
        self._transport.close()
