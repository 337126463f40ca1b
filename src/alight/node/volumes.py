"""Volumes of this machine: directories that only the node may reach from outside, bound into containers.

Whoever mounts a volume can lay anything in it, at any moment, so every access from outside goes through ``paths``.
Work on files is done in threads; nothing here waits for a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import re
import shutil
from pathlib import Path

from alight.link.peer import Stream
from alight.node import paths
from alight.node.volume_files import FilesOutside, explained
from alight.wire import errors
from alight.wire.commands import VolumeWork

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SYNC_EVERY = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


class Volumes:
    """All volumes under ``<home>/volumes``."""

    def __init__(self, home: Path) -> None:
        self._root = home / "volumes"
        self._mounted: dict[str, int] = {}
        self._outside = FilesOutside(self.data, self.staging)
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._root.chmod(0o711)

    def data(self, volume_id: str) -> Path:
        """The directory that holds a volume's files; made when it is missing."""
        if not _ID.fullmatch(volume_id):
            raise errors.InvalidError(f"{volume_id[:80]!r} is not the id of a volume")
        path = self._root / volume_id / "data"
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

    def hold(self, volume_id: str) -> None:
        """A container writes to it from now on: it is synced every few seconds."""
        self._mounted[volume_id] = self._mounted.get(volume_id, 0) + 1

    def release(self, volume_id: str) -> None:
        """That container is gone."""
        left = self._mounted.get(volume_id, 0) - 1
        if left > 0:
            self._mounted[volume_id] = left
        else:
            self._mounted.pop(volume_id, None)

    async def sync(self, volume_id: str) -> None:
        """Return when what was written until now is on the disk. Raises ResourceExhaustedError, DataLossError."""
        await asyncio.to_thread(_sync, self.data(volume_id))

    async def sync_forever(self) -> None:
        """Sync what is mounted for writing, every few seconds; one call per filesystem."""
        while True:
            await asyncio.sleep(_SYNC_EVERY)
            devices: dict[int, Path] = {}
            for volume_id in list(self._mounted):
                with contextlib.suppress(OSError):
                    path = self.data(volume_id)
                    devices[path.stat().st_dev] = path
            for path in devices.values():
                with contextlib.suppress(errors.Error):  # the container's own commit tells its user
                    await asyncio.to_thread(_sync, path)

    async def serve(self, stream: Stream) -> None:
        """Answer ``node.volume``."""
        work = stream.arguments(VolumeWork)
        at = work.at
        if work.verb == "create":
            self.data(at.volume_id)
        elif work.verb == "delete":
            await self._delete(at.volume_id)
        elif work.verb == "sync":
            await self.sync(at.volume_id)
        else:
            await self._outside.serve(stream, work)
            return
        await stream.send({})

    async def _delete(self, volume_id: str) -> None:
        if self._mounted.get(volume_id):
            raise errors.ConflictError(
                "the volume is mounted by a running container", hint="stop the app that uses it first"
            )
        path = self.data(volume_id).parent
        # Renamed first, so that a delete that is killed half-way leaves no half of a volume under its name.
        gone = self._root / f".deleted-{volume_id}-{os.urandom(4).hex()}"
        path.rename(gone)
        await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)

    def sweep(self) -> None:
        """Finish deletes and uploads that were interrupted."""
        for path in self._root.glob(".deleted-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._root.glob("*/staging"):
            self._outside.sweep(path.parent.name)


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


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            if number in (errno.ENOSPC, errno.EDQUOT):
                raise errors.ResourceExhaustedError("the disk that holds the volumes is full", hint="free some space")
            raise errors.DataLossError(f"a volume could not be written to its disk: {os.strerror(number)}")
    finally:
        os.close(fd)
