"""Ways to end a container: politely within a grace, at once, or at once but for a moment in which the runtime says what
it has not begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from typing import Any, Protocol

from alight.node.engine.base import Engine
from alight.node.exchange import Exchange
from alight.wire import errors
from alight.wire.codec import Kind
from alight.wire.commands import LinkStop

log = logging.getLogger(__name__)

#: How long a runtime that failed to import the user's code, or was told to stop, may take to leave.
LEAVING = 2.0
#: How long a runtime may take to say what it has not begun, before it is killed.
_RECALL = 0.25


class Stoppable(Protocol):
    """The container that is to end."""

    id: str
    ready: bool

    @property
    def exchange(self) -> Exchange | None: ...

    @property
    def life(self) -> asyncio.Task[None] | None:
        """Done when it has ended and that was said."""
        ...

    @property
    def has_ended(self) -> bool: ...

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else, until the agent leaves."""
        ...


class Stopping:
    """See the module."""

    def __init__(self, container: Stoppable, engine: Engine) -> None:
        self._container = container
        self._engine = engine
        self._returned = asyncio.Event()

    def returned(self) -> None:
        """The runtime has said what it has not begun."""
        self._returned.set()

    async def stop(self, grace: float) -> None:
        """Tell the runtime, then the process, then kill it, all within ``grace`` seconds."""
        exchange = self._container.exchange
        if exchange is not None:
            exchange.stopping = True
        if grace > 0 and exchange is not None and exchange.link is not None and self._container.ready:
            exchange.link.send(Kind.LINK_STOP, LinkStop(grace=grace))
            last = min(LEAVING, grace / 4)
            if not await self._over(grace - last):
                await self._engine.signal(self._container.id, signal.SIGTERM)
                await self._over(last)
        if not self._container.has_ended:
            await self.kill()

    async def recall_and_kill(self) -> None:
        """What the runtime has not begun costs nobody an attempt, when it has time to say so."""
        exchange = self._container.exchange
        if exchange is not None and exchange.link is not None and exchange.unanswered:
            self._returned.clear()
            exchange.recall()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._returned.wait(), _RECALL)
        if not self._container.has_ended:
            await self.kill()

    async def kill(self) -> None:
        """Now."""
        try:
            await self._engine.kill(self._container.id)
        except errors.Error as error:
            log.warning("container %s could not be ended: %s", self._container.id, error)

    def kill_soon(self) -> None:
        """Now, unless it has ended."""
        if not self._container.has_ended:
            self._container.soon(self.kill())

    async def _over(self, seconds: float) -> bool:
        life = self._container.life
        if life is None:
            return True
        done, _ = await asyncio.wait({life}, timeout=seconds)
        return bool(done)
