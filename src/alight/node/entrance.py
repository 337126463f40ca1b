"""The web gateway inside containers: a listener in the container's own network, whose connections go to the server.

Not a hole in the firewall: the listener lies in the container's network (as its DNS does), so no rule of this machine
can be in its way, nobody but this container reaches it, and code needs no address of the host. It is made when the
container first asks for a name of the gateway, so that containers which never do pay nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from alight.link.stream import Stream
from alight.node.engine.base import Engine, EngineError
from alight.node.session import Session
from alight.wire import errors
from alight.wire.urls import INSIDE_PORT

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.53"
SOCKET = "web.sock"  # of the server's gateway, beside the server's own
_PIECE = 64 << 10
_MOST = 256  # connections of one container: the agent's descriptors are everybody's


class Entrance:
    """The listeners of this node's containers."""

    def __init__(self, engine: Engine, session: Session, server_socket: str) -> None:
        self._engine = engine
        self._session = session
        self._gateway = str(Path(server_socket).with_name(SOCKET)) if server_socket else ""
        self._doors: dict[str, asyncio.Task[_Door | None]] = {}

    async def open(self, container_id: str) -> str:
        """The address at which the container reaches the gateway from now on; "" when it cannot."""
        task = self._doors.get(container_id)
        if task is None or (task.done() and task.result() is None):
            task = self._doors[container_id] = asyncio.get_running_loop().create_task(self._open(container_id))
        door = await asyncio.shield(task)
        return ADDRESS if door is not None else ""

    async def close(self, container_id: str) -> None:
        """The container is gone."""
        task = self._doors.pop(container_id, None)
        door = await task if task is not None else None
        if door is not None:
            await door.close()

    async def _open(self, container_id: str) -> _Door | None:
        listener: socket.socket | None = None
        try:
            listener = await self._engine.netns_socket(container_id, socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((ADDRESS, INSIDE_PORT))
            listener.listen(128)
            listener.setblocking(False)
            door = _Door(self._reach)
            await door.open(listener)
        except (EngineError, OSError) as error:
            if listener is not None:
                listener.close()
            log.warning("container %s cannot reach the web gateway: %s", container_id, error)
            return None
        return door

    async def _reach(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to the gateway and back, until both ways have ended."""
        if self._gateway:
            there, back = await asyncio.open_unix_connection(self._gateway)
            try:
                await _both(_copy(reader, back), _copy(there, writer))
            finally:
                back.close()
            return
        peer = await self._session.peer()
        stream = await peer.open("web.enter")
        try:
            await _both(_send(reader, stream), _receive(stream, writer))
        except BaseException:
            await stream.fail(errors.ConnectionError("the container's connection ended"))
            raise


class _Door:
    """One listener and its connections."""

    def __init__(self, reach: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._reach = reach
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=_PIECE)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) < _MOST:
            self._tasks.add(task)
            try:
                await self._reach(reader, writer)
            except (OSError, errors.Error) as error:
                log.debug("a connection of a container to the gateway ended: %s", error)
            finally:
                self._tasks.discard(task)
        writer.close()


async def _both(one: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Until both have ended; when one fails, the other goes as well."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _send(reader: asyncio.StreamReader, stream: Stream) -> None:
    while piece := await reader.read(_PIECE):
        await stream.send(None, piece)
    stream.end_nowait()


async def _receive(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while (message := await stream.recv()) is not None:
        writer.write(message[1])
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
