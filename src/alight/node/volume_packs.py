"""A volume as one tar archive, for backups: files, directories, links; with owners, modes and times.

Whoever mounts the volume may change it meanwhile and lay anything in it. Directories and files are opened below their
parents and never through a link; what is neither file, directory nor link is left out and counted. A file has the
length in the archive that it had when it was opened.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from alight.link.peer import Stream
from alight.node import paths
from alight.node.volumes import Volumes
from alight.wire.backups import VolumePack, VolumePacked
from alight.wire.codec import PIECE

_DEEPEST = 200  # directories in one another: each is open while what is below it is read
_CHANGED_MOST = 20  # names of files that are told of


async def send(stream: Stream, volumes: Volumes) -> None:
    """Answer ``node.pack``: the archive of a volume, with all that was written to it until now."""
    asked = stream.arguments(VolumePack)
    await volumes.sync(asked.volume_id)
    async with volumes.still(asked.volume_id) as data:
        await stream.send(await _send(stream, data))


async def _send(stream: Stream, data: Path) -> VolumePacked:
    reading, writing = os.pipe()
    packing = asyncio.get_running_loop().run_in_executor(None, _pack, data, writing)
    try:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while piece := await asyncio.to_thread(pipe.read, PIECE):
                await stream.send(None, piece)
    except BaseException:
        await asyncio.gather(packing, return_exceptions=True)  # without a reader it ends at its next write
        raise
    return await packing


def _pack(data: Path, into: int) -> VolumePacked:
    packer = Packer()
    root = paths.open_root(data)
    try:
        with os.fdopen(into, "wb", buffering=PIECE) as file:
            packer.pack(root, file)
    finally:
        os.close(root)
    return VolumePacked(packer.entries, packer.skipped, tuple(packer.changed[:_CHANGED_MOST]))


class Packer:
    """Writes one archive, and counts."""

    def __init__(self) -> None:
        self.entries = 0
        self.skipped = 0
        self.changed: list[str] = []
        self._names: dict[tuple[int, int], str] = {}  # of files with several names: the first one met

    def pack(self, root: int, into: IO[bytes]) -> None:
        """Write everything below a directory. Raises OSError: nobody reads, or the disk fails."""
        with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT, bufsize=PIECE) as archive:
            for folder, name, path in self._walk(root, ""):
                self._add(archive, folder, name, path)

    def _walk(self, folder: int, above: str, deep: int = 0) -> Iterator[tuple[int, str, str]]:
        """(the directory's descriptor, name, path) of everything below a directory, each directory before its own."""
        for name in sorted(os.listdir(folder)):
            path = f"{above}{name}"
            yield folder, name, path
            try:
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            except OSError:
                continue  # no directory, or gone
            try:
                if deep >= _DEEPEST:
                    self.changed.append(f"{path}/ (too deep: left out)")
                    continue
                yield from self._walk(below, f"{path}/", deep + 1)
            finally:
                os.close(below)

    def _add(self, archive: tarfile.TarFile, folder: int, name: str, path: str) -> None:
        try:
            seen = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return  # removed meanwhile
        try:
            self._add_seen(archive, seen, path)
        finally:
            os.close(seen)

    def _add_seen(self, archive: tarfile.TarFile, seen: int, path: str) -> None:
        """Add what a descriptor of O_PATH is of: nobody can exchange that for something else."""
        found = os.fstat(seen)
        entry = tarfile.TarInfo(path)
        entry.mode, entry.uid, entry.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
        entry.mtime = found.st_mtime
        first = self._names.get((found.st_dev, found.st_ino)) if found.st_nlink > 1 else None
        if stat.S_ISDIR(found.st_mode):
            entry.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(found.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink("", dir_fd=seen)
        elif not stat.S_ISREG(found.st_mode):
            self.skipped += 1
            return
        elif first is not None:
            entry.type, entry.linkname = tarfile.LNKTYPE, first
        else:
            self._names.update({(found.st_dev, found.st_ino): path} if found.st_nlink > 1 else {})
            entry.size = found.st_size
            with open(f"/proc/self/fd/{seen}", "rb", buffering=0) as file:
                archive.addfile(entry, _Padded(file))
            now = os.fstat(seen)
            if (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
                self.changed.append(path)
            self.entries += 1
            return
        archive.addfile(entry)
        self.entries += 1


class _Padded:
    """A file that became shorter goes on as zeros: its length stands in the archive already."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = 0, /) -> bytes:
        """Exactly so many bytes."""
        parts, left = [], size
        while left:
            piece = self._file.read(left)
            if not piece:
                parts.append(bytes(left))
                break
            parts.append(piece)
            left -= len(piece)
        return b"".join(parts)
