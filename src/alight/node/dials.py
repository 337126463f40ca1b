"""Connections from the gateway into containers: to the socket of a runtime, or to a port that only its network has.

On the server's own machine the connected descriptor is handed over and no byte passes through here. For a server
elsewhere this node carries the bytes on a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from alight.link.stream import Stream, decode
from alight.node import paths
from alight.node.engine.base import Engine, EngineError
from alight.wire import errors, web
from alight.wire.commands import Dial

if TYPE_CHECKING:
    from alight.node.container import Container

log = logging.getLogger(__name__)
_LONGEST_LINE = 1024
_PATIENCE = 10.0  # seconds for whoever connects to say what it wants
_PIECE = 128 << 10
_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class Dials:
    """Serves ``node.dial`` and ``run/dial.sock``."""

    def __init__(self, engine: Engine, containers: Mapping[str, Container], path: Path) -> None:
        self._engine = engine
        self._containers = containers
        self._path = path
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Listen for a server on this machine."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(before)
        listener.listen(128)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)

    def close(self) -> None:
        """Stop listening. Connections that were handed over stay."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()

    async def serve(self, stream: Stream) -> None:
        """One connection as a stream, to its end. Raises NotFoundError, ConnectionError."""
        sock = await self.connect(stream.arguments(Dial))
        loop = asyncio.get_running_loop()
        with sock:
            await stream.send()
            out = loop.create_task(_to_stream(sock, stream))
            into = loop.create_task(_to_socket(stream, sock))
            try:
                await asyncio.wait([out, into], return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for task in (out, into):
                    task.cancel()
                await asyncio.gather(out, into, return_exceptions=True)

    async def connect(self, asked: Dial) -> socket.socket:
        """A connected socket that does not block. Raises NotFoundError, ConnectionError."""
        container = self._containers.get(asked.container)
        if container is None or not container.running:
            raise errors.NotFoundError(f"the container {asked.container} does not run")
        try:
            if asked.port:
                return await self._connect_port(asked)
            return await _connect_runtime(self._engine.directory(asked.container) / "spool")
        except (OSError, EngineError) as error:
            what = f"port {asked.port}" if asked.port else "the socket for web requests"
            raise errors.ConnectionError(f"{what} of {asked.container} takes no connection: {error}") from error

    async def _connect_port(self, asked: Dial) -> socket.socket:
        """By the container's own loopback: so it works for programs that listen there alone, and without a network."""
        loop = asyncio.get_running_loop()
        refused: OSError | None = None
        for family, address in _LOOPBACKS:
            sock = await self._engine.netns_socket(asked.container, family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(sock, (address, asked.port))
            except OSError as error:
                sock.close()
                refused = refused or error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        assert refused is not None
        raise refused

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            log.debug("a connection was gone before it was taken: %s", error)
            return
        sock.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._hand_over(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_over(self, sock: socket.socket) -> None:
        with sock:
            _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in {0, os.getuid()}:
                return
            try:
                asked = decode(Dial, await asyncio.wait_for(_line(sock), _PATIENCE))
                with await self.connect(asked) as found:
                    socket.send_fds(sock, [b"+"], [found.fileno()])
            except errors.Error as error:
                with contextlib.suppress(OSError):
                    sock.send(msgspec.json.encode(errors.to_wire(error)) + b"\n")
            except (OSError, asyncio.TimeoutError) as error:
                log.info("a connection into a container could not be handed over: %s", error)


async def _connect_runtime(spool: Path) -> socket.socket:
    """The container can write to that directory: what it laid there may be a link to somebody else's socket."""
    root = paths.open_root(spool)
    try:
        seen = paths.open_beneath(root, web.SOCKET, os.O_PATH | os.O_NOFOLLOW, links=False)
    finally:
        os.close(root)
    if not stat.S_ISSOCK(os.fstat(seen).st_mode):
        os.close(seen)
        raise errors.ConnectionError("what it left for web requests is no socket")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(sock, f"/proc/self/fd/{seen}")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(seen)
    return sock


async def _line(sock: socket.socket) -> bytes:
    loop, seen = asyncio.get_running_loop(), b""
    while not seen.endswith(b"\n"):
        data = await loop.sock_recv(sock, _LONGEST_LINE)
        if not data or len(seen) > _LONGEST_LINE:
            raise errors.InvalidError("one line of JSON is wanted here")
        seen += data
    return seen


async def _to_stream(sock: socket.socket, stream: Stream) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionResetError):
        while data := await loop.sock_recv(sock, _PIECE):
            await stream.send_raw(b"", data)
    await stream.end()


async def _to_socket(stream: Stream, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    async for _, data in stream:
        await loop.sock_sendall(sock, data)
    sock.shutdown(socket.SHUT_WR)
