"""WSGI applications: each request in a thread, as many at a time as the function takes."""

from __future__ import annotations

import contextvars
import io
import sys
import threading
from queue import SimpleQueue

from alight.runtime.asgi import decoded
from alight.runtime.web_exchange import ClientGone, Exchange, environment_of, head_of
from alight.wire import ambient, web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple

    from alight.runtime.web_connection import Connection
    from alight.runtime.web_exchange import Request

_PIECE = web.WINDOW // 4


class Wsgi:
    """One application, in at most ``most`` threads. Requests over that wait for one."""

    def __init__(self, application: Any, most: int) -> None:
        self._application = application
        self._most = most
        self._loop: Any = None
        self._threads = 0
        self._idle = 0
        self._waiting: SimpleQueue[Optional[_Request]] = SimpleQueue()
        self._running: Set[_Request] = set()

    async def start(self) -> None:
        import asyncio  # noqa: PLC0415  here already: whoever asks runs in its loop

        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        for _ in range(self._threads):
            self._waiting.put(None)

    def running(self) -> List[Exchange]:
        """Those whose user code has not ended."""
        return list(self._running)

    def begin(self, connection: Connection, stream: int, request: Request, body: bytes) -> Exchange:
        made = _Request(connection, stream, request, body, self._loop)
        if request.flags & web.WEBSOCKET:
            made.answer(400, "a WSGI application speaks no WebSockets; @asgi_app() serves applications that do")
            return made
        self._running.add(made)
        if len(self._running) > self._threads and self._threads < self._most:
            self._threads += 1
            threading.Thread(target=self._work, name=f"alight-web-{self._threads}", daemon=True).start()
        self._waiting.put(made)
        return made

    def _work(self) -> None:
        while True:
            one = self._waiting.get()
            if one is None:
                return
            try:
                contextvars.copy_context().run(one.run, self._application, self._most > 1)
                self._loop.call_soon_threadsafe(self._ended, one)
            except RuntimeError:
                if self._loop.is_closed():
                    return  # the container has left without this request, and nobody hears of it
                raise

    def _ended(self, one: _Request) -> None:
        self._running.discard(one)
        if not one.over:
            one.end(web.CANCEL)


