"""Connections of the gateway into containers, by way of their machines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

import msgspec

from alight.link.peer import Stream
from alight.server.services.containers import Containers
from alight.server.services.node_session import Session
from alight.server.services.nodes import Nodes
from alight.wire import errors
from alight.wire.commands import Dial

log = logging.getLogger(__name__)
_PIECE = 128 << 10
_PATIENCE = 10.0  # seconds for a machine to connect
_LONGEST_LINE = 4096


class Dials:
    """``run`` is where a node of this machine listens for us (``run/dial.sock``)."""

    def __init__(self, containers: Containers, nodes: Nodes, run: Path) -> None:
        self._containers = containers
        self._nodes = nodes
        self._path = run / "dial.sock"
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """End the connections whose bytes pass through here."""
        for task in self._tasks:
            task.cancel()

    async def dial(self, container_id: str, port: int) -> socket.socket:
        """A connected socket that does not block. Raises NotFoundError, ConnectionError."""
        record = self._containers.alive.get(container_id)
        session = self._nodes.sessions.get(record.node_id) if record is not None else None
        if record is None:
            raise errors.NotFoundError(f"the container {container_id} does not run")
        asked = Dial(container_id, port)
        if session is None or session.peer.uid is not None:  # it may be restarting; a socket says so at once
            try:
                return await asyncio.wait_for(self._take_over(asked), _PATIENCE)
            except (OSError, asyncio.TimeoutError) as error:
                if session is None:
                    raise errors.ConnectionError(f"the machine of {container_id} is away: {error}") from error
                log.debug("no descriptor from this machine's node: %s", error)
        return await self._carry(session, asked)

    async def _take_over(self, asked: Dial) -> socket.socket:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as way:
            await loop.sock_connect(way, str(self._path))
            await loop.sock_sendall(way, msgspec.json.encode(asked) + b"\n")
            said, found = await _receive(way)
        if found:
            sock = socket.socket(fileno=found[0])
            sock.setblocking(False)
            return sock
        if not said:
            raise ConnectionResetError("the node hung up")
        raise errors.from_wire(msgspec.json.decode(said))

    async def _carry(self, session: Session, asked: Dial) -> socket.socket:
        """The bytes travel on a stream to the machine; who uses the socket need not know."""
        stream = await session.peer.open("node.dial", asked)
        if await stream.recv() is None:
            raise errors.ConnectionError(f"the machine of {asked.container} made no connection to it")
        ours, theirs = socket.socketpair()
        for one in (ours, theirs):
            one.setblocking(False)
        task = asyncio.get_running_loop().create_task(_pump(ours, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return theirs


async def _receive(way: socket.socket) -> tuple[bytes, list[int]]:
    loop = asyncio.get_running_loop()
    said = b""
    while True:
        readable = asyncio.Event()
        loop.add_reader(way, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(way)
        try:
            data, found, _, _ = socket.recv_fds(way, _LONGEST_LINE, 1)
        except BlockingIOError:
            continue
        said += data
        if found or not data or said.endswith(b"\n"):
            return said, found


async def _pump(sock: socket.socket, stream: Stream) -> None:
    loop = asyncio.get_running_loop()

    async def out() -> None:
        with contextlib.suppress(ConnectionResetError):
            while data := await loop.sock_recv(sock, _PIECE):
                await stream.send_raw(b"", data)
        await stream.end()

    async def into() -> None:
        async for _, data in stream:
            await loop.sock_sendall(sock, data)
        sock.shutdown(socket.SHUT_WR)

    with sock:
        both = [loop.create_task(out()), loop.create_task(into())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for one in both:
                one.cancel()
            for end in await asyncio.gather(*both, return_exceptions=True):
                if isinstance(end, errors.Error):
                    log.info("a connection into a container ended: %s", end)
