"""The file in which a container's output is kept, and the form of its records.

A record is ``!dBI`` (unix time, stream, length) and that many bytes. The writer may be killed at any moment, so a
reader takes whole records only. A full disk loses output and says so later; it must never block or end the writer.
"""

from __future__ import annotations

import contextlib
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


class OutputFile:
    """The one writer of one container's output."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = os.lseek(self._fd, 0, os.SEEK_END)
        self.lost = 0

    def write(self, stream: int, data: bytes) -> None:
        """Append one record, or count it as lost when there is no room."""
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
        if self.lost:
            self.write(STDERR, b"")
        os.close(self._fd)
        self._fd = -1

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
