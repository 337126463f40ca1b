"""Name resolution for containers: one forwarder per container that has a network.

The sockets lie in the container's network and are kept by the spawner, so a new agent takes them up again.
"""

from __future__ import annotations

import logging

from alight.node.dns import Forwarder, Resolvers
from alight.node.engine.base import Engine, EngineError
from alight.node.entrance import Entrance

log = logging.getLogger(__name__)


class Dns:
    """The forwarders of this node's containers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.entrance: Entrance | None = None  # of the web gateway: set by who knows the way to it
        self._resolvers = Resolvers()
        self._forwarders: dict[str, Forwarder] = {}

    async def serve(self, container_id: str) -> None:
        """Answer the container's questions from now on. One that cannot be served is said, and runs."""
        try:
            sockets = await self._engine.dns_sockets(container_id)
        except EngineError as error:
            log.warning("container %s has no name resolution: %s", container_id, error)
            return
        if sockets is not None:
            entrance = self.entrance

            async def gateway() -> str:
                return await entrance.open(container_id) if entrance is not None else ""

            forwarder = self._forwarders[container_id] = Forwarder(*sockets, self._resolvers, gateway)
            await forwarder.start()

    async def stop(self, container_id: str) -> None:
        """The container is gone."""
        if self.entrance is not None:
            await self.entrance.close(container_id)
        forwarder = self._forwarders.pop(container_id, None)
        if forwarder is not None:
            await forwarder.close()
