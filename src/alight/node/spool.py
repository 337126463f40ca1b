"""Values too large for a frame, on their way through this machine: files in a directory that a container shares.

The container can write to that directory at any time. What it hands over is taken out of its reach before anybody
looks at it, and what it names is opened step by step (``paths``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path

from alight.node import paths
from alight.node.blobs import Blobs
from alight.wire import errors


class Spool:
    """The spool directory of one container. Everything here raises alight's errors and OSError."""

    def __init__(self, folder: Path, blobs: Blobs) -> None:
        self._folder = folder
        self._blobs = blobs

    async def bring(self, blob: str, name: str) -> None:
        """Lay a blob of the server there under this name."""
        root = paths.open_root(self._folder)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=root)  # an attempt that was cut short
            shared = await self._blobs.share(blob, root, name)
            fd = -1 if shared else paths.create_file(root, name, 0o600)
        finally:
            os.close(root)
        if fd >= 0:
            try:
                await self._blobs.fetch(blob, fd, check=False)
            finally:
                os.close(fd)

    def drop(self, name: str) -> None:
        """The container needs it no more."""
        remove_soon(self._folder / name)

    def take(self, name: str, target: Path) -> int:
        """Move a file that the container names out of its reach; its size."""
        if "/" in name or "\0" in name:
            raise errors.InvalidError("a large value was handed over from outside of the spool directory")
        root = paths.open_root(self._folder)
        try:
            os.close(paths.open_file(root, name))
            os.rename(name, target, src_dir_fd=root)  # one name: there is no way on which a link could lead elsewhere
        finally:
            os.close(root)
        found = target.lstat()
        if not stat.S_ISREG(found.st_mode):  # exchanged after the look at it; from now on nobody can
            with contextlib.suppress(OSError):
                target.unlink()
            raise errors.InvalidError("a large value is not a regular file")
        return found.st_size

    async def upload(self, path: Path) -> tuple[str, int]:
        """Let the server have a file; the name that it got, and its size."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            return await self._blobs.leave(path, size) or await self._blobs.put(fd, size), size
        finally:
            os.close(fd)


def remove_soon(path: Path) -> None:
    """Delete a file, whose size may be such that it takes long: not in the event loop, where there is one."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _remove(path)
    else:
        loop.run_in_executor(None, _remove, path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
