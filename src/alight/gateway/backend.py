"""The connection to the runtime of one container, and the requests on it."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from alight.wire import errors, web
from alight.wire.codec import FrameReader

if TYPE_CHECKING:
    from alight.gateway.framed import Framed
    from alight.gateway.gateway import Gateway

log = logging.getLogger(__name__)
_GIVE_UP = 5.0  # seconds for which a container that runs may not take a connection
_WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


class Backend(asyncio.Protocol):
    """See the module. It connects when there is something to send, again after a loss, as long as its container is."""

    def __init__(self, gateway: Gateway, container_id: str) -> None:
        self.container_id = container_id
        self.exchanges: dict[int, Framed] = {}  # in the order in which they began
        self._gateway = gateway
        self._queue: dict[Framed, None] = {}  # for when there is a connection
        self._transport: asyncio.Transport | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._reader = FrameReader()
        self._number = 0
        self._gone = False

    # from exchanges

    def take(self, exchange: Framed) -> None:
        """Carry a request to the container."""
        if self._transport is not None:
            self._send(exchange)
            return
        self._queue[exchange] = None
        if self._dialling is None:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())

    def write(self, data: bytes) -> None:
        """Frames of a request that was sent. uvloop sends all that is written in one turn in one system call."""
        if self._transport is not None:
            self._transport.write(data)

    def forget(self, exchange: Framed) -> None:
        """It is not wanted any more, and was not sent."""
        self._queue.pop(exchange, None)

    def over(self, number: int) -> None:
        """The runtime has said its last word about a request."""
        self.exchanges.pop(number, None)

    # from the gateway

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost with it."""
        return not (self.exchanges or self._queue)

    def close(self) -> None:
        """Its container is gone, or the gateway ends."""
        self._gone = True
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        if self._transport is not None:
            self._transport.abort()
        for exchange in self._drop_queue():
            exchange.return_to_line()

    # from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by class
        self._reader = FrameReader()
        if self._gone:
            transport.close()
            return
        for exchange in self._drop_queue():
            self._send(exchange)

    def data_received(self, data: bytes) -> None:
        exchanges = self.exchanges
        try:
            for kind, number, head, body in self._reader.feed(data):
                exchange = exchanges.get(number)
                if exchange is not None:
                    exchange.on_frame(kind, head, body)
                elif kind == web.GOING:
                    self._gateway.going(self.container_id)
        except Exception:  # one of the four loops: what a runtime says ends its own connection alone
            log.exception("fault %s at a frame of %s", os.urandom(4).hex(), self.container_id)
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        lost, self.exchanges = self.exchanges, {}
        for exchange in lost.values():
            exchange.lost()
        self._gateway.parted(self)

    # inside

    def _send(self, exchange: Framed) -> None:
        self._number += 1
        self.exchanges[self._number] = exchange
        exchange.send(self._number)

    def _drop_queue(self) -> list[Framed]:
        queue, self._queue = self._queue, {}
        return list(queue)

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        until, tries = loop.time() + _GIVE_UP, 0
        try:
            while True:
                try:
                    await self._gateway.connect(self, self.container_id, 0)
                    return
                except (errors.Error, OSError) as error:
                    if loop.time() >= until:
                        self._gateway.unreachable(self.container_id, str(error))
                        return
                await asyncio.sleep(_WAITS[min(tries, len(_WAITS) - 1)])
                tries += 1
        finally:
            self._dialling = None
