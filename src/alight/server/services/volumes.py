"""Volumes: names, ids and versions here; the files are on the machines and every byte passes through untouched."""

from __future__ import annotations

import asyncio
import logging
import time

from alight.link.peer import Stream
from alight.server.services.ephemeral import Ephemeral
from alight.server.services.nodes import Nodes
from alight.server.services.volume_users import VolumeUsers
from alight.server.services.volume_versions import VolumeVersions
from alight.store.base import Row, Store
from alight.wire import errors, ids
from alight.wire.commands import VolumeWork
from alight.wire.record import replace
from alight.wire.stored import VolumeDelete, VolumeEnsure, VolumeInfo, VolumeListed, VolumeMeasured, VolumePath

log = logging.getLogger(__name__)
_NAMELESS = ":"
_MEASURE_SECONDS = 5.0


class Volumes:
    """Verbs on volumes. Time is taken here; environments are resolved by the caller."""

    def __init__(
        self, store: Store, nodes: Nodes, versions: VolumeVersions, users: VolumeUsers, ephemeral: Ephemeral
    ) -> None:
        self._store = store
        self._nodes = nodes
        self.versions = versions
        self._users = users
        self._ephemeral = ephemeral
        ephemeral.deleters["volume"] = self._delete_nameless

    async def ensure(self, asked: VolumeEnsure, environment: str, owner: str) -> VolumeInfo:
        """The volume of a name, or a new nameless one.

        Raises NotFoundError without ``create``, AlreadyExistsError with ``exclusive``.
        """
        ids.check_environment(environment)
        if asked.ephemeral:
            return await self._make_nameless(environment, owner, asked.version)
        ids.check_name(asked.name, "volume")
        row = await self._store.one("volume_by_name", environment=environment, name=asked.name)
        if row is not None and asked.exclusive:
            raise errors.AlreadyExistsError(
                f"there is a volume {asked.name!r} in environment {environment!r} already",
                hint="choose another name, or use the one there is",
            )
        if row is None:
            if not asked.create:
                raise _unknown(asked.name, environment)
            fresh = {
                "volume_id": ids.new_id(ids.VOLUME),
                "name": asked.name,
                "environment": environment,
                "owner": owner,
                "format": asked.version,
                "now": time.time(),
            }
            new_environment = {"name": environment, "owner": owner, "now": time.time()}
            limit = {"volume_id": fresh["volume_id"], "size": asked.size}
            if asked.size:
                await self.versions.make(str(fresh["volume_id"]), asked.size)
            try:
                await self._store.write(
                    [("environment_add", new_environment), ("volume_add", fresh), ("volume_limit", limit)]
                )
            except errors.AlreadyExistsError:
                if asked.exclusive:
                    raise
            row = await self._store.one("volume_by_name", environment=environment, name=asked.name)
        if row is None:
            raise errors.ServiceError(f"the volume {asked.name!r} was deleted while it was made: try again")
        return _info(row)

    async def list(self, environment: str, limit: int, *, details: bool = False) -> VolumeListed:
        """Named volumes of an environment, newest first; with ``details`` what machines know of their files."""
        rows = await self._store.read("volumes_in", environment=environment, limit=limit if limit > 0 else -1)
        mounted = self._users.functions()
        found = [replace(_info(row), mounted=mounted.get(row["volume_id"], ())) for row in rows]
        if details:
            found = list(await asyncio.gather(*map(self.measured, found)))
        return VolumeListed(tuple(found))

    async def measured(self, info: VolumeInfo) -> VolumeInfo:
        """With what its machine knows of its files. One that does not say in time is left as it is."""
        for session in list(self._nodes.sessions.values()):
            try:
                work = VolumeWork("measure", VolumePath(info.volume_id))
                asking = session.peer.call("node.volume", work, VolumeMeasured)
                known = await asyncio.wait_for(asking, _MEASURE_SECONDS)
            except (errors.Error, asyncio.TimeoutError) as error:
                log.info("%s of %s is not known: %s", "the size", info.volume_id, error)
                continue
            return replace(info, size=known.size, files=known.files, limit=known.limit or info.limit)
        return info

    async def find(self, volume_id: str) -> VolumeInfo:
        """By id. Raises NotFoundError."""
        row = await self._store.one("volume_by_id", volume_id=volume_id)
        if row is None:
            raise errors.NotFoundError(f"there is no volume {volume_id} (any more)")
        return _info(row)

    async def named(self, asked: VolumeDelete, environment: str) -> VolumeInfo | None:
        """By name or id. Raises NotFoundError unless ``allow_missing``."""
        if asked.volume_id:
            row = await self._store.one("volume_by_id", volume_id=asked.volume_id)
        else:
            row = await self._store.one("volume_by_name", environment=environment, name=asked.name)
        if row is None:
            if asked.allow_missing:
                return None
            raise _unknown(asked.name or asked.volume_id, environment)
        return _info(row)

    async def delete(self, found: VolumeInfo) -> None:
        """Remove a volume's files from every machine, then forget it. Raises ConflictError, saying who has it."""
        users = self._users.of(found.volume_id)
        if users:
            raise errors.ConflictError(
                f"the volume {found.name or found.volume_id!r} is mounted by {users}",
                hint="stop the app first: `alight app stop`, or wait until its containers have ended",
            )
        self._nodes.any_session()  # without a machine its files would stay for ever
        for session in list(self._nodes.sessions.values()):
            work = VolumeWork("delete", VolumePath(found.volume_id))
            stream = await session.peer.open("node.volume", work, end=True)
            await stream.recv()
        params = {"volume_id": found.volume_id}
        await self._store.write([("volume_delete", params), ("volume_versions_delete", params)])

    async def rename(self, found: VolumeInfo, new_name: str) -> None:
        """Give it another name. Raises AlreadyExistsError."""
        ids.check_name(new_name, "volume")
        try:
            await self._store.write([("volume_rename", {"volume_id": found.volume_id, "name": new_name})])
        except errors.AlreadyExistsError:
            raise errors.AlreadyExistsError(f"there is a volume {new_name!r} already") from None

    async def _make_nameless(self, environment: str, owner: str, version: int) -> VolumeInfo:
        volume_id, now = ids.new_id(ids.VOLUME), time.time()
        row = {
            "volume_id": volume_id,
            "name": f"{_NAMELESS}{volume_id}",  # which no name can be
            "environment": environment,
            "owner": owner,
            "format": version,
            "now": now,
        }
        await self._store.write(
            [
                ("environment_add", {"name": environment, "owner": owner, "now": now}),
                ("volume_add", row),
                self._ephemeral.record("volume", volume_id, environment, owner),
            ]
        )
        return await self.find(volume_id)

    async def _delete_nameless(self, volume_id: str) -> None:
        row = await self._store.one("volume_by_id", volume_id=volume_id)
        if row is not None:
            await self.delete(_info(row))

    async def commit(self, volume_id: str, by: str, container_id: str = "") -> VolumeInfo:
        """Make what was written durable on the machines, and count a version when something changed."""
        await self.versions.commit(volume_id, by, container_id)
        return await self.find(volume_id)

    async def work(self, verb: str, at: VolumePath, caller: Stream) -> None:
        """Let a machine do it: relay what the caller sends and what the machine answers, each at the other's pace."""
        node = await self._nodes.any_session().peer.open("node.volume", VolumeWork(verb, at), caller.opened_body)
        up = asyncio.get_running_loop().create_task(_relay(caller, node))
        try:
            async for head, body in node:
                await caller.send_raw(head, body)
        except errors.ConnectionError as error:
            if caller.broken:
                raise
            raise errors.ServiceError("the machine that has this volume was lost meanwhile: try again") from error
        finally:
            up.cancel()
            if caller.broken:
                await node.fail(errors.ConnectionError("the client is gone"))


async def _relay(source: Stream, target: Stream) -> None:
    try:
        async for head, body in source:
            await target.send_raw(head, body)
        await target.end()
    except errors.Error as error:
        await target.fail(error)
        target.on_error(error)  # whoever waits for the machine's answers hears no more of them


def _unknown(name: str, environment: str) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"there is no volume {name!r} in environment {environment!r}",
        hint=f"make it: `alight volume create {name}`, or Volume.from_name(…, create_if_missing=True)",
    )


def _info(row: Row) -> VolumeInfo:
    name = "" if row["name"].startswith(_NAMELESS) else row["name"]
    committed_at = row.get("committed_at") or 0.0
    return VolumeInfo(
        row["volume_id"],
        name,
        row["environment"],
        row["created_at"],
        row["version"],
        created_by=row["owner"],
        committed_at=committed_at,
        limit=row["size_limit"],
    )
