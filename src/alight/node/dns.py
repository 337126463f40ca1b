"""Names for containers: answers at 127.0.0.53 inside by asking the host's resolvers.

A forwarder and nothing more: it never caches, and looks into no question but for the gateway's names (``own_names``).
Sockets in the container's network belong to the container, those towards the resolvers to the host; so any resolver
that the host can reach will do.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from alight.node import own_names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("alight.node.dns")

RESOLV_CONF = "/etc/resolv.conf"
TRY_SECONDS = 2.5
_PORT = 53
_DATAGRAM = 65535
_LENGTH = struct.Struct("!H")
_MOST_QUESTIONS = 256
_SERVFAIL = 2


class Resolvers:
    """The host's nameservers, read again when the file changes."""

    def __init__(self, path: str = RESOLV_CONF, port: int = _PORT) -> None:
        self._path = path
        self._port = port
        self._seen: tuple[int, int] | None = None
        self._addresses: list[str] = []

    def addresses(self) -> list[tuple[str, int]]:
        """Where to ask, best first. Never empty: without a file it is this machine, as resolvers do it."""
        try:
            found = Path(self._path).stat()
            seen = (found.st_mtime_ns, found.st_ino)
            if seen != self._seen:
                self._addresses = nameservers(Path(self._path).read_text(encoding="utf-8", errors="replace"))
                self._seen = seen
        except OSError:
            self._addresses = []
        return [(one, self._port) for one in self._addresses or ["127.0.0.1"]]


def nameservers(text: str) -> list[str]:
    """The nameserver lines of a resolv.conf, in their order."""
    words = [line.split() for line in text.splitlines()]
    return [one[1] for one in words if len(one) > 1 and one[0] == "nameserver"]


class Forwarder:
    """Serves one container until it is closed."""

    def __init__(
        self,
        udp: socket.socket,
        tcp: socket.socket,
        resolvers: Resolvers,
        gateway: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._udp = udp
        self._tcp = tcp
        self._resolvers = resolvers
        self._gateway = gateway  # makes the web gateway reachable and says at which address; "" when it cannot be
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._datagrams: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        """Begin to answer. Takes the sockets over."""
        self._udp.setblocking(False)
        self._tcp.setblocking(False)
        self._server = await asyncio.start_server(self._serve_stream, sock=self._tcp)
        loop = asyncio.get_running_loop()
        self._datagrams, _ = await loop.create_datagram_endpoint(lambda: _Questions(self._asked), sock=self._udp)

    async def close(self) -> None:
        """Stop answering and close the sockets."""
        if self._server is not None:
            self._server.close()
        if self._datagrams is not None:
            self._datagrams.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _asked(self, question: bytes, client: tuple[str, int]) -> None:
        # A container that floods must not take all of the agent's memory: what it loses, it asks again.
        if len(self._tasks) < _MOST_QUESTIONS:
            task = asyncio.get_running_loop().create_task(self._answer_datagram(question, client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(self, question: bytes, client: tuple[str, int]) -> None:
        answer = await self._own(question) or await ask_datagram(question, self._resolvers.addresses())
        if self._datagrams is not None and not self._datagrams.is_closing():
            self._datagrams.sendto(answer, client)

    async def _own(self, question: bytes) -> bytes:
        """The answer to a question for the gateway's names; nothing for all others."""
        if not own_names.is_ours(question):
            return b""
        return own_names.answer(question, await self._gateway() if self._gateway is not None else "")

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                question = await _read_message(reader)
                answer = await self._own(question) or await ask_stream(question, self._resolvers.addresses())
                writer.write(_LENGTH.pack(len(answer)) + answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class _Questions(asyncio.DatagramProtocol):
    def __init__(self, asked: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._asked = asked

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._asked(data, addr)

    def error_received(self, exc: Exception) -> None:
        # An answer went to a socket that is closed already: the one who asked is gone.
        log.debug("an answer was not taken: %s", exc)


async def ask_datagram(question: bytes, addresses: list[tuple[str, int]]) -> bytes:
    """The first answer that one of the resolvers gives; a server failure when none does."""
    loop = asyncio.get_running_loop()
    for address in addresses:
        try:
            with socket.socket(_family(address[0]), socket.SOCK_DGRAM) as ours:
                ours.setblocking(False)
                # Connected, so that nobody else's packet is taken for the answer.
                await loop.sock_connect(ours, address)
                await loop.sock_sendall(ours, question)
                async with asyncio.timeout(TRY_SECONDS):
                    while True:
                        answer = await loop.sock_recv(ours, _DATAGRAM)
                        if answer[:2] == question[:2]:
                            return answer
        except (OSError, TimeoutError) as error:
            log.debug("the resolver %s does not answer: %r", address[0], error)
    return failure(question)


async def ask_stream(question: bytes, addresses: list[tuple[str, int]]) -> bytes:
    """The same over TCP, for answers that no datagram holds."""
    for address in addresses:
        try:
            async with asyncio.timeout(TRY_SECONDS * 2):
                reader, writer = await asyncio.open_connection(*address)
                try:
                    writer.write(_LENGTH.pack(len(question)) + question)
                    return await _read_message(reader)
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.debug("the resolver %s does not answer over TCP: %r", address[0], error)
    return failure(question)


def failure(question: bytes) -> bytes:
    """The answer that says: the server failed. So the asker goes on at once and not after its own time."""
    if len(question) < 12:
        return question
    flags = (question[2] | 0x80) << 8 | _SERVFAIL
    return question[:2] + struct.pack("!H", flags) + question[4:]


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(length)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
