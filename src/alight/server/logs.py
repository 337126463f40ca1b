"""What containers wrote, kept in append-only segments: ``logs/<container>/<offset of the first byte>``.

Bytes and offsets are those of the node's own file: records ``!dBI`` (unix time, stream, length) and the bytes. A
container's log keeps its newest segments up to a size; a sweep removes what is old. Nothing in here waits for a reader.
"""

from __future__ import annotations

import os
import shutil
import struct
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alight.server.disk import full_disk
from alight.wire import errors, ids

HEAD = struct.Struct("!dBI")
_OPEN_FILES = 64


@dataclass(frozen=True, slots=True)
class Record:
    """A piece of output; ``end`` is the offset after it."""

    at: float
    fd: int
    data: bytes
    end: int


class Logs:
    """The folder of all containers' output."""

    def __init__(self, folder: Path, bytes_per_container: int) -> None:
        self._folder = folder
        self._segment = max(4096, bytes_per_container // 4)
        self._starts: dict[str, list[int]] = {}
        self._files: OrderedDict[str, tuple[int, int]] = OrderedDict()  # container → (descriptor, next offset)

    def append(self, container_id: str, offset: int, data: bytes) -> int:
        """Keep records that begin at ``offset``; returns where the log ends now. What is there already is skipped.

        Raises ResourceExhaustedError when the disk is full; nothing of ``data`` counts as kept then.
        """
        if not ids.is_id(container_id, ids.CONTAINER):
            raise errors.InvalidError(f"{container_id!r} is not the id of a container")
        try:
            descriptor, end = self._open(container_id)
            if offset < end:
                data, offset = data[end - offset :], end
            if not data:
                return end
            if offset > end or end - self._starts[container_id][-1] >= self._segment:
                descriptor = self._new_segment(container_id, offset)
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], offset - self._starts[container_id][-1] + done)
        except OSError as error:
            raise full_disk(error, self._folder) from error
        self._files[container_id] = (descriptor, offset + len(data))
        return offset + len(data)

    def end(self, container_id: str) -> int:
        """Where a container's log ends."""
        if container_id in self._files:
            return self._files[container_id][1]
        starts = self._segments(container_id)
        return starts[-1] + self._path(container_id, starts[-1]).stat().st_size if starts else 0

    def read(self, container_id: str, offset: int, limit: int = 1 << 20) -> list[Record]:
        """Whole records from ``offset`` on, about ``limit`` bytes of them. What was dropped meanwhile is skipped."""
        starts = self._segments(container_id)
        for index, start in enumerate(starts):
            following = starts[index + 1] if index + 1 < len(starts) else None
            if following is not None and following <= offset:
                continue
            begin = max(offset, start)
            try:
                with self._path(container_id, start).open("rb", buffering=0) as file:
                    data = os.pread(file.fileno(), limit + HEAD.size, begin - start)
                    if len(data) >= HEAD.size:
                        _, _, length = HEAD.unpack_from(data)
                        if length + HEAD.size > len(data):  # one record larger than the limit
                            data = os.pread(file.fileno(), length + HEAD.size, begin - start)
            except FileNotFoundError:
                continue
            records = list(_parse(data, begin))
            if records:
                return records
        return []

    def forget(self, container_id: str) -> None:
        """Close what is open for a container that has ended."""
        found = self._files.pop(container_id, None)
        if found is not None:
            os.close(found[0])
        self._starts.pop(container_id, None)

    def sweep(self, older_than: float) -> None:
        """Remove logs that nobody wrote to since this unix time."""
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            if folder.name in self._files or not folder.is_dir():
                continue
            newest = max((file.stat().st_mtime for file in folder.iterdir()), default=time.time())
            if newest < older_than:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Close all files."""
        for container_id in list(self._files):
            self.forget(container_id)

    def _open(self, container_id: str) -> tuple[int, int]:
        found = self._files.get(container_id)
        if found is not None:
            self._files.move_to_end(container_id)
            return found
        starts = self._segments(container_id)
        if not starts:
            (self._folder / container_id).mkdir(parents=True, exist_ok=True, mode=0o700)
            starts.append(0)
        descriptor = os.open(self._path(container_id, starts[-1]), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        whole = _whole(descriptor)
        self._remember(container_id, descriptor, starts[-1] + whole)
        return descriptor, starts[-1] + whole

    def _new_segment(self, container_id: str, offset: int) -> int:
        old = self._files.pop(container_id, None)
        if old is not None:
            os.close(old[0])
        starts = self._starts[container_id]
        descriptor = os.open(self._path(container_id, offset), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        starts.append(offset)
        while len(starts) > 4:
            self._path(container_id, starts.pop(0)).unlink(missing_ok=True)
        self._remember(container_id, descriptor, offset)
        return descriptor

    def _remember(self, container_id: str, descriptor: int, end: int) -> None:
        self._files[container_id] = (descriptor, end)
        if len(self._files) > _OPEN_FILES:
            _, (oldest, _) = self._files.popitem(last=False)
            os.close(oldest)

    def _segments(self, container_id: str) -> list[int]:
        found = self._starts.get(container_id)
        if found is None:
            folder = self._folder / container_id
            found = sorted(int(file.name) for file in folder.iterdir()) if folder.is_dir() else []
            self._starts[container_id] = found
        return found

    def _path(self, container_id: str, start: int) -> Path:
        return self._folder / container_id / f"{start:016d}"


def _whole(descriptor: int) -> int:
    """The length of the whole records of a file; a torn one at its end (a killed server) is cut off."""
    size, offset = os.fstat(descriptor).st_size, 0
    while offset + HEAD.size <= size:
        _, _, length = HEAD.unpack(os.pread(descriptor, HEAD.size, offset))
        if offset + HEAD.size + length > size:
            break
        offset += HEAD.size + length
    if offset < size:
        os.ftruncate(descriptor, offset)
    return offset


def _parse(data: bytes, begin: int) -> Iterator[Record]:
    offset = 0
    while offset + HEAD.size <= len(data):
        at, fd, length = HEAD.unpack_from(data, offset)
        end = offset + HEAD.size + length
        if end > len(data):
            return
        yield Record(at, fd, data[offset + HEAD.size : end], begin + end)
        offset = end
