"""What the server recorded about each container when it started it: whose it is, and where.

The record is what a container's requests are judged by, so nothing here is ever taken from a container or changed by
what it says.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from alight.server.auth import CONTAINER, Principal
from alight.server.services.functions import Functions
from alight.server.services.hub import Hub
from alight.server.services.published import Change, Published
from alight.server.services.starts import Starts
from alight.store.base import Statement, Store
from alight.wire.messages import AppEvent
from alight.wire.states import ContainerState


@dataclass
class Record:
    """One container. ``known`` is False for one that a node brought along after the record was lost."""

    container_id: str
    app_id: str
    function_id: str
    node_id: str
    state: str = ContainerState.STARTING
    memory: int = 0
    gpus: tuple[str, ...] = ()
    stop_asked: str = ""
    function_version: int = 0  # that it was started with; 0: nobody knows
    cluster: str = ""  # that it is part of, as ``rank`` of ``cluster_size``
    rank: int = 0
    cluster_size: int = 0


class Accounts(Protocol):
    """Who accounts for containers' time."""

    def began(self, record: Record, now: float) -> None:
        """A container is about to start."""

    def ready(self, container_id: str, now: float) -> None:
        """It takes inputs."""

    def ended(self, container_id: str, now: float, *, seen: bool) -> None:
        """It is gone; ``seen`` False: nobody knows when it ended."""


class Containers:
    """Containers that have not ended."""

    def __init__(self, store: Store, functions: Functions, hub: Hub) -> None:
        self._store = store
        self.functions = functions
        self._hub = hub
        self._endings: list[asyncio.Future[None]] = []
        self.starts = Starts(store)
        self.alive: dict[str, Record] = {}
        self.accounts: Accounts | None = None

    async def load(self) -> None:
        """Take up what an earlier server process recorded."""
        for row in await self._store.read("containers_alive"):
            gpus = tuple(json.loads(row["gpus"]))
            self.alive[row["container_id"]] = Record(
                row["container_id"],
                row["app_id"],
                row["function_id"],
                row["node_id"],
                row["state"],
                row["memory"],
                gpus,
                function_version=row["function_version"],
                cluster=row["cluster"],
                rank=row["rank"],
                cluster_size=row["cluster_size"],
            )
        await self.starts.load()

    def add(self, record: Record, image_id: str, now: float) -> None:
        """A container is about to start."""
        self.alive[record.container_id] = record
        if self.accounts is not None:
            self.accounts.began(record, now)
        row: dict[str, Any] = {
            "container_id": record.container_id,
            "app_id": record.app_id,
            "function_id": record.function_id,
            "node_id": record.node_id,
            "image_id": image_id,
            "gpus": json.dumps(record.gpus),
            "memory": record.memory,
            "function_version": record.function_version,
            "cluster": record.cluster,
            "rank": record.rank,
            "cluster_size": record.cluster_size,
            "now": now,
        }
        self._store.write_soon([("container_add", row)])
        self._tell(record, ContainerState.STARTING, "")

    def follows(self, container_id: str) -> bool:
        """Whether it works on inputs with others, and is not the one whose answers count."""
        record = self.alive.get(container_id)
        return record is not None and record.rank > 0

    def has(self, function_id: str) -> bool:
        """Whether a function has any."""
        return any(record.function_id == function_id for record in self.alive.values())

    def again(self, before: Mapping[str, Any], now: Change) -> list[Statement]:
        """Note that containers of these versions are of the newest one again, for they serve on. Returns how the
        store is told."""
        statements: list[Statement] = []
        for one in now.changed:
            old = before[one.function_id].version
            for record in self.alive.values():
                if record.function_id == one.function_id and record.function_version == old:
                    record.function_version = one.version
            again = {"function_id": one.function_id, "before": old, "now": one.version}
            statements.append(("containers_again", again))
        return statements

    def ready(self, container_id: str) -> None:
        """It takes inputs."""
        record = self.alive.get(container_id)
        if record is None or record.state == ContainerState.READY:
            return
        record.state = ContainerState.READY
        self.starts.ready(container_id)
        if self.accounts is not None:
            self.accounts.ready(container_id, time.time())
        self._store.write_soon([("container_state", {"container_id": container_id, "state": record.state})])
        self._tell(record, ContainerState.READY, "")

    async def ended(
        self,
        container_id: str,
        why: str,
        now: float,
        exit_code: int | None = None,
        signal: int | None = None,
        *,
        seen: bool = True,
    ) -> None:
        """It is gone; returns when that is on disk. ``seen`` False: nobody knows when it ended."""
        record = self.alive.pop(container_id, None)
        self.starts.ended(container_id, now)
        if self.accounts is not None:
            self.accounts.ended(container_id, now, seen=seen)
        if record is not None:
            self._tell(record, ContainerState.ENDED, why)
        endings, self._endings = self._endings, []
        for ending in endings:
            if not ending.done():
                ending.set_result(None)
        row = {"container_id": container_id, "why": why[:2000], "now": now, "exit_code": exit_code, "signal": signal}
        await self._store.write([("container_ended", row)])

    async def wait_gone(self, app_id: str, seconds: float) -> None:
        """Return when an app has no container any more, or after so many seconds."""
        await self._wait_until(lambda: not any(one.app_id == app_id for one in self.alive.values()), seconds)

    async def wait_ended(self, container_id: str, seconds: float) -> None:
        """Return when a container has ended, or after so many seconds."""
        await self._wait_until(lambda: container_id not in self.alive, seconds)

    async def _wait_until(self, over: Callable[[], bool], seconds: float) -> None:
        """Look again at each end of a container."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until and not over():
            ending = loop.create_future()
            self._endings.append(ending)
            await asyncio.wait([ending], timeout=until - loop.time())

    def function_of(self, container_id: str) -> Published | None:
        """The function that a container serves."""
        record = self.alive.get(container_id)
        return self.functions.by_id.get(record.function_id) if record is not None else None

    def principal(self, node_id: str, container_id: str) -> Principal | None:
        """Who asks when this node says that this container does. None: the node has no such container."""
        record = self.alive.get(container_id)
        if record is None or record.node_id != node_id:
            return None
        function = self.functions.by_id.get(record.function_id)
        if function is None:
            return None
        return Principal(
            CONTAINER,
            owner=function.owner,
            container_id=container_id,
            app_id=record.app_id,
            environment=function.environment,
            restricted=function.spec.restrict_access,
        )

    def _tell(self, record: Record, state: str, text: str) -> None:
        function = self.functions.by_id.get(record.function_id)
        name = function.spec.name if function is not None else ""
        event = AppEvent("container", container=record.container_id, function=name, state=state, text=text)
        self._hub.tell(record.app_id, event)
