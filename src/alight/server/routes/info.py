"""Requests about the server itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from alight.server.request import Request, Routes
from alight.wire.messages import ServerInfo


def routes(info: Callable[[], ServerInfo], stop: Callable[[], Awaitable[None]]) -> Routes:
    async def server_info(request: Request) -> None:
        await request.stream.send(info())

    async def server_stop(request: Request) -> None:
        await stop()
        await request.stream.send({})

    return {"server.info": server_info, "server.stop": server_stop}
