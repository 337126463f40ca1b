"""HTTP requests of ASGI applications: one task each, with ``receive`` and ``send`` over frames."""

from __future__ import annotations

import asyncio

from alight.runtime.web_exchange import ClientGone, Exchange, head_of
from alight.wire import ambient, web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

    from alight.runtime.web_connection import Connection
    from alight.runtime.web_exchange import Request

#: Pieces of a large body: the gateway grants as it goes, so a window is never empty at once.
_PIECE = web.WINDOW // 4
#: An application that waits for what comes next hears that the client is gone, and may end by itself for so long.
_TO_UNDERSTAND = 1.0


class Asked(Exchange):
    """What HTTP and WebSockets have in common: user code in a task, which waits for what comes and for room."""

    __slots__ = ("_listens", "_news", "_room", "_task")

    def __init__(self, connection: Connection, stream: int, request: Request) -> None:
        super().__init__(connection, stream, request)
        self._news: Optional[asyncio.Event] = None
        self._room: Optional[asyncio.Event] = None
        self._listens = 0
        self._task: Any = None

    def begin(self, loop: Any, application: Any, scope: Dict[str, Any]) -> Any:
        """Returns the task of user code."""
        self._task = loop.create_task(self._run(application, scope))
        return self._task

    def roomier(self) -> None:
        if self._room is not None:
            self._room.set()

    def cancelled(self) -> None:
        self._heard_news()
        self.roomier()
        task = self._task
        if self._listens:
            asyncio.get_running_loop().call_later(_TO_UNDERSTAND, task.cancel)
        else:
            task.cancel()

    def abandon(self) -> None:
        self._task.cancel()

    def unfinished(self) -> None:
        """User code has ended, and the request has not."""
        raise NotImplementedError

    def failed(self, error: BaseException) -> None:
        """User code has ended with an exception, and the request has not ended."""
        raise NotImplementedError

    async def receive(self) -> Dict[str, Any]:
        raise NotImplementedError

    async def send(self, message: Dict[str, Any]) -> None:
        raise NotImplementedError

    async def _run(self, application: Any, scope: Dict[str, Any]) -> None:
        ambient.current_input_id.set(self.request.name)
        try:
            await application(scope, self.receive, self.send)
        except BaseException as error:  # noqa: BLE001  user code may raise anything; SystemExit would end the loop
            if not (self.over and isinstance(error, asyncio.CancelledError)):
                self.log(error)
            if not self.over:
                self.failed(error)
        if not self.over:
            self.unfinished()

    def _heard_news(self) -> None:
        if self._news is not None:
            self._news.set()

    async def _wait_for_news(self) -> None:
        news = self._news
        if news is None:
            news = self._news = asyncio.Event()
        news.clear()
        self._listens += 1
        try:
            await news.wait()
        finally:
            self._listens -= 1

    async def _wait_for_room(self) -> None:
        """Until the gateway has taken something, or never will."""
        room = self._room
        if room is None:
            room = self._room = asyncio.Event()
        room.clear()
        await room.wait()


class Http(Asked):
    """One HTTP request."""

    __slots__ = ("_chunks", "_complete", "_head", "_sent", "_told", "_without_body")

    def __init__(self, connection: Connection, stream: int, request: Request, body: bytes) -> None:
        super().__init__(connection, stream, request)
        self._chunks: List[bytes] = [body] if body else []
        self._complete = bool(request.flags & web.LAST)  # all of the request's body is here
        self._told = False  # and user code has heard so
        self._head: Optional[bytes] = None  # of the answer, once user code has said it
        self._sent = False  # and it is on its way
        self._without_body = request.method == "HEAD"

    def arrived(self, kind: int, head: bytes, body: bytes) -> None:
        if kind == web.BODY and not self._complete:
            if body:
                self._chunks.append(body)
            self._complete = bool(head[0] & web.LAST)
            self._heard_news()

    def flush(self) -> None:
        """The head waited for the first bytes of the body, and there were none in its turn of the loop."""
        if not self._sent and not self.over and self._head is not None:
            self._sent = True
            self.connection.say(web.RESPONSE, self.stream, b"\0" + self._head)

    def unfinished(self) -> None:
        if self.gone:
            self.end(web.CANCEL)
            return
        self.log(RuntimeError(f"the application returned {'before' if self._head else 'without'} an answer's end"))
        self._give_up()

    def failed(self, error: BaseException) -> None:
        if self.gone:
            self.end(web.CANCEL)
        elif isinstance(error, asyncio.CancelledError) and not self._sent:
            self.answer(503, f"the container of request {self.request.name} ends")
        else:
            self._give_up()

    async def receive(self) -> Dict[str, Any]:
        while True:
            chunks = self._chunks
            if chunks:
                body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                chunks.clear()
                self.took(len(body))
            elif self._complete and not self._told:
                body = b""
            elif self.gone or self.over:
                return {"type": "http.disconnect"}
            else:
                await self._wait_for_news()
                continue
            self._told = self._complete
            return {"type": "http.request", "body": body, "more_body": not self._complete}

    async def send(self, message: Dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            if self.gone or self.over:
                self._refuse()
            head = self._head
            if head is None:
                raise RuntimeError("http.response.body was sent before http.response.start")
            body = message.get("body", b"")
            flags = 0 if message.get("more_body", False) else web.LAST
            if self._without_body:
                body = b""
            elif type(body) is not bytes:
                body = bytes(body)  # user code may change it before it leaves
            if len(body) > self.credit:
                body = await self._send_most(body)
            self.credit -= len(body)
            if self._sent:
                sort, head = web.BODY, bytes((flags,))
            else:
                sort, head = web.RESPONSE, bytes((flags,)) + head
                self._sent = True
            if flags:
                self.end(sort, head, body)
                self._heard_news()
            elif body:
                self.connection.say(sort, self.stream, head, body)
            elif sort == web.RESPONSE:
                self._sent = False  # with the next bytes, or at the end of the turn
        elif kind == "http.response.start":
            if self.gone or self.over:
                self._refuse()
            if self._head is not None:
                raise RuntimeError("http.response.start was sent twice")
            self._head = head_of(message["status"], message.get("headers", ()))[1:]
            self.connection.later(self)
        else:
            raise RuntimeError(f"{kind!r} is no message that answers an HTTP request")

    async def _send_most(self, body: Any) -> bytes:
        """All but what there is room for now, as there comes to be room. Returns the rest."""
        self.flush()
        view = memoryview(body)
        while len(view) > self.credit:
            size = min(self.credit, _PIECE)
            if size <= 0:
                await self._wait_for_room()
                if self.gone or self.over:
                    self._refuse()
                continue
            self.credit -= size
            self.connection.say(web.BODY, self.stream, b"\0", bytes(view[:size]))
            view = view[size:]
        return bytes(view)

    def _refuse(self) -> None:
        if self.over and not self.gone:
            raise RuntimeError("the answer was complete already")
        raise ClientGone(f"the client of {self.request} is gone")

    def _give_up(self) -> None:
        if self._sent:
            self.end(web.CANCEL)
        else:
            self.answer(500, self.internal_error())
        self._heard_news()
