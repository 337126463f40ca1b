"""Versions of volumes: who committed what and when; and the work of machines on snapshots, which lie beside the files.

A version is one row. It is counted only when something changed, whether somebody called ``commit()`` or a container
committed by running and ending.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from alight.link.peer import Stream
from alight.link.stream import decode
from alight.server.services.containers import Containers
from alight.server.services.node_session import Session as NodeSession
from alight.server.services.nodes import Nodes
from alight.store.base import Row, Statement, Store
from alight.wire import errors
from alight.wire.commands import VolumeWork
from alight.wire.snapshots import Snapshot, SnapshotAsked, VolumeHistory, VolumeVersion
from alight.wire.stored import VolumePath

log = logging.getLogger(__name__)

#: Versions of one volume that are kept: a container that writes all day makes one every five seconds.
KEPT = 1000


class VolumeVersions:
    """Made once; hears of what containers commit from ``nodes``."""

    def __init__(self, store: Store, nodes: Nodes, containers: Containers) -> None:
        self._store = store
        self._nodes = nodes
        self._containers = containers
        self._tasks: set[asyncio.Task[None]] = set()
        nodes.reports.on_committed = self._on_committed

    async def commit(self, volume_id: str, by: str, container_id: str = "", kind: str = "commit") -> None:
        """Make what was written durable on every machine, then count a version if something changed."""
        work = VolumeWork("sync", VolumePath(volume_id))
        said = await asyncio.gather(
            *(self._synced(one.peer.open("node.volume", work, end=True)) for one in self._all())
        )
        changed = [one for one in said if one.changed]
        if not changed:
            return
        total = VolumeVersion(
            volume_id,
            kind,
            files=sum(one.files for one in changed),
            size=sum(one.size for one in changed),
            removed=-1 if any(one.removed < 0 for one in changed) else sum(one.removed for one in changed),
            container=container_id,
            by=by,
        )
        await self._count(total)

    def changed(self, volume_id: str, by: str, container_id: str, kind: str) -> None:
        """Something from outside of containers may have changed it: make that durable, and count a version if there
        is one, without anybody waiting."""
        self._later(self._committed(volume_id, by, container_id, kind))

    async def make(self, volume_id: str, size: int) -> None:
        """Make a volume's directory with a limit of ``size`` bytes. Raises InvalidError, with the reason."""
        if len(self._all()) > 1:
            raise errors.UnimplementedError("the size of a volume can be limited only where there is one machine")
        await self._nodes.any_session().peer.call(
            "node.volume", VolumeWork("create", VolumePath(volume_id), size=size), dict
        )

    async def history(self, asked: SnapshotAsked) -> VolumeHistory:
        """Versions, newest first, and the snapshots that there are."""
        limit = asked.limit if asked.limit > 0 else -1
        rows = await self._store.read("volume_versions_of", volume_id=asked.volume_id, limit=limit)
        stream = await self._work("snapshots", asked)
        snapshots = [decode(Snapshot, head) async for head, _ in stream]
        return VolumeHistory(tuple(_version(row) for row in rows), tuple(snapshots))

    async def relay(self, verb: str, asked: SnapshotAsked, caller: Stream) -> None:
        """Let the machine that has the volume do it, and pass on what it answers."""
        row = await self._store.one("volume_by_id", volume_id=asked.volume_id)
        stream = await self._work(verb, replace(asked, version=int(row["version"]) if row is not None else 0))
        async for head, body in stream:
            await caller.send_raw(head, body)

    async def _work(self, verb: str, asked: SnapshotAsked) -> Stream:
        work = VolumeWork(verb, VolumePath(asked.volume_id), asked)
        return await self._nodes.any_session().peer.open("node.volume", work, end=True)

    def _all(self) -> list[NodeSession]:
        sessions = list(self._nodes.sessions.values())
        if not sessions:
            self._nodes.any_session()  # raises what to say when there is no machine
        return sessions

    async def _synced(self, opening: Coroutine[Any, Any, Stream]) -> VolumeVersion:
        said = await (await opening).recv()
        if said is None:
            raise errors.ServiceError("a machine did not say whether it committed the volume: try again")
        return decode(VolumeVersion, said[0])

    def _on_committed(self, said: VolumeVersion) -> None:
        self._later(self._counted(said))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _committed(self, volume_id: str, by: str, container_id: str, kind: str) -> None:
        try:
            await self.commit(volume_id, by, container_id, kind)
        except errors.Error as error:
            # It is done: the next commit of this volume counts it.
            log.warning("what changed in the volume %s (%s) is in no version yet: %s", volume_id, kind, error)

    async def _counted(self, said: VolumeVersion) -> None:
        try:
            await self._count(replace(said, by=said.container))
        except errors.Error as error:
            log.error("a version of the volume %s could not be recorded: %s", said.volume_id, error)

    async def _count(self, version: VolumeVersion) -> None:
        app, function = await self._origin(version.container)
        row = {
            "volume_id": version.volume_id,
            "now": version.at or time.time(),
            "by": version.by,
            "kind": version.kind,
            "files": version.files,
            "size": version.size,
            "removed": version.removed,
            "container": version.container,
            "app": app,
            "function": function,
        }
        named = {"volume_id": version.volume_id}
        statements: list[Statement] = [
            ("volume_commit", named),
            ("volume_version_add", row),
            ("volume_versions_forget", {**named, "most": KEPT}),
        ]
        await self._store.write(statements)

    async def _origin(self, container_id: str) -> tuple[str, str]:
        """The app and the function of a container, by name; it may be gone already."""
        record = self._containers.alive.get(container_id)
        app_id, function_id = (record.app_id, record.function_id) if record is not None else ("", "")
        if record is None and container_id:
            row = await self._store.one("container_by_id", container_id=container_id)
            if row is not None:
                app_id, function_id = row["app_id"], row["function_id"]
        named = await self._store.one("volume_origin", app_id=app_id, function_id=function_id)
        return (str(named["app"] or ""), str(named["function"] or "")) if named is not None else ("", "")


def _version(row: Row) -> VolumeVersion:
    return VolumeVersion(
        row["volume_id"],
        row["kind"],
        files=row["files"],
        size=row["size"],
        removed=row["removed"],
        container=row["container_id"],
        version=row["version"],
        at=row["committed_at"],
        by=row["committed_by"],
        app=row["app"],
        function=row["function"],
    )
