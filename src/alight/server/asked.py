"""Routes asked from within: the dashboard and the REST API get what the command line gets, with the same rights.

A route answers on a stream; here is one without a connection. What is sent stays the object that it was, so that
answers can be put together and are encoded once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import msgspec

from alight.link.peer import Peer, Stream
from alight.server import permissions
from alight.server.auth import Principal
from alight.server.request import Request, Routes
from alight.wire import errors

_AHEAD = 16  # messages that a reader may be behind before its route waits
Message = tuple[Any, bytes]


class Conversation:
    """The stream of one route, and its other end. Fills what routes use of ``link.stream.Stream``."""

    def __init__(self, method: str, args: Any, body: bytes = b"") -> None:
        self.method = method
        self.opened_body = body
        self.container = ""
        self.id = 0
        self._args = args
        self._up: deque[tuple[bytes, bytes]] = deque()
        self._down: deque[Message] = deque()
        self._up_ended = False
        self._down_ended = False
        self._up_news = asyncio.Event()
        self._down_news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._left: Exception | None = None
        self._failed: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    # the route's end

    def arguments(self, kind: type[Any]) -> Any:
        """What is asked. Raises InvalidError."""
        if isinstance(self._args, kind):
            return self._args
        try:
            return msgspec.convert(self._args or {}, kind)
        except msgspec.ValidationError as error:
            raise errors.InvalidError(f"the arguments of {kind.__name__} do not fit: {error}") from None

    @property
    def args(self) -> dict[str, Any]:
        return cast("dict[str, Any]", msgspec.to_builtins(self._args or {}))

    async def send(self, message: Any = None, body: Any = b"") -> None:
        """Waits while the reader has not taken enough; raises what it left with."""
        await self._room.wait()
        self._raise_if_left()
        self.send_nowait(message, body)

    async def send_raw(self, head: bytes, body: Any = b"") -> None:
        """``send`` of a head that is encoded."""
        await self.send(msgspec.Raw(head) if head else None, body)

    def send_nowait(self, message: Any = None, body: Any = b"") -> None:
        """``send`` without waiting."""
        self._down.append((message, bytes(body)))
        if len(self._down) >= _AHEAD:
            self._room.clear()
        self._down_news.set()

    @property
    def may_send(self) -> bool:
        return self._room.is_set()

    async def recv(self) -> tuple[bytes, bytes] | None:
        """What the asker says, None when it has said all."""
        while not self._up:
            self._raise_if_left()
            if self._up_ended:
                return None
            self._up_news.clear()
            await self._up_news.wait()
        return self._up.popleft()

    async def __aiter__(self) -> AsyncIterator[tuple[bytes, bytes]]:
        while (message := await self.recv()) is not None:
            yield message

    @property
    def broken(self) -> bool:
        return self._left is not None

    async def wait_broken(self) -> None:
        """Return when nobody waits for an answer any more."""
        while self._left is None:
            self._up_news.clear()
            await self._up_news.wait()

    async def wait_ended(self) -> None:
        """Return when the asker has said all, or is gone."""
        try:
            while await self.recv() is not None:
                pass
        except errors.Error:
            return

    async def end(self) -> None:
        """The route has said all."""
        self.end_nowait()

    def end_nowait(self) -> None:
        """See ``end``."""
        self._down_ended = True
        self._down_news.set()

    finish = end_nowait

    async def fail(self, error: BaseException) -> None:
        """The route ends with an error."""
        self._failed = self._failed or error
        self.end_nowait()

    # the asker's end

    def say(self, head: Any = None, body: bytes = b"") -> None:
        """A message for the route."""
        self._up.append((b"" if head is None else msgspec.json.encode(head), body))
        self._up_news.set()

    def said_all(self) -> None:
        """Nothing more comes for the route."""
        self._up_ended = True
        self._up_news.set()

    async def read(self) -> AsyncIterator[Message]:
        """What the route says, until it has said all. Raises its error."""
        while True:
            while self._down:
                message = self._down.popleft()
                if len(self._down) < _AHEAD:
                    self._room.set()
                yield message
            if self._down_ended:
                break
            self._down_news.clear()
            await self._down_news.wait()
        if self._failed is not None:
            raise self._failed

    def begin(self, route: Any, request: Request) -> None:
        """Run the route."""
        self._task = asyncio.get_running_loop().create_task(self._run(route, request))

    async def leave(self) -> None:
        """Nobody reads any more: the route is told, and ends."""
        if self._left is None:
            self._left = errors.ConnectionError("whoever asked has left")
        self._up_ended = True
        self._up_news.set()
        self._room.set()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, route: Any, request: Request) -> None:
        try:
            await route(request)
        except asyncio.CancelledError:
            self._failed = errors.ServiceError("the server is stopping")
            raise
        except BaseException as error:  # noqa: BLE001  it is raised where it is read
            self._failed = error
        finally:
            self.end_nowait()

    def _raise_if_left(self) -> None:
        if self._left is not None:
            raise self._left


class Asking:
    """Asks routes for somebody. Checks what every connection's requests are checked for (``permissions``)."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def knows(self, method: str) -> bool:
        """Whether this server answers a method."""
        return method in self._routes

    def open(self, who: Principal, method: str, args: Any = None, body: bytes = b"") -> Conversation:
        """Begin a conversation; give it back with ``leave``. Raises PermissionDeniedError, UnimplementedError."""
        permissions.check(who, method)
        route = self._routes.get(method)
        if route is None:
            raise errors.UnimplementedError(f"this server does not do {method} yet")
        talk = Conversation(method, args, body)
        talk.begin(route, Request(who, cast("Stream", talk), cast("Peer", None)))
        return talk

    async def one(self, who: Principal, method: str, args: Any = None) -> Any:
        """The first message of the answer, None when there is none. Raises what the route raises."""
        found = None
        async for message, _ in self.all(who, method, args):
            if found is None:
                found = message
        return found

    async def all(self, who: Principal, method: str, args: Any = None, body: bytes = b"") -> AsyncIterator[Message]:
        """Every message of the answer with its body, as they come."""
        talk = self.open(who, method, args, body)
        talk.said_all()
        try:
            async with aclosing(talk.read()) as messages:  # type: ignore[type-var]
                async for message in messages:
                    yield message
        finally:
            await talk.leave()
