"""What containers wrote, kept in append-only segments: ``logs/<container>/<offset of the first byte>``.

Bytes and offsets are those of the node's own file (``log_segments``). A container's log keeps its newest segments up to
a size; a sweep removes what is old, and the oldest of all when they are too many. What Alight itself says of an app is
a log of the same form under the app's id. Nothing in here waits for a reader.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from alight.server.disk import full_disk
from alight.server.log_segments import HEAD, INDEX, STEP, SYSTEM, Record, parse, path_of, read_index, segments_of
from alight.wire import errors, ids

_OPEN_FILES = 256
_KNOWN = 4096  # logs whose segments are known without looking
_SEGMENTS = 4  # of one log; the oldest makes room
_FRESH = 60.0  # seconds in which a segment was written to that is not removed for its size


@dataclass(slots=True)
class _Writing:
    """A log that is written to. ``key`` is the latest time in it, ``indexed`` the last offset of its index."""

    descriptor: int
    segment: int
    end: int
    key: float
    indexed: int
    runs: int = -1

    def close(self) -> None:
        os.close(self.descriptor)
        if self.runs >= 0:
            os.close(self.runs)


class Logs:
    """The folder of all containers' output."""

    def __init__(self, folder: Path, bytes_per_container: int) -> None:
        self._folder = folder
        self._segment = max(4096, bytes_per_container // _SEGMENTS)
        self._starts: dict[str, list[int]] = {}
        self._files: OrderedDict[str, _Writing] = OrderedDict()

    def append(self, container_id: str, offset: int, data: bytes) -> int:
        """Keep records that begin at ``offset``; returns where the log ends now. What is there already is skipped.

        Raises ResourceExhaustedError when the disk is full; nothing of ``data`` counts as kept then.
        """
        if not ids.is_id(container_id, ids.CONTAINER):
            raise errors.InvalidError(f"{container_id!r} is not the id of a container")
        try:
            return self._append(container_id, offset, data)
        except OSError as error:
            raise full_disk(error, self._folder) from error

    def note(self, app_id: str, data: bytes) -> None:
        """Add a record of Alight's own to what it says of an app. Raises ResourceExhaustedError."""
        if not ids.is_id(app_id, ids.APP):
            raise errors.InvalidError(f"{app_id!r} is not the id of an app")
        try:
            end = self._open(app_id).end
            self._append(app_id, end, HEAD.pack(time.time(), SYSTEM, len(data)) + data)
        except OSError as error:
            raise full_disk(error, self._folder) from error

    def mark(self, container_id: str, data: bytes) -> None:
        """Add to the notes of whose output a log is (``log_marks``), which go with the segment that is written now."""
        try:
            one = self._open(container_id)
            if one.runs < 0:
                path = path_of(self._folder / container_id, one.segment, ".runs")
                one.runs = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(one.runs, data)
        except OSError as error:
            raise full_disk(error, self._folder) from error

    def end(self, container_id: str) -> int:
        """Where a container's log ends."""
        if container_id in self._files:
            return self._files[container_id].end
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
            records = list(parse(data, begin))
            if records:
                return records
        return []

    def folder_of(self, name: str) -> Path:
        """Where a log lies, for ``log_segments.LogFile``."""
        return self._folder / name

    def forget(self, container_id: str) -> None:
        """Close what is open for a container that has ended."""
        found = self._files.pop(container_id, None)
        if found is not None:
            found.close()
        self._starts.pop(container_id, None)

    def sweep(self, older_than: float, most_bytes: int | None = None) -> None:
        """Remove what nobody wrote to since this unix time; beyond ``most_bytes`` in all the oldest segments go."""
        if not self._folder.is_dir():
            return
        kept: list[tuple[float, int, Path, int]] = []
        for folder in list(self._folder.iterdir()):
            if not folder.is_dir():
                continue
            with contextlib.suppress(FileNotFoundError):  # it goes meanwhile
                times = [file.stat().st_mtime for file in folder.iterdir()]
                writing = folder.name in self._files
                if not writing and max(times, default=time.time()) < older_than:
                    shutil.rmtree(folder, ignore_errors=True)
                    continue
                kept += _segments_in(folder, older_than, writing=writing)
        total = sum(size for _, size, _, _ in kept)
        if most_bytes is None:
            return
        for written, size, folder, segment in sorted(kept):
            if total <= most_bytes or written > time.time() - _FRESH:
                return
            _remove(folder, segment)
            total -= size
            if folder.name not in self._files:
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def close(self) -> None:
        """Close all files."""
        for container_id in list(self._files):
            self.forget(container_id)

    def _append(self, name: str, offset: int, data: bytes) -> int:
        one = self._open(name)
        if offset < one.end:
            data, offset = data[one.end - offset :], one.end
        if not data:
            return one.end
        if offset > one.end or one.end - one.segment >= self._segment:
            one = self._new_segment(name, offset)
        done = 0
        while done < len(data):
            done += os.pwrite(one.descriptor, data[done:], offset - one.segment + done)
        self._index(name, one, data, offset)
        one.end = offset + len(data)
        return one.end

    def _index(self, name: str, one: _Writing, data: bytes, offset: int) -> None:
        """Note where records begin. A lost entry makes a reader read more, and nothing else."""
        at, entries, key = 0, b"", one.key
        while at + HEAD.size <= len(data):
            moment, _, length = HEAD.unpack_from(data, at)
            if offset + at - one.indexed >= STEP:
                entries += INDEX.pack(key, offset + at)
                one.indexed = offset + at
            key = max(key, moment)
            at += HEAD.size + length
        one.key = key
        if entries:
            with contextlib.suppress(OSError):
                path = path_of(self._folder / name, one.segment, ".at")
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                try:
                    os.write(file, entries)
                finally:
                    os.close(file)

    def _open(self, name: str) -> _Writing:
        found = self._files.get(name)
        if found is not None:
            self._files.move_to_end(name)
            return found
        starts = self._segments(name)
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not starts:
            starts.append(0)
        descriptor = os.open(path_of(folder, starts[-1]), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end, key, indexed = _recover(descriptor, folder, starts[-1])
        except BaseException:
            os.close(descriptor)
            raise
        return self._remember(name, _Writing(descriptor, starts[-1], end, key, indexed))

    def _new_segment(self, name: str, offset: int) -> _Writing:
        old = self._files.pop(name, None)
        key = 0.0
        if old is not None:
            key = old.key
            old.close()
        starts = self._starts[name]
        folder = self._folder / name
        descriptor = os.open(path_of(folder, offset), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        starts.append(offset)
        while len(starts) > _SEGMENTS:
            _remove(folder, starts.pop(0))
        return self._remember(name, _Writing(descriptor, offset, offset, key, offset - STEP))

    def _remember(self, name: str, one: _Writing) -> _Writing:
        self._files[name] = one
        if len(self._files) > _OPEN_FILES:
            _, oldest = self._files.popitem(last=False)
            oldest.close()
        return one

    def _segments(self, name: str) -> list[int]:
        found = self._starts.get(name)
        if found is None:
            if len(self._starts) >= _KNOWN:
                self._starts = {one: starts for one, starts in self._starts.items() if one in self._files}
            found = self._starts[name] = segments_of(self._folder / name)
        return found

    def _path(self, name: str, start: int) -> Path:
        return path_of(self._folder / name, start)


def _recover(descriptor: int, folder: Path, segment: int) -> tuple[int, float, int]:
    """Where the whole records of a segment end, their latest time, and the last offset of its index. A torn record at
    the end (a killed server) is cut off."""
    size = os.fstat(descriptor).st_size
    entries = read_index(folder, segment, segment + size)
    key, at = entries[-1] if entries else (0.0, segment)
    indexed = at if entries else segment - STEP
    data = os.pread(descriptor, segment + size - at, at - segment)
    offset = 0
    while offset + HEAD.size <= len(data):
        moment, _, length = HEAD.unpack_from(data, offset)
        if offset + HEAD.size + length > len(data):
            break
        key = max(key, moment)
        offset += HEAD.size + length
    end = at + offset
    if end < segment + size:
        os.ftruncate(descriptor, end - segment)
    path = path_of(folder, segment, ".at")
    with contextlib.suppress(OSError):  # entries of what was cut off would be followed by smaller ones
        if path.stat().st_size != len(entries) * INDEX.size:
            path.write_bytes(b"".join(INDEX.pack(*one) for one in entries))
    return end, key, indexed


def _segments_in(folder: Path, older_than: float, *, writing: bool) -> list[tuple[float, int, Path, int]]:
    """When each segment was written last and how large it is, without those that are old, which go."""
    found: list[tuple[float, int, Path, int]] = []
    starts = segments_of(folder)
    for segment in starts:
        stat = path_of(folder, segment).stat()
        if stat.st_mtime < older_than and segment != starts[-1]:
            _remove(folder, segment)
        elif not (writing and segment == starts[-1]):
            found.append((stat.st_mtime, stat.st_size, folder, segment))
    return found


def _remove(folder: Path, segment: int) -> None:
    for suffix in ("", ".at", ".runs"):
        path_of(folder, segment, suffix).unlink(missing_ok=True)
