"""Requests that the runtime in a container serves: as frames (``wire.web``), many on one connection."""

from __future__ import annotations

import struct

from alight.gateway.answering import prepare
from alight.gateway.exchange import SENT, Exchange
from alight.wire import web
from alight.wire.codec import HEADER

_CREDIT = struct.Struct("!I")
_WORTH_SAYING = web.WINDOW // 4
_SHORTEST = 1e-4  # seconds that a request takes at least: the event loop's clock is coarser


def frame(kind: int, number: int, head: bytes, body: bytes = b"") -> bytes:
    """One frame to a runtime."""
    return HEADER.pack(len(head) + len(body), number, len(head), kind) + head + body


class Framed(Exchange):
    """A plain request to an ASGI or WSGI application or an endpoint."""

    number = 0
    flags = 0
    _credit = web.WINDOW
    _unsaid = 0  # bytes of the answer that the runtime may think are still on their way
    _held = 0
    _last_sent = False

    def send(self, number: int) -> None:
        """Its container's connection is there: the head, and as much of the body as has come."""
        self.number = number
        self.sent()
        head, found, client = self.head, self.found, self.client
        assert client is not None
        first, last = self._take_body()
        fields = [
            self.request_id.encode(), head.method, client.scheme, head.version, found.path, head.query, found.root,
            *client.ends, found.target.endpoint.encode(),
        ]  # fmt: skip
        for pair in head.fields:
            fields += pair
        fields += client.forwarded(head)
        self.server.write(frame(web.REQUEST, number, web.pack(self.flags | last, fields), first))

    def feed(self, pieces: list[bytes], *, done: bool) -> None:
        self.body_done = done
        self._pieces = [*self._pieces, *pieces] if self._held else pieces
        self._held += sum(map(len, pieces))
        if self.state == SENT:
            self._push()
        elif self._held >= web.WINDOW and self.client is not None:
            self.client.hold_body()

    def on_frame(self, kind: int, head: bytes, body: bytes) -> None:
        """The runtime says something about this request."""
        if kind == web.RESPONSE:
            self._on_response(head, body)
        elif kind == web.BODY:
            last = head[0] & web.LAST
            if last:
                self._over()
            if self.client is not None:
                fits = self.answering.more(body, last=bool(last))
                self._wrote(len(body), last=bool(last), fits=fits)
        elif kind == web.CREDIT:
            self._credit += _CREDIT.unpack(body)[0]
            self._push()
        elif kind == web.CANCEL:
            self._over()
            self._tell(500, f"internal error (request {self.request_id})")

    def cancel(self) -> None:
        if self.state == SENT and not self.cancelled:
            self.cancelled = self.gateway.now()
            self._pieces, self._held = [], 0
            self.server.write(frame(web.CANCEL, self.number, b""))

    def drained(self) -> None:
        if self._unsaid and self.state == SENT and not self.cancelled:
            self.server.write(frame(web.CREDIT, self.number, b"", _CREDIT.pack(self._unsaid)))
            self._unsaid = 0

    def rewind(self) -> None:
        self._credit, self._unsaid, self._last_sent = web.WINDOW, 0, False

    # inside

    def _on_response(self, head: bytes, body: bytes) -> None:
        last = bool(head[0] & web.LAST)
        if last:
            self._over()
        if self.client is None:
            return
        try:
            prepared = prepare(head[1:])
        except ValueError as error:
            self.cancel()
            self._tell(502, f"the application answered with {error} (request {self.request_id})")
            return
        fits = self.answering.start(prepared, body, last=last)
        self._wrote(len(body), last=last, fits=fits)

    def _wrote(self, size: int, *, last: bool, fits: bool) -> None:
        client = self.client
        if client is None:
            return
        if not fits:  # what the application said of its length is not so: the client must not take it for whole
            self.client = None
            self.cancel()
            client.abort(after_writing=True)
        elif last:
            self.client = None
            client.finished(keep=self.answering.keep)
        else:
            self._unsaid += size
            if self._unsaid >= _WORTH_SAYING and not client.is_slow:
                self.drained()

    def _over(self) -> None:
        self.server.over(self.number)
        self._end(max(_SHORTEST, self.gateway.now() - self.since))

    def _take_body(self) -> tuple[bytes, int]:
        """As much of the body as the runtime's window takes, and the flag that says whether it is the last of it."""
        data, size = b"", 0
        if self._held:
            data = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
            size = len(data)
            if size > self._credit:
                data, self._pieces = data[: self._credit], [data[self._credit :]]
                size = len(data)
            else:
                self._pieces = []
            self._held -= size
            self._credit -= size
        self._last_sent = self.body_done and not self._held
        return data, web.LAST if self._last_sent else 0

    def _push(self) -> None:
        if self.cancelled or self._last_sent:
            return
        while (self._held and self._credit) or (self.body_done and not self._held and not self._last_sent):
            data, last = self._take_body()
            self.server.write(frame(web.BODY, self.number, bytes((last,)), data))
        self._pace_client()

    def _pace_client(self) -> None:
        if self.client is None:
            return
        if self._held:
            self.client.hold_body()
        else:
            self.client.want_body()
