"""What happens to the files of a filesystem, as the kernel tells it to root: one fanotify group. Decides nothing.

An event names the directory by its file handle and the entry in it by name, so that it says where something happened
without anybody having looked before, and costs the process that caused it well under a microsecond.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

#: What changes a file's content, attributes or name.
MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200
CHANGES = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
NAMES = MOVED_FROM | MOVED_TO | CREATE | DELETE
OVERFLOW = 0x4000
ON_DIRECTORY = 0x40000000

_CLOEXEC, _NONBLOCK, _REPORT_DFID_NAME = 0x1, 0x2, 0x400 | 0x800
_MARK_ADD, _MARK_REMOVE, _MARK_FILESYSTEM = 0x1, 0x2, 0x100
_AT_FDCWD = -100
_INFO_DFID_NAME = 2
_READ = 1 << 18
# event_len, version, reserved, metadata_len, mask, fd, pid; then info_type, pad, info_len, fsid; handle_bytes, type.
_HEAD = struct.Struct("=IBBHQii")
_INFO = struct.Struct("=BBHQ")
_HANDLE = struct.Struct("=Ii")
_OPEN_BY_HANDLE = {"x86_64": 304, "aarch64": 265}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Group:
    """A queue of events, at most some ten thousand; when more happens before it is read, it says so (OVERFLOW)."""

    def __init__(self) -> None:
        """Raises OSError where the kernel or our rights have no such thing."""
        self._fd = _checked(_libc.fanotify_init(_CLOEXEC | _NONBLOCK | _REPORT_DFID_NAME, os.O_RDONLY), "fanotify_init")

    def mark(self, path: str) -> None:
        """Hear of everything on the filesystem of ``path``. Raises OSError."""
        self._mark(_MARK_ADD, path)

    def unmark(self, path: str) -> None:
        """No more of that filesystem. Raises OSError."""
        self._mark(_MARK_REMOVE, path)

    def events(self) -> Iterator[tuple[int, bytes, bytes]]:
        """What has come: (mask, directory, name of the entry; "." is the directory itself). Never waits.

        ``directory`` is the filesystem's id (8 bytes) and a file handle: see ``open_directory``.
        """
        while True:
            try:
                read = os.read(self._fd, _READ)
            except BlockingIOError:
                return
            yield from _parsed(read)

    def close(self) -> None:
        """Stop hearing."""
        os.close(self._fd)

    def _mark(self, action: int, path: str) -> None:
        mask = ctypes.c_uint64(CHANGES | ON_DIRECTORY)
        flags = ctypes.c_uint(action | _MARK_FILESYSTEM)
        _checked(_libc.fanotify_mark(self._fd, flags, mask, _AT_FDCWD, os.fsencode(path)), f"fanotify_mark {path}")


def filesystem(path: str) -> bytes:
    """The id of a path's filesystem, as events begin with it."""
    return struct.pack("=Q", os.statvfs(path).f_fsid)


def open_directory(root: int, directory: bytes) -> int:
    """The directory of an event, opened as a path only. ``root``: any descriptor on its filesystem. Raises OSError."""
    number = _OPEN_BY_HANDLE.get(os.uname().machine)
    if number is None:
        raise OSError(38, "open_by_handle_at has no known number on this processor")
    handle = ctypes.create_string_buffer(directory[8:])
    flags = ctypes.c_long(os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return _checked(int(_libc.syscall(ctypes.c_long(number), ctypes.c_long(root), handle, flags)), "open_by_handle_at")


def _parsed(read: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    at = 0
    while at < len(read):
        length, _, _, head, mask, _, _ = _HEAD.unpack_from(read, at)
        if mask & OVERFLOW:
            yield OVERFLOW, b"", b""
        else:
            info = at + head
            kind, _, _, _ = _INFO.unpack_from(read, info)
            handle = info + _INFO.size
            size, _ = _HANDLE.unpack_from(read, handle)
            name = handle + _HANDLE.size + size
            if kind == _INFO_DFID_NAME:
                yield mask, read[info + 4 : name], read[name : read.index(b"\0", name)]
        at += length


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
