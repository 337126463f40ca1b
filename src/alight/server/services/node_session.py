"""The connection of one machine: what it said of itself last, and commands on their way to it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import msgspec

from alight.link.peer import Peer, Stream
from alight.server.services.readers import send_now
from alight.wire import errors
from alight.wire.codec import Buffer
from alight.wire.commands import Command, GpuUse, NodeHello

_encode = msgspec.json.encode


@dataclass
class Session:
    """A connected node."""

    hello: NodeHello
    peer: Peer
    stream: Stream
    outbox: deque[tuple[bytes, Buffer]] = field(default_factory=deque)
    pump: asyncio.Task[None] | None = None
    usage: dict[str, dict[str, float]] = field(default_factory=dict)
    machine: dict[str, float] = field(default_factory=dict)
    gpus: dict[str, GpuUse] = field(default_factory=dict)

    def send(self, command: Command) -> None:
        """Say it now, or as soon as the node has taken what was said before."""
        self.send_raw(_encode(command), b"")

    def send_raw(self, head: bytes, body: Buffer) -> None:
        """``send`` for a head that is encoded already."""
        if not self.outbox and self.stream.may_send:
            send_now(self.stream, head, body)
            return
        self.outbox.append((head, body))
        if self.pump is None:
            self.pump = asyncio.get_running_loop().create_task(self._pump())

    async def _pump(self) -> None:
        try:
            while self.outbox:
                head, body = self.outbox[0]
                await self.stream.send_raw(head, body)
                self.outbox.popleft()
        except errors.Error:
            self.outbox.clear()  # the node is gone; what it holds is settled when it comes back
        finally:
            self.pump = None
