"""Requests about web functions: where they answer, and tokens for those that are protected."""

from __future__ import annotations

import asyncio

from alight.link.stream import Stream
from alight.server.auth import CONTAINER
from alight.server.request import Request, Routes
from alight.server.services.access import ProxyTokens
from alight.server.services.containers import Containers
from alight.server.services.functions import Functions
from alight.server.services.nodes import Nodes
from alight.server.services.published import may_use
from alight.server.services.web_names import WebNames
from alight.wire import errors
from alight.wire.urls import FunctionUrls, ProxyTokenCreate, ProxyTokenName

_PIECE = 64 << 10


def routes(functions: Functions, names: WebNames, inside: Inside, tokens: ProxyTokens) -> Routes:
    async def urls(request: Request) -> None:
        asked = request.arguments(FunctionUrls)
        function = functions.get(asked.function_id)
        if not may_use(request.who, function):
            raise errors.PermissionDeniedError("this function belongs to somebody else")
        is_inside = request.who.kind == CONTAINER and inside.reaches(request.who.container_id)
        await request.stream.send(FunctionUrls(function.function_id, names.of(function), is_inside))

    async def create(request: Request) -> None:
        asked = request.arguments(ProxyTokenCreate)
        environment = request.environment(asked.environment)
        await request.stream.send(await tokens.create(asked.name, request.who, asked.scope, environment))

    async def listed(request: Request) -> None:
        await request.stream.send(tokens.listed(request.who))

    async def update(request: Request) -> None:
        asked = request.arguments(ProxyTokenName)
        await tokens.rename(asked.token_id, asked.name, request.who)
        await request.stream.send({})

    async def delete(request: Request) -> None:
        await tokens.delete(request.arguments(ProxyTokenName).token_id, request.who)
        await request.stream.send({})

    async def enter(request: Request) -> None:
        """A connection of a container on another machine to the gateway, as it is."""
        stream = request.stream
        try:
            reader, writer = await asyncio.open_unix_connection(inside.gateway)
        except OSError as error:
            raise errors.ServiceError(f"the server's web gateway does not listen: {error.strerror}") from error
        up = asyncio.ensure_future(_up(stream, writer))
        try:
            while piece := await reader.read(_PIECE):
                await stream.send(None, piece)
            stream.end_nowait()
            await up
        finally:
            up.cancel()
            writer.close()

    return {
        "function.urls": urls,
        "web.enter": enter,
        "proxy_token.create": create,
        "proxy_token.list": listed,
        "proxy_token.update": update,
        "proxy_token.delete": delete,
    }


class Inside:
    """Which containers reach the gateway by its name inside containers; ``gateway`` is its socket on this machine."""

    def __init__(self, containers: Containers, nodes: Nodes, gateway: str) -> None:
        self.gateway = gateway
        self._containers = containers
        self._nodes = nodes

    def reaches(self, container_id: str) -> bool:
        """Those with a network, on a machine that lends them the gateway."""
        record = self._containers.alive.get(container_id)
        if record is None:
            return False
        session = self._nodes.sessions.get(record.node_id)
        function = self._containers.functions.by_id.get(record.function_id)
        blocked = function is not None and function.spec.block_network
        return session is not None and session.hello.gateway and not blocked


async def _up(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while (message := await stream.recv()) is not None:
        writer.write(message[1])
        await writer.drain()
    writer.write_eof()