class _Request(Exchange):
    """``run`` and what it calls belong to the thread of the request; ``_lock`` guards what both sides change."""

    __slots__ = ("_body", "_head", "_lock", "_loop", "_room", "_sent")

    def __init__(self, connection: Connection, stream: int, request: Request, body: bytes, loop: Any) -> None:
        super().__init__(connection, stream, request)
        self._loop = loop
        self._body: Any = io.BytesIO(body) if request.flags & web.LAST else io.BufferedReader(_Input(self, body), 65536)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._head: Optional[bytes] = None
        self._sent = False

    def heard(self, kind: int, head: bytes, body: bytes) -> None:
        with self._lock:  # credit, gone
            super().heard(kind, head, body)

    def arrived(self, kind: int, head: bytes, body: bytes) -> None:
        raw = getattr(self._body, "raw", None)
        if kind == web.BODY and isinstance(raw, _Input):
            if body:
                raw.chunks.put(body)
            if head[0] & web.LAST:
                raw.chunks.put(b"")

    def roomier(self) -> None:
        self._room.notify_all()

    def cancelled(self) -> None:
        """A thread cannot be interrupted: it hears of it when it reads or writes."""
        self._room.notify_all()
        raw = getattr(self._body, "raw", None)
        if isinstance(raw, _Input):
            raw.chunks.put(None)

    def abandon(self) -> None:
        self.heard(web.CANCEL, b"", b"")

    # in the thread

    def run(self, application: Any, several: bool) -> None:
        """Answer the request, whatever the application does."""
        ambient.current_input_id.set(self.request.name)
        try:
            blocks = application(_environ(self.request, self._body, several), self._start_response)
            try:
                self._answer(blocks)
            finally:
                close = getattr(blocks, "close", None)
                if close is not None:
                    close()
        except BaseException as error:  # noqa: BLE001  user code may raise anything, and the thread goes on
            self.log(error)
            if self._sent or self.gone:
                self._say(web.CANCEL, b"", b"", last=True)
            else:
                self._loop.call_soon_threadsafe(self.answer, 500, self.internal_error())

    def taken(self, size: int) -> None:
        """User code has this much more of the body."""
        self._loop.call_soon_threadsafe(self.took, size)

    def _answer(self, blocks: Iterable[bytes]) -> None:
        only = blocks[0] if isinstance(blocks, (list, tuple)) and len(blocks) == 1 else None
        if only is not None and self._head is not None and not self._sent:
            self._write(only, last=True)  # the usual: one frame
            return
        for block in blocks:
            if block:
                self._write(block)
        self._write(b"", last=True)

    def _start_response(
        self, status: str, headers: List[Tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._sent:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        if self._head is not None and exc_info is None:
            raise RuntimeError("start_response() was called twice")
        code = status.split(" ", 1)[0]
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._head = head_of(code.encode("latin-1"), pairs)[1:]
        return self._write

    def _write(self, block: bytes, last: bool = False) -> None:
        """Also what ``start_response`` returns. Waits while the client does not take what was written."""
        head = self._head
        if head is None:
            raise RuntimeError("the application wrote before it called start_response()")
        view = memoryview(b"" if self.request.method == "HEAD" else block)
        while True:
            with self._lock:
                while view and self.credit <= 0 and not self.gone:
                    self._room.wait()
                if self.gone:
                    raise ClientGone(f"the client of {self.request} is gone")
                size = min(len(view), self.credit, _PIECE) if view else 0
                self.credit -= size
            piece, view = bytes(view[:size]), view[size:]
            flags = bytes((web.LAST if last and not view else 0,))
            kind, said = (web.BODY, flags) if self._sent else (web.RESPONSE, flags + head)
            self._sent = True
            self._say(kind, said, piece, last=last and not view)
            if not view:
                return

    def _say(self, kind: int, head: bytes, body: bytes, *, last: bool) -> None:
        if last:
            self._loop.call_soon_threadsafe(self.end, kind, head, body)
        else:
            self._loop.call_soon_threadsafe(self.connection.say, kind, self.stream, head, body)


class _Input(io.RawIOBase):
    """The request's body as it comes. ``chunks``: b"" is its end, None that the client is gone."""

    def __init__(self, exchange: _Request, first: bytes) -> None:
        super().__init__()
        self.chunks: SimpleQueue[Optional[bytes]] = SimpleQueue()
        self._exchange = exchange
        self._now = first
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._now and not self._ended:
            chunk = self.chunks.get()
            if chunk is None:
                raise ClientGone(f"the client of {self._exchange.request} is gone")
            self._now, self._ended = chunk, not chunk
        size = min(len(buffer), len(self._now))
        buffer[:size] = self._now[:size]
        self._now = self._now[size:]
        if size:
            self._exchange.taken(size)
        return size


def _environ(request: Request, body: Any, several: bool) -> Dict[str, Any]:
    _, _, scheme, version, path, query, _, client, client_port, server, server_port = request.fields[:11]
    environ: Dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": request.root_path,
        # Texts of WSGI are bytes in latin-1.
        "PATH_INFO": decoded(path).encode().decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": server.decode("latin-1") or "localhost",
        "SERVER_PORT": server_port.decode("latin-1") or "80",
        "SERVER_PROTOCOL": f"HTTP/{version.decode('latin-1')}",
        "REMOTE_ADDR": client.decode("latin-1"),
        "REMOTE_PORT": client_port.decode("latin-1"),
        "REQUEST_URI": request.full_path.decode("latin-1") + (f"?{query.decode('latin-1')}" if query else ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme.decode("latin-1"),
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": several,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    environ.update(environment_of(request))
    return environ
