"""Files of volumes from outside of containers: listed, read, written, removed and copied.

Whoever mounts a volume can lay anything in it, at any moment, so every access goes through ``paths``.
Work on files is done in threads; nothing here waits for a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from alight.link.peer import Stream
from alight.node import paths
from alight.wire import errors
from alight.wire.codec import PIECE
from alight.wire.commands import VolumeWork
from alight.wire.stored import VolumeFile, VolumeFiles, VolumePath

T = TypeVar("T")

#: Entries of one VolumeFiles message; a listing is a stream of them.
_PAGE = 2000
_MOST_ENTRIES = 1_000_000


class FilesOutside:
    """The verbs on files. ``data`` gives the directory of a volume's id."""

    def __init__(self, data: Callable[[str], Path]) -> None:
        self._data = data

    async def serve(self, stream: Stream, work: VolumeWork) -> None:
        """Answer one of ``node.volume``'s verbs on files."""
        at = work.at
        if work.verb == "files":
            await self._files(stream, at)
        elif work.verb == "read":
            await self._read(stream, at)
        elif work.verb == "write":
            await stream.send(await self._write(stream, at))
        elif work.verb == "remove":
            await self._in_thread(at, lambda root: _remove(root, at))
            await stream.send({})
        elif work.verb == "copy":
            await self._in_thread(at, lambda root: _copy_all(root, at))
            await stream.send({})
        else:
            raise errors.UnimplementedError(f"this node does not know the volume operation {work.verb!r}")

    async def _in_thread(self, at: VolumePath, work: Callable[[int], T]) -> T:
        def run() -> T:
            root = paths.open_root(self._data(at.volume_id))
            try:
                with explained(at.path):
                    return work(root)
            finally:
                os.close(root)

        return await asyncio.to_thread(run)

    async def _files(self, stream: Stream, at: VolumePath) -> None:
        found = await self._in_thread(at, lambda root: list(_listing(root, at)))
        for start in range(0, max(1, len(found)), _PAGE):
            await stream.send(VolumeFiles(tuple(found[start : start + _PAGE])))

    async def _read(self, stream: Stream, at: VolumePath) -> None:
        fd = await self._in_thread(at, lambda root: paths.open_file(root, paths.relative(at.path)))
        try:
            while piece := await asyncio.to_thread(os.read, fd, PIECE):
                await stream.send(None, piece)
        finally:
            os.close(fd)

    async def _write(self, stream: Stream, at: VolumePath) -> VolumeFile:
        """The file appears whole, under its name, when all of it has come; until then nothing is changed."""
        path = paths.relative(at.path)
        mode = 0o644 if at.mode is None else at.mode & 0o777
        parent, name = paths.split(path)
        new = f".alight-upload-{os.urandom(8).hex()}"

        def begin(root: int) -> tuple[int, int]:
            folder = paths.open_directory(root, parent, create=True)
            try:
                _refuse_existing(folder, name, at)
                return folder, paths.create_file(folder, new, 0o600)
            except BaseException:
                os.close(folder)
                raise

        def finish() -> VolumeFile:
            with explained(at.path):
                os.fchmod(fd, mode)
                _refuse_existing(folder, name, at)
                os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
                found = os.fstat(fd)
                return VolumeFile(path, "file", found.st_size, found.st_mtime)

        folder, fd = await self._in_thread(at, begin)
        try:
            async for _, body in stream:
                with explained(at.path):
                    await asyncio.to_thread(_write_all, fd, body)
            return await asyncio.to_thread(finish)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=folder)
            raise
        finally:
            os.close(fd)
            os.close(folder)


def _listing(root: int, at: VolumePath) -> Iterator[VolumeFile]:
    path = paths.relative(at.path)
    seen = paths.open_beneath(root, path, os.O_PATH)
    try:
        found = os.fstat(seen)
    finally:
        os.close(seen)
    if not stat.S_ISDIR(found.st_mode):
        yield _described(path, found)
        return
    count = 0
    pending = [path]
    while pending:
        folder = pending.pop()
        try:
            fd = paths.open_directory(root, folder)
        except OSError:
            if folder == path:
                raise
            continue  # it went away meanwhile, or became something else
        try:
            for name in sorted(os.listdir(fd)):
                inside = name if folder == "." else f"{folder}/{name}"
                try:
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                count += 1
                if count > _MOST_ENTRIES:
                    raise errors.ResourceExhaustedError(
                        f"{at.path!r} holds over {_MOST_ENTRIES} entries", hint="list a directory below it"
                    )
                yield _described(inside, info)
                if at.recursive and stat.S_ISDIR(info.st_mode):
                    pending.append(inside)
        finally:
            os.close(fd)


def _described(path: str, info: os.stat_result) -> VolumeFile:
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symlink"))
    kind = next((name for test, name in kinds if test(info.st_mode)), "other")
    return VolumeFile(path, kind, info.st_size if kind == "file" else 0, info.st_mtime)


def _refuse_existing(folder: int, name: str, at: VolumePath) -> None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise errors.AlreadyExistsError(f"{at.path!r} is a directory of the volume", hint="name the file to write")
    if not at.force:
        raise errors.AlreadyExistsError(f"the volume has a file {at.path!r} already", hint="use --force to replace it")


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


def _copy_all(root: int, at: VolumePath) -> None:
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
            _copy_one(root, path, place, recursive=at.recursive)


def _copy_one(root: int, path: str, target: str, *, recursive: bool) -> None:
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
            _copy_one(root, f"{path}/{name}", f"{target}/{name}", recursive=True)
        return
    source = paths.open_file(root, path)
    try:
        parent, name = paths.split(target)
        with paths.directory(root, parent, create=True) as folder:
            new = f".alight-copy-{os.urandom(8).hex()}"
            copy = paths.create_file(folder, new, info.st_mode & 0o777)
            try:
                while os.sendfile(copy, source, None, 16 << 20):
                    pass
                os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(new, dir_fd=folder)
                raise
            finally:
                os.close(copy)
    finally:
        os.close(source)


def _write_all(fd: int, body: bytes) -> None:
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """What the kernel says about a path of a volume, in the user's words."""
    try:
        yield
    except FileNotFoundError as error:
        raise errors.NotFoundError(f"the volume has no {path!r}") from error
    except NotADirectoryError as error:
        raise errors.InvalidError(f"a part of {path!r} is not a directory of the volume") from error
    except IsADirectoryError as error:
        raise errors.InvalidError(f"{path!r} is a directory of the volume") from error
    except FileExistsError as error:
        raise errors.AlreadyExistsError(f"{path!r} exists in the volume already") from error
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise errors.InvalidError(f"{path!r} leads out of the volume through a link") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = errors.ResourceExhaustedError("the disk that holds the volumes is full", hint="free some space")
            raise full from error
        raise errors.ServiceError(f"{path!r} in the volume: {error.strerror or error}") from error
