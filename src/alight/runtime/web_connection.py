"""A connection of the gateway: frames to requests and back. What comes of one turn of the loop leaves in one write."""

from __future__ import annotations

import asyncio
import sys

from alight.runtime.web_exchange import Exchange, Request
from alight.wire import web
from alight.wire.codec import HEADER, FrameReader
from alight.wire.errors import InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

    from alight.runtime.web import Site

_pack_header = HEADER.pack


class Connection(asyncio.Protocol):
    """``flush_later`` are exchanges that have something to say at the end of the turn if nobody says it before."""

    def __init__(self, site: Site, loop: Any) -> None:
        self._site = site
        self._call_soon = loop.call_soon
        self._reader = FrameReader()
        self._exchanges: Dict[int, Exchange] = {}
        self._out: List[Any] = []
        self._due = False
        self._transport: Any = None
        self.flush_later: List[Any] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._site.connections.add(self)
        if self._site.going:
            self.say(web.GOING, 0)

    def connection_lost(self, exc: Any) -> None:
        self._transport = None
        self._site.connections.discard(self)
        for one in list(self._exchanges.values()):
            one.heard(web.CANCEL, b"", b"")

    def data_received(self, data: bytes) -> None:
        exchanges = self._exchanges
        try:
            for kind, stream, head, body in self._reader.feed(data):
                if kind == web.REQUEST:
                    exchange = self._site.begin(self, stream, Request(*web.unpack(head)), body)
                    if not exchange.over:
                        exchanges[stream] = exchange
                elif stream in exchanges:
                    exchanges[stream].heard(kind, head, body)
        except (InternalError, IndexError, ValueError) as error:
            print(f"alight: what the gateway says is not understood: {error}", file=sys.stderr)
            self._transport.abort()

    def say(self, kind: int, stream: int, head: bytes = b"", body: bytes = b"") -> None:
        """Queue a frame."""
        out = self._out
        out.append(_pack_header(len(head) + len(body), stream, len(head), kind))
        out.append(head)
        if body:
            out.append(body)
        if not self._due:
            self._due = True
            self._call_soon(self.flush)

    def ended(self, exchange: Exchange, kind: int, head: bytes, body: bytes) -> None:
        """Its last frame."""
        self.say(kind, exchange.stream, head, body)
        exchanges = self._exchanges
        exchanges.pop(exchange.stream, None)
        if not exchanges:
            self.flush()  # nobody else will say anything in this turn

    def later(self, exchange: Any) -> None:
        """Let it say what it has at the end of the turn (its ``flush``)."""
        self.flush_later.append(exchange)
        if not self._due:
            self._due = True
            self._call_soon(self.flush)

    def flush(self) -> None:
        """Everything said so far leaves."""
        if self.flush_later:
            waiting, self.flush_later = self.flush_later, []
            for one in waiting:
                one.flush()
        self._due = False
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(b"".join(out))

    def close(self) -> None:
        """After what was said has left."""
        self.flush()
        if self._transport is not None:
            self._transport.close()
