"""Files of volumes from outside of containers: listed, read, written, removed and copied.

Whoever mounts a volume can lay anything in it, at any moment, so every access goes through ``paths``.
Work on files is done in threads; nothing here waits for a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

from alight.link.peer import Stream
from alight.node import paths
from alight.node.volume_fetch import fetch
from alight.node.volume_upload import already_there
from alight.node.volume_uploads import Uploads
from alight.node.volume_words import explained as explained  # noqa: PLC0414  who mounts volumes reads it from here
from alight.node.volume_words import version_of
from alight.wire import errors
from alight.wire.codec import PIECE
from alight.wire.commands import VolumeWork
from alight.wire.record import replace
from alight.wire.stored import VolumeFile, VolumeFiles, VolumePath
from alight.wire.transfers import name_in, name_out

T = TypeVar("T")

#: Entries of one VolumeFiles message; a listing is a stream of them.
_PAGE = 2000
_SORTED = 50_000  # names of one directory that are put in order
_LOOSE = "loose-"  # files in staging that are of no upload


class FilesOutside:
    """The verbs on files. ``data`` and ``staging`` give the directories of a volume's id."""

    def __init__(self, data: Callable[[str], Path], staging: Callable[[str], Path]) -> None:
        self._data = data
        self._staging = staging
        self._uploads = Uploads(data, staging)

    def sweep(self, volume_id: str) -> None:
        """Finish or undo what a killed node left."""
        self._uploads.sweep(volume_id)

    async def serve(self, stream: Stream, work: VolumeWork) -> None:
        """Answer one of ``node.volume``'s verbs on files."""
        at = replace(work.at, path=name_in(work.at.path), sources=tuple(name_in(one) for one in work.at.sources))
        if work.verb == "files":
            await self._files(stream, at)
        elif work.verb == "read":
            await self._read(stream, at)
        elif work.verb == "write":
            await stream.send(await self._write(stream, at))
        elif work.verb == "upload":
            await self._uploads.serve(stream, at)
        elif work.verb == "fetch":
            await fetch(stream, at, self._data)
        elif work.verb == "remove":
            await self._in_thread(at, lambda root, _: _remove(root, at))
            await stream.send({})
        elif work.verb == "copy":
            await self._in_thread(at, lambda root, staging: _copy_all(root, staging, at))
            await stream.send({})
        else:
            raise errors.UnimplementedError(f"this node does not know the volume operation {work.verb!r}")

    async def _in_thread(self, at: VolumePath, work: Callable[[int, int], T]) -> T:
        def run() -> T:
            root = paths.open_root(self._data(at.volume_id))
            staging = paths.open_root(self._staging(at.volume_id))
            try:
                with explained(at.path):
                    return work(root, staging)
            finally:
                os.close(root)
                os.close(staging)

        return await asyncio.to_thread(run)

    async def _files(self, stream: Stream, at: VolumePath) -> None:
        root = paths.open_root(self._data(at.volume_id))
        listing = list_files(root, at)

        def page() -> list[VolumeFile]:
            with explained(at.path):
                return list(itertools.islice(listing, _PAGE))

        try:
            some = await asyncio.to_thread(page)
            await stream.send(VolumeFiles(tuple(some)))
            while len(some) == _PAGE:
                some = await asyncio.to_thread(page)
                await stream.send(VolumeFiles(tuple(some)))
        finally:
            listing.close()
            os.close(root)

    async def _read(self, stream: Stream, at: VolumePath) -> None:
        fd = await self._in_thread(at, lambda root, _: paths.open_file(root, paths.relative(at.path)))
        try:
            while some := memoryview(await asyncio.to_thread(os.read, fd, 4 * PIECE)):
                for start in range(0, len(some), PIECE):
                    await stream.send(None, some[start : start + PIECE])
        finally:
            os.close(fd)

    async def _write(self, stream: Stream, at: VolumePath) -> VolumeFile:
        """The file appears whole, under its name, when all of it has come; until then nothing is changed."""
        path = paths.relative(at.path)
        mode = 0o644 if at.mode is None else at.mode & 0o777
        parent, name = paths.split(path)
        new = _loose_name()

        def begin(root: int, staging: int) -> tuple[int, int]:
            with contextlib.suppress(FileNotFoundError), paths.directory(root, parent) as folder:
                _refuse_existing(folder, name, at)
            return os.dup(staging), paths.create_file(staging, new, 0o600)

        def finish(root: int, _: int) -> VolumeFile:
            os.fchmod(fd, mode)
            with paths.directory(root, parent, create=True) as folder:
                _refuse_existing(folder, name, at)
                os.rename(new, name, src_dir_fd=staging, dst_dir_fd=folder)
            found = os.fstat(fd)
            return VolumeFile(name_out(path), "file", found.st_size, found.st_mtime, version_of(found))

        staging, fd = await self._in_thread(at, begin)
        try:
            async for _, body in stream:
                with explained(at.path):
                    await asyncio.to_thread(_write_all, fd, body)
            return await self._in_thread(at, finish)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=staging)
            raise
        finally:
            os.close(fd)
            os.close(staging)


