"""Buckets of containers, by the OCI engine: the agent's half. The mounts are the spawner's (``spawner_buckets``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any

from alight.node.dns import Forwarder, Resolvers
from alight.node.engine.base import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from alight.node.engine.base import BucketPlan, ContainerPlan
    from alight.node.engine.oci_client import SpawnerClient

log = logging.getLogger("alight.node.engine")


class OciBuckets:
    """See the module. ``directory`` is a container's."""

    def __init__(self, spawner: Callable[[], SpawnerClient], directory: Callable[[str], Path]) -> None:
        self._spawner = spawner
        self._directory = directory
        self._resolvers = Resolvers()
        self._names: Forwarder | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """With a spawner that may be another: take away what an earlier agent left half done, and answer for names."""
        await self.close()
        try:
            await self._spawner().ask("bucket_sweep")
            await self._serve_names()
        except EngineError as error:
            # One of an older version, with containers and without buckets: no reason to part from them.
            log.warning("buckets of containers that run cannot be looked after: %s", error)

    async def close(self) -> None:
        """Answer no more."""
        names, self._names = self._names, None
        if names is not None:
            await names.close()

    async def mount(self, plan: ContainerPlan, base: int) -> None:
        """Mount those of a plan, all at once; ``base`` is the first id of its user namespace on the host.

        Raises EngineError; none is left then.
        """
        mounting = [asyncio.ensure_future(self._mount(plan.id, one, base)) for one in plan.buckets]
        try:
            await asyncio.gather(*mounting)
            if any(not one.host_network for one in plan.buckets):
                await self._serve_names()
        except EngineError:
            await asyncio.gather(*mounting, return_exceptions=True)
            await self.drop(plan.id)
            raise

    async def drop(self, container_id: str) -> None:
        """End those of a container, with what was not uploaded. Nothing happens when there is none."""
        with contextlib.suppress(EngineError):
            await self._spawner().ask("unbucket", id=container_id)

    async def served(self, container_id: str) -> set[int]:
        """The numbers of those whose rclone lives."""
        try:
            return {int(one) for one in await self._spawner().ask("buckets", id=container_id)}
        except EngineError:
            return set()  # the spawner is gone, and they with it

    async def _serve_names(self) -> None:
        async with self._opening:
            if self._names is None:
                found = await self._spawner().ask_descriptors("bucket_dns")
                if found:
                    udp, tcp = (socket.socket(fileno=one) for one in found)
                    self._names = Forwarder(udp, tcp, self._resolvers)
                    await self._names.start()

    async def _mount(self, container_id: str, one: BucketPlan, base: int) -> None:
        request: dict[str, Any] = {
            "id": container_id,
            "number": one.number,
            "base": base,
            "directory": str(self._directory(container_id)),
            "words": one.words,
            "remote": one.remote,
            "arguments": list(one.arguments),
            "env": dict(one.env),
            "hidden": list(one.hidden),
            "read_only": one.read_only,
            "host_network": one.host_network,
        }
        await self._spawner().ask("bucket", **request)
