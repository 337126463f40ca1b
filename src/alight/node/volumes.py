"""Volumes of this machine: directories that only the node may reach from outside, bound into containers.

Whoever mounts a volume can lay anything in it, at any moment, so every access from outside goes through ``paths``.
Work on files is done in threads; nothing here waits for a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from alight.link.peer import Stream
from alight.node import paths, volume_census, volume_mappings, volume_sync
from alight.node.volume_census import Census, Change
from alight.node.volume_changes import Changes
from alight.node.volume_files import FilesOutside, explained
from alight.node.volume_history import VolumeHistory
from alight.node.volume_limits import Limits
from alight.wire import errors
from alight.wire.commands import VolumeWork
from alight.wire.snapshots import VolumeVersion
from alight.wire.stored import VolumeMeasured

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_READING = frozenset({"files", "read", "fetch"})
_SYNC_EVERY = 5.0
_WATCHED_ON = 600.0  # seconds after the last holder: the next one's first commit need not walk
_MEASURED_FOR = 5.0  # seconds that the size of a volume whose changes nobody follows is taken as known

log = logging.getLogger(__name__)


class Volumes:
    """All volumes under ``<home>/volumes``. Who holds one keeps it from being deleted."""

    def __init__(self, home: Path, spawners: Callable[[], Iterable[int]] = tuple) -> None:
        """``spawners`` names processes in whose mount namespace containers are put together.

        Raises InvalidError for an ``ALIGHT_VOLUMES`` that cannot be the volumes' directory.
        """
        self._root = root(home)
        self._holders: dict[str, list[tuple[str, bool]]] = {}
        self._watched_until: dict[str, float] = {}
        self._committing: dict[str, asyncio.Lock] = {}
        self._changes = Changes(self._root)
        self._measured: dict[str, tuple[Census, float]] = {}
        self._outside = FilesOutside(self.data, self.staging)
        self._kept = VolumeHistory(self._root, self.data, volume_sync.whole)
        images = os.environ.get("ALIGHT_VOLUME_IMAGES", "off") == "on"
        self.limits = Limits(self._root, images=images, spawners=spawners)
        #: Hears of versions that containers make by running; False when nobody could be told.
        self.tell: Callable[[VolumeVersion], bool] = lambda _: False

    def data(self, volume_id: str) -> Path:
        """The directory that holds a volume's files; made when it is missing. Raises NotFoundError once deleted."""
        path = self._folder(volume_id) / "data"
        self.limits.ready(volume_id)
        if not path.is_dir():
            self._refuse_deleted(volume_id)
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        return path

    def staging(self, volume_id: str) -> Path:
        """Where uploads wait until all of them has come: on the same filesystem, and nothing that containers see."""
        path = self.data(volume_id).parent / "staging"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def mount(self, volume_id: str, sub_path: str | None) -> str:
        """What to bind into a container. With ``sub_path``, that directory (made when missing), never outside.

        The text is true at this moment; ``same_directory`` checks what was really bound.
        """
        data = self.data(volume_id)
        if not sub_path or paths.relative(sub_path) == ".":
            return str(data)
        root = paths.open_root(data)
        try:
            with explained(sub_path), paths.directory(root, paths.relative(sub_path), create=True) as folder:
                return os.readlink(f"/proc/self/fd/{folder}")
        finally:
            os.close(root)

    def hold(self, volume_id: str, holder: str = "", *, writes: bool = True) -> None:
        """``holder`` (the id of a container) has it from now on; what it ``writes`` is synced every few seconds.

        Called before the volume is mounted, so that nobody deletes it between. Raises NotFoundError once deleted.
        """
        self._refuse_deleted(volume_id)
        self._holders.setdefault(volume_id, []).append((holder, writes))
        if writes:
            self._watched_until[volume_id] = float("inf")
            self._changes.watch(volume_id, self.data(volume_id))

    def release(self, volume_id: str, holder: str = "", *, writes: bool = True) -> None:
        """That one is gone."""
        holders = self._holders.get(volume_id, [])
        with contextlib.suppress(ValueError):
            holders.remove((holder, writes))
        if not holders:
            self._holders.pop(volume_id, None)
        if volume_id in self._watched_until and not any(writes for _, writes in holders):
            self._watched_until[volume_id] = time.monotonic() + _WATCHED_ON

    async def sync(self, volume_id: str) -> None:
        """Return when what was written until now is on the disk. Raises ResourceExhaustedError, DataLossError."""
        await asyncio.to_thread(volume_sync.whole, self.data(volume_id))

    def still(self, volume_id: str) -> AbstractAsyncContextManager[Path]:
        """A directory to read all of a volume from: what it holds at one moment, where that costs no copy."""
        return self._kept.still(volume_id)

    async def commit(self, volume_id: str) -> Change:
        """``sync``, and what changed since the last commit. Costs what changed where that is known, else a walk."""
        async with self._committing.setdefault(volume_id, asyncio.Lock()):
            return await asyncio.to_thread(self._commit, volume_id)

    async def commit_by(self, volume_id: str, kind: str, holder: str) -> None:
        """``commit`` for somebody who does not ask for it: tells of the version if there is one."""
        change = await self.commit(volume_id)
        if change.any and not self.tell(_version(volume_id, kind, change, holder)):
            log.info("a version of the volume %s is not in its history: the server is away", volume_id)
        if change.any:
            await self._kept.after_commit(volume_id, kind)

    async def measure(self, volume_id: str) -> VolumeMeasured:
        """How many files and bytes it holds: what is known, or a walk when something changed since."""
        changed = self._changes.any(volume_id)
        kept, until = self._measured.get(volume_id, (Census(), 0.0))
        if kept.files < 0 or changed or (changed is None and until < time.monotonic()):
            kept, _ = await asyncio.to_thread(volume_census.walk, self.data(volume_id), 1 << 62)
            self._measured[volume_id] = kept, time.monotonic() + _MEASURED_FOR
        return VolumeMeasured(volume_id, kept.size, kept.files, self.limits.of(volume_id))

    async def sync_forever(self) -> None:
        """Commit what is held for writing, every few seconds, where something changed."""
        while True:
            await asyncio.sleep(_SYNC_EVERY)
            walked: dict[int, Path] = {}
            for volume_id, until in list(self._watched_until.items()):
                if until < time.monotonic():
                    del self._watched_until[volume_id]
                    self._changes.unwatch(volume_id)
                    continue
                with contextlib.suppress(errors.Error, OSError):  # the container's own commit tells its user
                    any_changed = self._changes.any(volume_id)
                    if any_changed:
                        writers = {name for name, writes in self._holders.get(volume_id, []) if writes}
                        await self.commit_by(volume_id, "background", writers.pop() if len(writers) == 1 else "")
                    elif any_changed is None:
                        path = self.data(volume_id)
                        walked[path.stat().st_dev] = path
            for path in walked.values():  # nobody knows what changed in them: one call per filesystem
                with contextlib.suppress(errors.Error, OSError):
                    await asyncio.to_thread(volume_sync.whole, path)

    async def serve(self, stream: Stream) -> None:
        """Answer ``node.volume``."""
        work = stream.arguments(VolumeWork)
        at = work.at
        if work.verb == "create":
            await asyncio.to_thread(self._create, at.volume_id, work.size)
        elif work.verb == "delete":
            await self._delete(at.volume_id)
        elif work.verb == "sync":
            change = await self.commit(at.volume_id)
            await stream.send(_version(at.volume_id, "commit", change, ""))
            if change.any:
                await self._kept.after_commit(at.volume_id, "commit")
            return
        elif work.snapshot is not None:
            await self._kept.serve(stream, work.verb, work.snapshot)
            return
        elif work.verb == "measure":
            await stream.send(await self.measure(at.volume_id))
            return
        elif at.snapshot:
            if work.verb not in _READING:
                raise errors.InvalidError(f"a snapshot cannot be changed ({at.snapshot!r})")
            found = await asyncio.to_thread(self._kept.snapshots.files, at.volume_id, at.snapshot)
            await FilesOutside(lambda _: found, self.staging).serve(stream, work)
            return
        else:
            await self._outside.serve(stream, work)
            return
        await stream.send({})

    def sweep(self) -> None:
        """Finish deletes and uploads that were interrupted."""
        for path in self._root.glob(".deleted-*"):
            shutil.rmtree(path, ignore_errors=True)
        self._kept.sweep()
        for path in self._root.glob("*/staging"):
            self._outside.sweep(path.parent.name)

    def close(self) -> None:
        """The node is shut down, and no container is left: what was mounted for volumes is unmounted."""
        for volume_id in list(self._watched_until):
            self._changes.unwatch(volume_id)
        self.limits.close()

    def _create(self, volume_id: str, size: int) -> None:
        if size:
            self._folder(volume_id)
            self._refuse_deleted(volume_id)
            self.limits.make(volume_id, size)
        self.data(volume_id)

    def _folder(self, volume_id: str) -> Path:
        if not _ID.fullmatch(volume_id):
            raise errors.InvalidError(f"{volume_id[:80]!r} is not the id of a volume")
        return self._root / volume_id

    def _refuse_deleted(self, volume_id: str) -> None:
        if (self._root / ".gone" / volume_id).exists():
            raise errors.NotFoundError(
                f"the volume {volume_id} was deleted", hint="run the app again to make a new one"
            )

    def _commit(self, volume_id: str) -> Change:
        data = self.data(volume_id)
        folder = data.parent
        before = volume_census.load(folder)
        taken = self._changes.take(volume_id)
        entries = taken.entries
        try:
            mapped = volume_mappings.changed(volume_id, data, before.at) if entries is not None else 0
            if entries is not None and not entries and not mapped:
                return Change()  # all that was ever written is on the disk since the last one
            at = volume_census.Clock(folder).after_now()
            if entries is None or taken.moved or mapped or len(entries) > volume_sync.FEW:
                volume_sync.whole(data)
            else:
                try:
                    volume_sync.few(entries, self._changes.opened)
                except OSError:  # too many files are open, or the like
                    volume_sync.whole(data)
            census = Census()
            if entries is None:
                census, change = volume_census.walk(data, before.at)
            elif entries:
                change = volume_census.count(entries, self._changes.opened)
            else:
                change = Change(True, mapped)
        except BaseException:
            self._changes.give_back(volume_id, taken)
            raise
        if change.any:
            volume_census.save(folder, Census(at, census.files, census.size))
        self._measured.pop(volume_id, None)
        return change

    async def _delete(self, volume_id: str) -> None:
        """From here to the rename nothing waits: no container can come to hold it meanwhile."""
        folder = self._folder(volume_id)
        holders = sorted({name or "a build" for name, _ in self._holders.get(volume_id, [])})
        if holders:
            raise errors.ConflictError(
                f"the volume is mounted by {', '.join(holders)}", hint="stop the app that uses it first"
            )
        marks = self._root / ".gone"
        marks.mkdir(mode=0o700, exist_ok=True)
        (marks / volume_id).touch()
        self._watched_until.pop(volume_id, None)
        self._changes.unwatch(volume_id)
        await asyncio.to_thread(self.limits.remove, volume_id)
        if folder.is_dir():
            # Renamed first, so that a delete that is killed half-way leaves no half of a volume under its name.
            gone = self._root / f".deleted-{volume_id}-{os.urandom(4).hex()}"
            folder.rename(gone)
            await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)
        await self._kept.forget(volume_id)


