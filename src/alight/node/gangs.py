"""Containers of this machine that work together: none begins before all of them run and can reach each other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from alight.node.engine.base import Engine
from alight.wire import errors
from alight.wire.commands import Cluster
from alight.wire.record import replace

log = logging.getLogger(__name__)

#: Where rank 0 is waited for by programs that ask the environment; any other port can be used as well.
MASTER_PORT = 29500


@dataclass
class _Gang:
    there: set[str] = field(default_factory=set)
    met: asyncio.Future[tuple[str, ...]] | None = None
    connecting: bool = False


class Gangs:
    """See the module. Runs in the agent's loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._gangs: dict[str, _Gang] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def meet(self, container_id: str, cluster: Cluster) -> Cluster:
        """Wait until all of its cluster run; the cluster with their addresses.

        Raises Error when they cannot be connected, CancelledError when one of them ends before that.
        """
        gang = self._gangs.setdefault(cluster.cluster_id, _Gang())
        gang.there.add(container_id)
        if gang.met is None:
            gang.met = asyncio.get_running_loop().create_future()
        if len(gang.there) == len(cluster.container_ids) and not gang.connecting:
            gang.connecting = True
            self._start(self._connect(cluster, gang.met))
        addresses = await asyncio.shield(gang.met)
        return replace(cluster, addresses=addresses, device="eth0" if self._engine.isolates else "lo")

    def adopt(self, container_id: str, cluster: Cluster) -> None:
        """An earlier agent connected it."""
        self._gangs.setdefault(cluster.cluster_id, _Gang()).there.add(container_id)

    def leave(self, container_id: str, cluster: Cluster) -> None:
        """It has ended: who still waits for it waits in vain."""
        gang = self._gangs.get(cluster.cluster_id)
        if gang is None or container_id not in gang.there:
            return
        gang.there.discard(container_id)
        if gang.met is not None and not gang.met.done():
            gang.met.cancel()
        if not gang.there:
            del self._gangs[cluster.cluster_id]
            self._start(self._disconnect(cluster.cluster_id))

    async def _connect(self, cluster: Cluster, met: asyncio.Future[tuple[str, ...]]) -> None:
        try:
            addresses = await self._engine.connect(cluster.cluster_id, cluster.container_ids)
        except errors.Error as error:
            if not met.done():
                met.set_exception(error)
                met.exception()  # whoever waits gets it; perhaps nobody does any more
            return
        if not met.done():
            met.set_result(addresses)

    async def _disconnect(self, cluster_id: str) -> None:
        try:
            await self._engine.disconnect(cluster_id)
        except errors.Error as error:
            log.warning("what let the containers of %s reach each other could not be removed: %s", cluster_id, error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Member:
    """What a container has to do about its cluster; nothing where it has none."""

    def __init__(self, container_id: str, cluster: Cluster | None, gangs: Gangs) -> None:
        self._id = container_id
        self._cluster = cluster
        self._gangs = gangs
        self.must_wait = cluster is not None
        """Whether its code may not begin yet."""

    @property
    def in_words(self) -> str:
        """Which one it is, to be followed by a function's name; "" for one that works alone."""
        cluster = self._cluster
        size = len(cluster.container_ids) if cluster is not None else 1
        return f"rank {cluster.rank} of {size} of " if cluster is not None and size > 1 else ""

    def adopt(self) -> None:
        """An earlier agent started it."""
        self.must_wait = False
        if self._cluster is not None:
            self._gangs.adopt(self._id, self._cluster)

    async def meet(self) -> Cluster | None:
        """See ``Gangs.meet``."""
        if self._cluster is not None:
            self._cluster = await self._gangs.meet(self._id, self._cluster)
        self.must_wait = False
        return self._cluster

    def leave(self) -> None:
        """It has ended, or never began."""
        if self._cluster is not None:
            self._gangs.leave(self._id, self._cluster)


def environment(cluster: Cluster | None) -> dict[str, str]:
    """What programs of a cluster look for in their environment. What a user sets wins over it."""
    if cluster is None or not cluster.addresses:
        return {}
    size, rank = str(len(cluster.container_ids)), str(cluster.rank)
    return {
        "MASTER_ADDR": cluster.addresses[0],
        "MASTER_PORT": str(MASTER_PORT),
        "WORLD_SIZE": size,
        "RANK": rank,
        "NNODES": size,
        "NODE_RANK": rank,
        "NCCL_SOCKET_IFNAME": cluster.device,
        "GLOO_SOCKET_IFNAME": cluster.device,
        # Containers have memory and processes of their own: they are as good as machines to each other.
        "NCCL_HOSTID": cluster.container_ids[cluster.rank],
    }
