"""What a route gets: who asks, and the stream on which it answers.

A route is a coroutine function of one Request. It answers on ``request.stream``; an ``errors.Error`` that it raises is
sent as it is. Whether this principal may use the method at all was decided before (``permissions``); whether it may
touch this object is for the route.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from alight.link.peer import Peer, Stream
from alight.server.auth import CONTAINER, Principal
from alight.wire import errors

T = TypeVar("T")
DEFAULT_ENVIRONMENT = "main"


@dataclass(slots=True)
class Request:
    """One request of one principal."""

    who: Principal
    stream: Stream
    peer: Peer

    def arguments(self, kind: type[T]) -> T:
        """The request's args as a dataclass of ``wire``."""
        return self.stream.arguments(kind)

    def environment(self, asked: str) -> str:
        """The environment that a request means. A container's own is the only one it may name."""
        if self.who.kind != CONTAINER:
            return asked or DEFAULT_ENVIRONMENT
        if asked and asked != self.who.environment:
            raise errors.PermissionDeniedError(
                f"code in environment {self.who.environment!r} may not use environment {asked!r}"
            )
        return self.who.environment


Route = Callable[[Request], Awaitable[None]]
Routes = dict[str, Route]
#: Serves a request without waiting, or returns False (or raises) before it has done anything.
QuickRoute = Callable[[Request], bool]
QuickRoutes = dict[str, QuickRoute]