def _version(volume_id: str, kind: str, change: Change, holder: str) -> VolumeVersion:
    return VolumeVersion(volume_id, kind, change.any, change.files, change.size, change.removed, holder, at=time.time())


def root(home: Path) -> Path:
    """The directory of all volumes of a node: ``ALIGHT_VOLUMES``, or its own. Made when it is missing."""
    chosen = os.environ.get("ALIGHT_VOLUMES", "")
    path = Path(chosen) if chosen else home / "volumes"
    if not path.is_absolute():
        raise errors.InvalidError(f"ALIGHT_VOLUMES={chosen} is no absolute path", hint="name a directory from /")
    try:
        path.mkdir(mode=0o711, parents=not chosen, exist_ok=True)
        path.chmod(0o711)
    except OSError as error:
        raise errors.InvalidError(
            f"the directory of the volumes, {path}, cannot be used: {error.strerror}",
            hint="mount its filesystem first, let root write to it, or unset ALIGHT_VOLUMES",
        ) from error
    return path


def same_directory(process: int, target: str, source: str) -> bool:
    """Whether a container's process sees the directory ``source`` at ``target``.

    A volume's writer may exchange a directory for a link between our look and the mount; this is asked after the mount
    and before any user code, so that a container never runs with another directory of the machine.
    """
    try:
        root = os.open(f"/proc/{process}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True  # it has ended: nothing can run with it
    try:
        there = paths.open_in_root(root, target, os.O_PATH)
        try:
            seen, meant = os.fstat(there), os.stat(source, follow_symlinks=False)
        finally:
            os.close(there)
        return (seen.st_dev, seen.st_ino) == (meant.st_dev, meant.st_ino)
    except OSError:
        return False
    finally:
        os.close(root)