def list_files(root: int, at: VolumePath) -> Generator[VolumeFile, None, None]:
    """What lies at a path, a directory's own entries by their names; with ``recursive`` all below it, too."""
    path = paths.relative(at.path)
    seen = paths.open_beneath(root, path, os.O_PATH)
    try:
        found = os.fstat(seen)
    finally:
        os.close(seen)
    if not stat.S_ISDIR(found.st_mode):
        yield _described(path, found)
        return
    pending = [path]
    while pending:
        folder = pending.pop()
        try:
            fd = paths.open_directory(root, folder)
        except OSError:
            if folder == path:
                raise
            continue  # it went away meanwhile, or became something else
        inside: list[str] = []
        try:
            for name in _names(fd):
                entry = name if folder == "." else f"{folder}/{name}"
                try:
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield _described(entry, info)
                if at.recursive and stat.S_ISDIR(info.st_mode):
                    inside.append(entry)
        finally:
            os.close(fd)
        pending.extend(reversed(inside))


def _names(folder: int) -> Iterator[str]:
    """A directory's names, sorted; of one that is huge only the first ones are, so that not all are in memory."""
    with os.scandir(folder) as entries:
        yield from sorted(entry.name for entry in itertools.islice(entries, _SORTED))
        for entry in entries:
            yield entry.name


def _described(path: str, info: os.stat_result) -> VolumeFile:
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symlink"))
    kind = next((name for test, name in kinds if test(info.st_mode)), "other")
    size, version = (info.st_size, version_of(info)) if kind == "file" else (0, "")
    return VolumeFile(name_out(path), kind, size, info.st_mtime, version)


def _refuse_existing(folder: int, name: str, at: VolumePath) -> None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise errors.AlreadyExistsError(f"{at.path!r} is a directory of the volume", hint="name the file to write")
    if not at.force:
        raise already_there(at.path)


def _remove(root: int, at: VolumePath) -> None:
    parent, name = paths.split(paths.relative(at.path))
    with paths.directory(root, parent) as folder:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
        elif at.recursive:
            shutil.rmtree(name, dir_fd=folder)
        else:
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                raise errors.InvalidError(
                    f"{at.path!r} is a directory that is not empty", hint="use recursive=True (-r) to remove it all"
                ) from error


def _copy_all(root: int, staging: int, at: VolumePath) -> None:
    """As ``cp``: several sources, or a destination that is a directory, are copied into it."""
    target = paths.relative(at.path)
    try:
        with paths.directory(root, target):
            into = True
    except (FileNotFoundError, NotADirectoryError):
        into = False
    if not into and len(at.sources) != 1:
        raise errors.InvalidError(f"{at.path!r} is not a directory of the volume, so it takes one source only")
    for source in at.sources:
        path = paths.relative(source)
        place = f"{target}/{path.rpartition('/')[2]}" if into else target
        with explained(source):
            _copy_one(root, staging, path, place, recursive=at.recursive)


def _copy_one(root: int, staging: int, path: str, target: str, *, recursive: bool) -> None:
    seen = paths.open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        info = os.fstat(seen)
        if stat.S_ISLNK(info.st_mode):
            parent, name = paths.split(target)
            with paths.directory(root, parent, create=True) as folder:
                os.symlink(os.readlink("", dir_fd=seen), name, dir_fd=folder)
            return
    finally:
        os.close(seen)
    if stat.S_ISDIR(info.st_mode):
        if not recursive:
            raise errors.InvalidError(f"{path!r} is a directory", hint="use recursive=True (-r) to copy it")
        if target == path or target.startswith(f"{path}/"):
            raise errors.InvalidError(f"{path!r} cannot be copied into itself")
        with paths.directory(root, path) as folder:
            names = os.listdir(folder)
        with paths.directory(root, target, create=True):
            pass
        for name in names:
            _copy_one(root, staging, f"{path}/{name}", f"{target}/{name}", recursive=True)
        return
    source = paths.open_file(root, path)
    try:
        parent, name = paths.split(target)
        new = _loose_name()
        copy = paths.create_file(staging, new, 0o600)
        try:
            _copy_bytes(source, copy)
            os.fchmod(copy, info.st_mode & 0o777)
            with paths.directory(root, parent, create=True) as folder:
                os.rename(new, name, src_dir_fd=staging, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=staging)
            raise
        finally:
            os.close(copy)
    finally:
        os.close(source)


def _copy_bytes(source: int, copy: int) -> None:
    """All of a file; filesystems that can share blocks do."""
    try:
        while os.copy_file_range(source, copy, 1 << 30):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        while os.sendfile(copy, source, None, 16 << 20):
            pass


def _loose_name() -> str:
    return f"{_LOOSE}{os.urandom(8).hex()}"


def _write_all(fd: int, body: bytes) -> None:
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]
