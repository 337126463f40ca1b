"""What the dashboard is given: who asks what of whom, and where sessions are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

#: Status, header fields, and a body or its pieces as they come.
Said = tuple[int, Mapping[str, str], "bytes | AsyncIterator[bytes]"]


class Who(Protocol):
    """Who asks, as the server knows people. ``kind`` is "owner" (of the server) or "user"."""

    @property
    def kind(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def token_id(self) -> str: ...


class Request(Protocol):
    """A request of a browser or a program. ``headers`` by names in lower case."""

    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def secure(self) -> bool: ...
    @property
    def cookies(self) -> tuple[str, ...]: ...


class Conversation(Protocol):
    """A route that is being asked, both ways."""

    def say(self, head: Any = None, body: bytes = b"") -> None: ...
    def said_all(self) -> None: ...
    def read(self) -> AsyncIterator[tuple[Any, bytes]]: ...
    async def leave(self) -> None: ...


class Ask(Protocol):
    """The server's routes, with the rights of who asks. Raise the errors of ``wire.errors``."""

    def knows(self, method: str) -> bool: ...
    async def one(self, who: Any, method: str, args: Any = None) -> Any: ...
    def all(self, who: Any, method: str, args: Any = None, body: bytes = b"") -> AsyncIterator[tuple[Any, bytes]]: ...
    def open(self, who: Any, method: str, args: Any = None, body: bytes = b"") -> Conversation: ...


class Talk(Protocol):
    """A WebSocket."""

    async def recv(self) -> str | bytes | None: ...
    async def send(self, message: str | bytes) -> None: ...


class Keep(Protocol):
    """Where sessions are. ``row``: session (a hash), kind, owner, token_id, created_at, expires_at."""

    async def add(self, row: Mapping[str, Any]) -> None: ...
    async def find(self, session: bytes) -> Mapping[str, Any] | None: ...
    async def delete(self, session: bytes) -> None: ...


#: A token (id, secret) or the words of an Authorization field to who has it. Raise AuthError.
ByToken = Callable[[str], Awaitable[Any]]
Serve = Callable[[Talk], Awaitable[None]]
