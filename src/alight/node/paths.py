"""The one way into directories that others can write: volumes, layers, spool files, uploads.

Every path is opened step by step beneath a directory descriptor and can never leave it, whatever links somebody laid
there and whenever. A path of text is never checked and then used: it is opened, and the descriptor is used. Only
regular files are read or written; opening a pipe or a device could block or do something.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from alight.wire import errors

_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10
_O_PATH = os.O_PATH
_MAX_PATH = 4096


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def relative(path: str) -> str:
    """A path as users write it ("/a/b", "a//b/") as one below a root: "a/b"; "." for the root itself.

    Raises: InvalidError for "..", a NUL byte and paths that no kernel takes.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise errors.InvalidError(f"the path {path!r} leads upwards", hint="name the file from the volume's root")
    joined = "/".join(parts) or "."
    if "\0" in path or len(os.fsencode(joined)) >= _MAX_PATH:
        raise errors.InvalidError(f"the path {path[:80]!r} cannot be a path")
    return joined


def open_beneath(root: int, path: str, flags: int, mode: int = 0, *, links: bool = True) -> int:
    """openat2 below ``root``. ``links``: whether links that stay below it are followed. Raises OSError.

    A path that would leave the root is EXDEV (or ELOOP where links are not followed).
    """
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | (0 if links else _RESOLVE_NO_SYMLINKS)
    return _openat2(root, path, flags, mode, resolve)


def open_in_root(root: int, path: str, flags: int) -> int:
    """As a process with ``root`` as its root directory would find ``path``: absolute links and ".." end there."""
    return _openat2(root, path, flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)


def open_root(path: str | os.PathLike[str]) -> int:
    """A directory of our own as the root of later opens. The caller closes it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_file(root: int, path: str) -> int:
    """A regular file for reading; anything else is refused before it is really opened."""
    seen = open_beneath(root, path, _O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(seen).st_mode):
            raise errors.InvalidError(f"{path!r} is not a regular file")
        # Through the descriptor: nobody can have exchanged the file since the look at its kind.
        return os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(seen)


def create_file(root: int, path: str, mode: int = 0o644) -> int:
    """A new regular file for writing. Raises FileExistsError for whatever is there, links too."""
    parent, name = split(path)
    with directory(root, parent, create=True) as folder:
        return open_beneath(folder, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, links=False)


def split(path: str) -> tuple[str, str]:
    """The parent and the name of a relative path. Raises InvalidError for the root itself."""
    parent, _, name = path.rpartition("/")
    if name in ("", ".", ".."):
        raise errors.InvalidError("the root itself cannot be written, copied to or removed")
    return parent or ".", name


@contextmanager
def directory(root: int, path: str, *, create: bool = False) -> Iterator[int]:
    """A descriptor of a directory below ``root``; with ``create``, missing ones are made (0755)."""
    folder = open_directory(root, path, create=create)
    try:
        yield folder
    finally:
        os.close(folder)


def open_directory(root: int, path: str, *, create: bool = False) -> int:
    """As ``directory``, for the caller to close."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        return open_beneath(root, path, flags)
    except FileNotFoundError:
        if not create:
            raise
    current = os.dup(root)
    for part in path.split("/"):
        try:
            os.mkdir(part, 0o755, dir_fd=current)
        except FileExistsError:
            pass
        except OSError:
            os.close(current)
            raise
        try:
            # Links are followed only by the first try above, where the kernel watches all of the path.
            deeper = open_beneath(current, part, flags, links=False)
        finally:
            os.close(current)
        current = deeper
    return current


def _openat2(root: int, path: str, flags: int, mode: int, resolve: int) -> int:
    creating = bool(flags & os.O_CREAT) or (flags & os.O_TMPFILE) == os.O_TMPFILE
    how = _How(flags | os.O_CLOEXEC, mode if creating else 0, resolve)
    while True:
        fd = int(_libc.syscall(_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number == errno.EAGAIN:  # a rename raced with "..": the kernel asks to try again
            continue
        if number == errno.ENOSYS:
            return _open_by_steps(root, path, flags, mode)
        raise OSError(number, os.strerror(number), path)


def _open_by_steps(root: int, path: str, flags: int, mode: int) -> int:
    """For kernels before 5.6: no link at all is followed, which is stricter and never wrong."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or path.startswith("/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    current = os.dup(root)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, _O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = deeper
        last = parts[-1] if parts else "."
        return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=current)
    finally:
        os.close(current)
