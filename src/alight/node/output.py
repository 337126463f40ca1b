"""The file in which a container's output is kept, and the form of its records.

A record is ``!dBI`` (unix time, stream, length) and that many bytes. The writer may be killed at any moment, so a
reader takes whole records only. A full disk loses output and says so later; it must never block or end the writer.
So does a container that prints more than the server takes, once so much of it waits here (ALIGHT_OUTPUT_MIB).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STDOUT = 1
STDERR = 2
HEAD = struct.Struct("!dBI")
_WAITING = 256 << 20  # bytes that may wait for the server, per container
_LOOK = 1 << 20  # bytes between looks at how much waits
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01


@dataclass(frozen=True)
class Record:
    """A piece of output as it was read, not a line."""

    at: float
    stream: int
    data: bytes


def parse(data: bytes) -> tuple[list[Record], int]:
    """The whole records at the start of ``data``, and how many bytes they take."""
    records: list[Record] = []
    offset = 0
    while offset + HEAD.size <= len(data):
        at, stream, length = HEAD.unpack_from(data, offset)
        end = offset + HEAD.size + length
        if end > len(data):
            break
        records.append(Record(at, stream, data[offset + HEAD.size : end]))
        offset = end
    return records, offset


def read(path: Path) -> Iterator[Record]:
    """All whole records of a file."""
    yield from parse(path.read_bytes())[0]


def most_waiting() -> int:
    """The setting ALIGHT_OUTPUT_MIB, in bytes; its default where it says nothing that could be meant."""
    text = os.environ.get("ALIGHT_OUTPUT_MIB", "")
    return int(text) << 20 if text.isdigit() and int(text) else _WAITING


def free(descriptor: int, start: int, size: int) -> bool:
    """Give the blocks of a part of a file back to the disk; its size stays. False where the file system cannot."""
    libc = ctypes.CDLL(None)
    fallocate = getattr(libc, "fallocate64", None) or libc.fallocate  # musl has one name, glibc two
    done = fallocate(descriptor, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(size))
    return bool(done == 0)


class OutputFile:
    """The one writer of one container's output."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.lseek(self._fd, 0, os.SEEK_END)
        self.lost = 0
        self._most = most_waiting() if free(self._fd, self.size, 1) else None
        self._unlooked = _LOOK
        self._too_much = False
        self._dropped = (0, 0)

    def write(self, stream: int, data: bytes) -> None:
        """Append one record, or count it as lost when there is no room, and as dropped when too much waits already."""
        self._unlooked -= len(data)
        if self._unlooked <= 0:
            self._look()
        if self._too_much:
            lines, size = self._dropped
            self._dropped = (lines + data.count(b"\n"), size + len(data))
            return
        if self.lost:
            note = f"[alight] {self.lost} bytes of output were lost: no room on the disk\n".encode()
            if not self._append(STDERR, note):
                self.lost += len(data)
                return
            self.lost = 0
        if not self._append(stream, data):
            self.lost += len(data)

    def close(self) -> None:
        """Close the file; a loss that could not be told until now is told if there is room."""
        if self._fd < 0:
            return
        self._too_much = False
        self._tell_dropped()
        if self.lost:
            self.write(STDERR, b"")
        os.close(self._fd)
        self._fd = -1

    def _look(self) -> None:
        """See how much waits: what the server has was given back to the disk."""
        self._unlooked = _LOOK
        if self._most is None:
            return
        waits = os.fstat(self._fd).st_blocks * 512
        if not self._too_much:
            self._too_much = waits > self._most
        elif waits < self._most // 2:  # not at once, or a flood would be told of as often as it is let in
            self._too_much = False
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        lines, size = self._dropped
        if size:
            self._dropped = (0, 0)
            note = f"[alight] {lines:,} lines were dropped ({size:,} bytes): they came faster than they could be kept\n"
            self.write(STDERR, note.encode())

    def _append(self, stream: int, data: bytes) -> bool:
        record = memoryview(HEAD.pack(time.time(), stream, len(data)) + data)
        done = 0
        try:
            while done < len(record):
                done += os.pwrite(self._fd, record[done:], self.size + done)
        except OSError:
            # A torn record would make everything after it unreadable. Where even this fails, the next one goes over it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)
            return False
        self.size += done
        return True
