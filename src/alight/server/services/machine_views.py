"""Machines and GPUs as people look at them: what each has, what is in use, and by whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alight.server.services.containers import Containers
from alight.server.services.node_session import Session
from alight.server.services.nodes import Nodes
from alight.server.services.published import shown_name
from alight.store.base import Store
from alight.wire.commands import GpuUse
from alight.wire.gpus import grant
from alight.wire.measures import GpuShown, GpusListed, NodeShown, NodesListed

_FORGOTTEN = 7 * 86400.0  # a machine that was away for so long is not shown any more


class MachineViews:
    """Looks, and changes nothing. ``look`` has everything measured every second for a while."""

    def __init__(self, store: Store, nodes: Nodes, containers: Containers, look: Callable[[], None]) -> None:
        self._store = store
        self._nodes = nodes
        self._containers = containers
        self._look = look

    async def nodes(self, now: float, *, watch: bool) -> NodesListed:
        """Machines, those that are away last."""
        if watch:
            self._look()
        counts: dict[str, int] = {}
        for record in self._containers.alive.values():
            counts[record.node_id] = counts.get(record.node_id, 0) + 1
        found = [_shown(one, counts.get(one.hello.node_id, 0), now) for one in self._nodes.sessions.values()]
        for row in await self._store.read("nodes_seen"):
            name = row["node_id"]
            if name in self._nodes.sessions or (now - row["last_seen"] > _FORGOTTEN and name not in counts):
                continue
            found.append(
                NodeShown(
                    name,
                    row["hostname"],
                    "away",
                    row["version"],
                    containers=counts.get(name, 0),
                    last_seen=row["last_seen"],
                )
            )
        return NodesListed(tuple(sorted(found, key=lambda one: (one.state == "away", one.hostname, one.node_id))))

    def gpus(self, owner: str, *, watch: bool) -> GpusListed:
        """GPUs of all machines that are connected. Whose containers ``owner`` may not see ("" sees all) hold GPUs
        without a name."""
        if watch:
            self._look()
        holders: dict[tuple[str, str], list[str]] = {}
        for record in self._containers.alive.values():
            for text in record.gpus:
                holders.setdefault((record.node_id, grant(text).uuid), []).append(record.container_id)
        return GpusListed(
            tuple(
                self._gpu(session, info, holders.get((session.hello.node_id, info.uuid), []), owner)
                for session in sorted(self._nodes.sessions.values(), key=lambda one: one.hello.hostname)
                for info in session.hello.gpus
            )
        )

    def _gpu(self, session: Session, info: Any, holders: list[str], owner: str) -> GpuShown:
        use = session.gpus.get(info.uuid) or GpuUse(info.uuid)
        seen = [name for name in holders if not owner or self._owner_of(name) == owner]
        function = self._containers.function_of(seen[0]) if seen else None
        return GpuShown(
            info.uuid,
            info.name,
            info.index,
            session.hello.node_id,
            session.hello.hostname,
            float(info.memory << 20),
            info.type,
            seen[0] if seen else ("somebody else's" if holders else ""),
            tuple(seen),
            shown_name(function.spec.name, "").removesuffix(".*") if function is not None else "",
            use.temperature,
            use.power,
            use.utilization,
            use.memory,
            info.fault or use.health,
            info.fake,
        )

    def _owner_of(self, container_id: str) -> str:
        function = self._containers.function_of(container_id)
        return function.owner if function is not None else ""


def _shown(session: Session, containers: int, now: float) -> NodeShown:
    hello, said = session.hello, session.machine
    return NodeShown(
        hello.node_id,
        hello.hostname,
        "connected",
        hello.version,
        hello.engine,
        hello.cpus,
        said.get("cpu"),
        hello.memory << 20,
        said.get("memory_bytes"),
        containers,
        tuple(gpu.name for gpu in hello.gpus),
        any(gpu.fake for gpu in hello.gpus),
        now,
    )
