"""A gateway that speaks the frames of ``wire.web`` and nothing else, for tests of the container's side."""

from __future__ import annotations

import socket
import struct
from collections import deque
from pathlib import Path

from alight.wire import web
from alight.wire.codec import Frame, FrameReader, encode_frame

KINDS = {getattr(web, name): name for name in ("RESPONSE", "BODY", "CREDIT", "CANCEL", "ACCEPT", "MESSAGE", "CLOSE")}


class Answer:
    """A whole answer. ``frames`` are those that it came in; CANCEL makes ``cancelled``."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.frames: list[str] = []
        self.cancelled = False

    @property
    def text(self) -> str:
        return self.body.decode()


class Gateway:
    """One connection. Blocking; the test's own time limit ends a wait in vain."""

    def __init__(self, directory: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(directory / web.SOCKET))
        self.reader = FrameReader()
        self.frames: deque[Frame] = deque()
        self.number = 0

    def send(self, kind: int, stream: int, head: bytes = b"", body: bytes = b"") -> None:
        for piece in encode_frame(kind, stream, head, body):
            self.socket.sendall(piece)

    def request(  # noqa: PLR0913  what an HTTP request has
        self,
        method: str = "GET",
        path: str = "/",
        body: bytes = b"",
        *,
        query: str = "",
        root: str = "",
        endpoint: str = "",
        headers: dict[str, str] | None = None,
        flags: int = web.LAST,
        name: str = "",
    ) -> int:
        """Send a request; returns its number. Without LAST in ``flags`` its body goes on."""
        self.number += 1
        fields = [name or f"rq-{self.number}", method, "http", "1.1", path, query, root]
        fields += ["192.0.2.1", "4711", "example.localhost", "9080", endpoint]
        for pair in (headers or {"host": "example.localhost"}).items():
            fields += pair
        self.send(web.REQUEST, self.number, web.pack(flags, [field.encode("latin-1") for field in fields]), body)
        return self.number

    def frame(self, *streams: int) -> Frame:
        """The next frame, of these requests if any are named; others are kept."""
        while True:
            for one in self.frames:
                if not streams or one.stream in streams:
                    self.frames.remove(one)
                    return one
            data = self.socket.recv(1 << 18)
            if not data:
                raise EOFError
            self.frames += self.reader.feed(data)

    def credit(self, stream: int, size: int) -> None:
        self.send(web.CREDIT, stream, b"", struct.pack("!I", size))

    def answer(self, stream: int) -> Answer:
        """The answer to its end."""
        made = Answer()
        while True:
            frame = self.frame(stream)
            made.frames.append(KINDS[frame.kind])
            if frame.kind == web.CANCEL:
                made.cancelled = True
                return made
            if frame.kind == web.CREDIT:
                continue
            flags, fields = web.unpack(frame.head)
            if frame.kind == web.RESPONSE:
                texts = [field.decode("latin-1") for field in fields]
                made.status, made.headers = int(texts[0]), dict(zip(texts[1::2], texts[2::2]))
            else:
                assert frame.kind == web.BODY, frame
            made.body += frame.body
            if frame.body and not flags & web.LAST:
                self.credit(stream, len(frame.body))
            if flags & web.LAST:
                return made

    def get(self, path: str = "/", **options: object) -> Answer:
        return self.answer(self.request("GET", path, **options))

    def close(self) -> None:
        self.socket.close()
