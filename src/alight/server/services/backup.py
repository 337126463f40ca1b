"""Backups of a server that runs: its databases as they are at one moment, what they refer to, and volumes on request.

Databases come first. While the rest is copied nothing that they may refer to is deleted; what comes meanwhile is in no
database of the backup. The directory gets its name when all of it is on disk.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from alight.server.disk import full_disk
from alight.server.services import backup_folder
from alight.server.services.backup_folder import Folder
from alight.server.services.blobs import Blobs
from alight.server.services.nodes import Nodes
from alight.server.services.secrets import Secrets
from alight.server.settings import Settings
from alight.store.base import Store
from alight.store.copying import copy_database, schema_of
from alight.wire import errors
from alight.wire.backups import (
    FORMAT,
    BackupMade,
    BackupMake,
    BackupManifest,
    BackupSaid,
    BackupVolume,
    VolumePack,
    VolumePacked,
)
from alight.wire.version import __version__

log = logging.getLogger(__name__)

DATABASE = "alight.db"
ALL_VOLUMES = "*"
_SPARE = 64 << 20  # bytes that a disk keeps


class Backup:
    """Makes one at a time."""

    def __init__(
        self, settings: Settings, server_id: str, store: Store, blobs: Blobs, secrets: Secrets, nodes: Nodes
    ) -> None:
        self._settings = settings
        self._server_id = server_id
        self._store = store
        self._blobs = blobs
        self._secrets = secrets
        self._nodes = nodes
        self._busy = False

    async def make(self, asked: BackupMake, environment: str) -> AsyncGenerator[BackupSaid | BackupMade, None]:
        """Make one, telling now and then how far it is; BackupMade comes last.

        Raises AlreadyExistsError, NotFoundError for a volume, ResourceExhaustedError, and ConflictError while another
        one is made.
        """
        target = Path(asked.path)
        if not target.is_absolute() or target.name in ("", ".."):
            raise errors.InvalidError(f"{asked.path!r} is not the absolute path of a directory")
        if self._settings.home.resolve() in (target.parent.resolve() / target.name).parents:
            raise errors.InvalidError(
                f"{target} lies in the state directory that is to be saved", hint="choose a place outside of it"
            )
        if self._busy:
            raise errors.ConflictError("another backup is being made", hint="try again when that has ended")
        volumes = await self._volumes(asked.volumes, environment)
        self._busy = True
        try:
            with self._blobs.held(), Folder(target) as folder:
                async for said in self._fill(folder, asked, volumes):
                    yield said
        finally:
            self._busy = False

    async def _fill(
        self, folder: Folder, asked: BackupMake, volumes: list[BackupVolume]
    ) -> AsyncGenerator[BackupSaid | BackupMade, None]:
        state = self._settings.state
        await self._check_room(folder)
        yield BackupSaid("database")
        async with self._secrets.steady():  # of keys and what they have sealed
            await self._store.flush()
            for name in backup_folder.databases(state):
                await asyncio.to_thread(copy_database, state / name, folder.path / name)
                await asyncio.to_thread(folder.add, name)
            sealed = await self._secrets.sealed_by()
            for name in backup_folder.state_files(state, keys=asked.with_key):
                await asyncio.to_thread(folder.copy, state / name, name)
        yield BackupSaid("blobs")
        copied = 0
        for name, digest in await asyncio.to_thread(backup_folder.blobs, state):
            try:
                await asyncio.to_thread(folder.copy, state / name, name, digest=digest)
            except errors.ServiceError as error:
                if isinstance(error.__cause__, FileNotFoundError):
                    continue  # an upload that was taken back
                raise
            copied += 1
            if copied % 100 == 0:
                yield BackupSaid("blobs", sum(one.size for one in folder.files))
        notes: list[str] = []
        done: list[BackupVolume] = []
        for volume in volumes:
            yield BackupSaid(f"volume {volume.name}")
            packed = await self._pack(folder, volume)
            done.append(BackupVolume(volume.volume_id, volume.name, volume.environment, volume.file, packed.entries))
            notes += _notes(volume, packed)
        files = folder.files
        manifest = BackupManifest(
            FORMAT,
            __version__,
            await asyncio.to_thread(schema_of, folder.path / DATABASE),
            self._server_id,
            time.time(),
            str(self._settings.home),
            sealed,
            files,
            tuple(done),
            tuple(notes),
        )
        await asyncio.to_thread(folder.finish, manifest)
        log.info("made a backup of %d files in %s", len(files), folder.target)
        secrets = sum(sealed.values())
        yield BackupMade(
            str(folder.target),
            len(files),
            sum(one.size for one in files),
            secrets,
            0 if asked.with_key else secrets,
            str(state / "key"),
            tuple(one.name for one in done),
            tuple(notes),
        )

    async def _volumes(self, names: tuple[str, ...], environment: str) -> list[BackupVolume]:
        if not names:
            return []
        rows = await self._store.read("volumes_all")
        if ALL_VOLUMES not in names:
            here = {str(row["name"]): row for row in rows if row["environment"] == environment}
            unknown = [name for name in names if name not in here]
            if unknown:
                raise errors.NotFoundError(
                    f"there is no volume {', '.join(map(repr, unknown))} in environment {environment!r}",
                    hint="`alight volume list` shows those there are",
                )
            rows = [here[name] for name in dict.fromkeys(names)]
        return [
            BackupVolume(row["volume_id"], row["name"], row["environment"], f"volumes/{row['volume_id']}.tar")
            for row in rows
        ]

    async def _pack(self, folder: Folder, volume: BackupVolume) -> VolumePacked:
        """Bring the archive of a volume from its machine into a file."""
        session = self._nodes.any_session()
        stream = await session.peer.open("node.pack", VolumePack(volume.volume_id), end=True)
        packed = None
        try:
            with folder.writing(volume.file) as file:
                async for head, body in stream:
                    if body:
                        await asyncio.to_thread(file.write, body)
                    else:
                        packed = stream.decode(VolumePacked, head)
        except OSError as error:
            await stream.fail(errors.ServiceError("the backup was given up"))
            raise full_disk(error, folder.path) from error
        except BaseException:
            if not stream.broken:
                await stream.fail(errors.ServiceError("the backup was given up"))
            raise
        if packed is None:
            raise errors.ServiceError(f"the machine that has the volume {volume.name} was lost meanwhile: try again")
        return packed

    async def _check_room(self, folder: Folder) -> None:
        """Raise ResourceExhaustedError at once where databases and blobs will not fit. Volumes show it later."""
        state = self._settings.state

        def look() -> tuple[int, int]:
            names = backup_folder.databases(state) + [name for name, _ in backup_folder.blobs(state)]
            sizes = [(state / name).stat().st_size for name in names if (state / name).exists()]
            disk = os.statvfs(folder.path)
            return sum(sizes), disk.f_bavail * disk.f_frsize

        needed, free = await asyncio.to_thread(look)
        if needed + _SPARE > free:
            raise errors.ResourceExhaustedError(
                f"the backup needs {needed >> 20} MiB and the disk of {folder.target.parent} has {free >> 20} MiB",
                hint="free some space there, or choose another place",
            )


def _notes(volume: BackupVolume, packed: VolumePacked) -> list[str]:
    notes = []
    if packed.changed:
        names = ", ".join(packed.changed)
        notes.append(f"the volume {volume.name} was written to meanwhile, so these may be half old, half new: {names}")
    if packed.skipped:
        notes.append(f"the volume {volume.name}: {packed.skipped} sockets, pipes or devices were left out")
    return notes
