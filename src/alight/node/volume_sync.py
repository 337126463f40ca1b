"""Having what was written to a volume on its disk: by its whole filesystem, or by the few files that changed.

The whole costs what everybody on the filesystem wrote since the last time, so few files are synced one by one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from alight.wire import errors

#: Files and directories that are synced one by one at most: each may cost a commit of the filesystem's journal.
FEW = 16

_libc = ctypes.CDLL(None, use_errno=True)


def whole(path: Path) -> None:
    """All of the filesystem that holds ``path``. Raises ResourceExhaustedError, DataLossError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            raise _failed(ctypes.get_errno())
    finally:
        os.close(fd)


def few(entries: Iterable[tuple[bytes, bytes]], opened: Callable[[bytes], int]) -> None:
    """Entries that changed, and the directories that they are in. ``opened`` opens a directory by its handle.

    What is gone needs no more than its directory, and a directory that is gone no more than the one above it, which
    changed, too. Raises ResourceExhaustedError, DataLossError; OSError when something cannot be opened.
    """
    at, folder = b"", -1
    try:
        for directory, name in sorted(entries):
            if directory != at:
                if folder >= 0:
                    os.close(folder)
                at, folder = directory, -1
                try:
                    folder = _readable(opened(directory))
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ESTALE):
                        raise
                if folder >= 0:
                    _fsync(folder)
            if folder >= 0 and name != b".":
                with _file(folder, name) as fd:
                    if fd >= 0:
                        _fsync(fd)
    finally:
        if folder >= 0:
            os.close(folder)


@contextlib.contextmanager
def _file(folder: int, name: bytes) -> Iterator[int]:
    """A regular file or a directory; -1 for what is gone or needs no more than its directory."""
    fd = -1
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        seen = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        kind = os.fstat(seen).st_mode
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
            fd = _readable(seen)
        else:
            os.close(seen)
    try:
        yield fd
    finally:
        if fd >= 0:
            os.close(fd)


def _readable(seen: int) -> int:
    """A path descriptor as one that can be synced. Takes the first."""
    try:
        return os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(seen)


def _fsync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise _failed(error.errno or errno.EIO) from error


def _failed(number: int) -> errors.Error:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return errors.ResourceExhaustedError("the disk that holds the volumes is full", hint="free some space")
    return errors.DataLossError(f"a volume could not be written to its disk: {os.strerror(number)}")
