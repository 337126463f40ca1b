"""What lies in a directory tree, entry by entry, and copies of single entries with all that belongs to them.

For trees that others may change meanwhile: every directory is opened beneath the root without following a link.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from alight.node import paths

FILE, DIRECTORY, LINK, OTHER = "file", "directory", "symlink", "other"
_FICLONE = 0x40049409
_PIECE = 64 << 20
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EINVAL)
_NOT_CLONED = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM)


@dataclass(frozen=True)
class Entry:
    """One entry; ``path`` is relative to the root. Times are ns. ``ctime`` 0: it may have changed since unseen."""

    path: str
    kind: str
    inode: int
    size: int
    mtime: int
    ctime: int
    mode: int
    uid: int
    gid: int
    links: int = 1
    blocks: int = 0  # bytes on the disk


def described(path: str, info: os.stat_result) -> Entry:
    """An entry from what ``stat`` says."""
    mode = info.st_mode
    kinds = ((stat.S_ISREG, FILE), (stat.S_ISDIR, DIRECTORY), (stat.S_ISLNK, LINK))
    kind = next((name for test, name in kinds if test(mode)), OTHER)
    size = info.st_size if kind == FILE else 0
    links = info.st_nlink if kind == FILE else 1
    return Entry(
        path,
        kind,
        info.st_ino,
        size,
        info.st_mtime_ns,
        info.st_ctime_ns,
        stat.S_IMODE(mode),
        info.st_uid,
        info.st_gid,
        links,
        info.st_blocks * 512,
    )


def walk(root: int, start: str = ".") -> Iterator[Entry]:
    """All entries below ``start``, a directory before what it holds, ``start`` itself first. What vanishes is not
    there. Raises OSError when ``start`` is not."""
    found = paths.open_beneath(root, start, os.O_PATH | os.O_NOFOLLOW, links=False)
    try:
        first = described(start, os.fstat(found))
    finally:
        os.close(found)
    yield first
    pending = [start] if first.kind == DIRECTORY else []
    while pending:
        path = pending.pop()
        try:
            folder = paths.open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY, links=False)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            continue  # it is gone, or somebody made it something else
        inside = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        place = entry.name if path == "." else f"{path}/{entry.name}"
                        inside.append(described(place, entry.stat(follow_symlinks=False)))
        finally:
            os.close(folder)
        for one in inside:
            if one.kind == DIRECTORY:
                pending.append(one.path)
            yield one


def is_directory(folder: int, name: str) -> bool:
    """Whether an entry is a directory, and not a link to one."""
    return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def can_clone(source: int, folder: int) -> bool:
    """Whether files of the directory ``source`` can share their blocks with files of the directory ``folder``."""
    one = other = -1
    try:
        one = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=source)
        other = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
        os.write(one, b"a" * 4096)
        fcntl.ioctl(other, _FICLONE, one)
        return True
    except OSError:
        return False
    finally:
        for fd in (one, other):
            if fd >= 0:
                os.close(fd)


def copy_file(source: int, target: int, *, clone: bool) -> int:
    """The bytes of one open file into another, empty one, holes left out. How many were copied: none by a clone."""
    if clone:
        try:
            fcntl.ioctl(target, _FICLONE, source)
            return 0
        except OSError as error:
            if error.errno not in _NOT_CLONED:
                raise
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    copied = at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # a hole up to the end
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            done = _copy_piece(source, target, at, min(_PIECE, end - at))
            if not done:
                return copied  # it became shorter meanwhile
            at += done
            copied += done
    return copied


def give_attributes(source: int, target: int, entry: Entry, *, times: bool = True) -> None:
    """Owner, rights, extended attributes and times, in the order in which none undoes another."""
    os.fchown(target, entry.uid, entry.gid)
    try:
        names = os.listxattr(source)
    except OSError:
        names = []
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
    os.fchmod(target, entry.mode)
    if times:
        os.utime(target, ns=(entry.mtime, entry.mtime))


def copy_link(source: int, name: str, folder: int, new: str, entry: Entry) -> None:
    """The link ``name`` of one directory as ``new`` of another."""
    os.symlink(os.readlink(name, dir_fd=source), new, dir_fd=folder)
    os.chown(new, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
    os.utime(new, ns=(entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)


def _copy_piece(source: int, target: int, at: int, count: int) -> int:
    try:
        return os.copy_file_range(source, target, count, at, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    piece = os.pread(source, min(count, 8 << 20), at)
    view = memoryview(piece)
    while view:
        done = os.pwrite(target, view, at)
        view, at = view[done:], at + done
    return len(piece)
