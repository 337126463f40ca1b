"""The agent's end of the spawner's socket: questions with answers, descriptors with some, and events."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from alight.node.engine.base import EngineError
from alight.node.filters import NoForks
from alight.node.spawner import PACKET
from alight.node.users import CannotMap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_MOST_DESCRIPTORS = 8
#: Seconds until a socket that was full is tried again.
_FULL = 0.001
_KINDS: dict[str, type[EngineError]] = {one.code: one for one in (CannotMap, NoForks)}


class SpawnerGone(EngineError):
    """The spawner ended, or there was none."""


def connect(path: Path) -> socket.socket:
    """A connection to the spawner that listens there. Raises ``SpawnerGone`` when none does."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.connect(short_path(path))
    except OSError as error:
        connection.close()
        if error.errno in {errno.ENOENT, errno.ECONNREFUSED}:
            raise SpawnerGone(f"No spawner listens at {path}") from error
        raise
    return connection


def short_path(path: Path) -> str:
    """A name for a socket's path that fits into the 108 bytes that an address has."""
    if len(os.fsencode(path)) < 100:
        return str(path)
    # Kept open on purpose: one descriptor per process and directory.
    return f"/proc/self/fd/{_directory(str(path.parent))}/{path.name}"


def _directory(path: str) -> int:
    if path not in _DIRECTORIES:
        _DIRECTORIES[path] = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return _DIRECTORIES[path]


_DIRECTORIES: dict[str, int] = {}


class SpawnerClient:
    """One connection, used from one event loop."""

    def __init__(
        self,
        connection: socket.socket,
        on_event: Callable[[dict[str, Any]], None],
        on_lost: Callable[[SpawnerClient], None],
    ) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._on_event = on_event
        self._on_lost = on_lost
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[Any, list[int]]]] = {}
        self._parts: dict[int, list[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)
        self._open = True

    @property
    def is_open(self) -> bool:
        return self._open

    async def ask(self, op: str, given: Sequence[int] = (), **arguments: Any) -> Any:
        """The answer to a command, with descriptors that it needs. Raises ``EngineError`` as the spawner says,
        ``SpawnerGone`` when it ends first."""
        answer, descriptors = await self._ask(op, arguments, given)
        for one in descriptors:
            os.close(one)
        return answer

    async def ask_descriptors(self, op: str, **arguments: Any) -> list[int]:
        """The descriptors that come with an answer; the caller closes them."""
        return (await self._ask(op, arguments))[1]

    def close(self) -> None:
        """Let go without a word to the owner."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SpawnerGone("The spawner of this node ended"))
        self._waiting.clear()

    async def _ask(self, op: str, arguments: dict[str, Any], given: Sequence[int] = ()) -> tuple[Any, list[int]]:
        if not self._open:
            raise SpawnerGone("The spawner of this node ended")
        number = next(self._numbers)
        packet = json.dumps({"n": number, "op": op, **arguments}, separators=(",", ":")).encode()
        if len(packet) > PACKET:
            raise EngineError(f"The plan of {arguments.get('id')} is too large", hint="Use an image with fewer layers")
        future: asyncio.Future[tuple[Any, list[int]]] = self._loop.create_future()
        self._waiting[number] = future
        try:
            if given:
                await self._send_with(packet, given)
            else:
                await self._loop.sock_sendall(self._socket, packet)
            return await future
        except OSError as error:
            raise SpawnerGone("The spawner of this node ended") from error
        finally:
            self._waiting.pop(number, None)
            self._parts.pop(number, None)

    async def _send_with(self, packet: bytes, given: Sequence[int]) -> None:
        while True:
            try:
                socket.send_fds(self._socket, [packet], list(given))
            except BlockingIOError:
                await asyncio.sleep(_FULL)
            else:
                return

    def _readable(self) -> None:
        while self._open:
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._socket, PACKET, _MOST_DESCRIPTORS)
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                self.close()
                self._on_lost(self)
                return
            self._received(json.loads(packet), descriptors)

    def _received(self, message: dict[str, Any], descriptors: list[int]) -> None:
        number = message.get("n")
        if number is None:
            self._on_event(message)
            return
        future = self._waiting.get(number)
        if future is None or future.done():
            for one in descriptors:
                os.close(one)
        elif "part" in message:
            self._parts.setdefault(number, []).extend(message["part"])
        elif "error" in message:
            error = message["error"]
            kind = _KINDS.get(str(error.get("code")), EngineError)
            future.set_exception(kind(str(error["message"]), hint=error.get("hint")))
        else:
            answer = message["ok"]
            if number in self._parts:
                answer = self._parts[number] + answer
            future.set_result((answer, descriptors))
