"""Requests about web functions: where they answer, and tokens for those that are protected."""

from __future__ import annotations

import asyncio

from alight.gateway.gateway import Gateway
from alight.link.stream import Stream
from alight.server.auth import CONTAINER
from alight.server.request import Request, Routes
from alight.server.services.access import ProxyTokens
from alight.server.services.containers import Containers
from alight.server.services.functions import Functions
from alight.server.services.nodes import Nodes
from alight.server.services.published import Published, may_use
from alight.server.services.web_names import WebNames
from alight.wire import errors
from alight.wire.urls import (
    FunctionUrls,
    ProxyTokenCreate,
    ProxyTokenName,
    SessionEnd,
    SessionStart,
    SessionStarted,
)

_PIECE = 64 << 10
_LONGEST_IDLE = 86400.0


def routes(functions: Functions, names: WebNames, inside: Inside, tokens: ProxyTokens, gateway: Gateway) -> Routes:
    def found(request: Request, function_id: str) -> Published:
        function = functions.get(function_id)
        if not may_use(request.who, function):
            raise errors.PermissionDeniedError("this function belongs to somebody else")
        return function

    async def session_start(request: Request) -> None:
        asked = request.arguments(SessionStart)
        function = found(request, asked.function_id)
        name = function.spec.name.removesuffix(".*")
        if not any(isinstance(one, dict) and one.get("sessioned") for one in function.spec.web.values()):
            raise errors.InvalidError(
                f"{name} has no sessions: its class needs @alight.sessioned() below @app.server()"
            )
        if not 0 < asked.idle_timeout <= _LONGEST_IDLE:
            raise errors.InvalidError(
                f"idle_timeout={asked.idle_timeout:g} of a session of {name}: seconds, above 0 and at most a day"
            )
        begun = gateway.start_session(function.function_id, asked.idle_timeout)
        if begun is None:
            raise errors.ResourceExhaustedError("there are too many sessions", hint="terminate those that are not used")
        await request.stream.send(SessionStarted(*begun))

    async def session_end(request: Request) -> None:
        asked = request.arguments(SessionEnd)
        function = found(request, asked.function_id)
        if not gateway.sessions.terminate(function.function_id, asked.token, gateway.now()):
            raise errors.NotFoundError("this session is over already, or never began")
        await request.stream.send({})

    async def urls(request: Request) -> None:
        asked = request.arguments(FunctionUrls)
        function = found(request, asked.function_id)
        is_inside = request.who.kind == CONTAINER and inside.reaches(request.who.container_id)
        await request.stream.send(FunctionUrls(function.function_id, names.of(function), is_inside))

    async def create(request: Request) -> None:
        asked = request.arguments(ProxyTokenCreate)
        environment = request.environment(asked.environment)
        await request.stream.send(await tokens.create(asked.name, request.who, asked.scope, environment))

    async def lend(request: Request) -> None:
        with tokens.lent(request.arguments(ProxyTokenCreate).name, request.who) as token:
            await request.stream.send(token)
            while await request.stream.recv() is not None:
                pass

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
        "web.session_start": session_start,
        "web.session_end": session_end,
        "proxy_token.create": create,
        "proxy_token.lend": lend,
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
