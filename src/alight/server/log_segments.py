"""One log as it lies on disk: segments of records, and beside each an index by time. Reading only.

A segment is named by the offset of its first byte and holds records ``!dBI`` (unix time, stream, length) and the bytes.
``<segment>.at`` says, about every 64 KiB, where a record begins and the latest time before it, so that a moment, or the
end, is found without reading all. Nothing here is shared: a ``LogFile`` may be read in any thread, while others write.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEAD = struct.Struct("!dBI")
INDEX = struct.Struct("!dQ")
STEP = 64 << 10  # bytes of a log between two entries of its index
SYSTEM = 3  # the stream of Alight's own lines, beside 1 and 2
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """A piece of output; ``end`` is the offset after it."""

    at: float
    fd: int
    data: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Block:
    """The records from ``start`` to ``stop`` of a segment. ``key`` is the latest time of all before."""

    segment: int
    start: int
    stop: int
    key: float


class LogFile:
    """The log in a folder, as it was when this was made; what is written later is not seen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def blocks(self) -> list[Block]:
        """All there is, in order. Segments that vanish meanwhile are left out, here and by ``records``."""
        found: list[Block] = []
        for segment in segments_of(self._folder):
            try:
                size = path_of(self._folder, segment).stat().st_size
            except FileNotFoundError:
                continue
            entries = read_index(self._folder, segment, segment + size)
            if not entries or entries[0][1] != segment:
                entries.insert(0, (entries[0][0] if entries else 0.0, segment))
            ends = [*(offset for _, offset in entries[1:]), segment + size]
            found += [Block(segment, offset, end, key) for (key, offset), end in zip(entries, ends) if end > offset]
        return found

    def records(self, block: Block) -> Iterator[Record]:
        """The whole records of a block."""
        try:
            descriptor = os.open(path_of(self._folder, block.segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            at, wanted = block.start, 0
            while at < block.stop:
                size = min(block.stop - at, max(_AT_ONCE, wanted))
                data = os.pread(descriptor, size, at - block.segment)
                before = at
                for record in parse(data, at):
                    at = record.end
                    yield record
                if at > before:
                    wanted = 0
                    continue
                if len(data) < HEAD.size or size == block.stop - at:
                    return  # torn: its writer is at it, or was killed
                wanted = HEAD.size + HEAD.unpack_from(data)[2]
                if wanted > block.stop - at:
                    return
        finally:
            os.close(descriptor)


def segments_of(folder: Path) -> list[int]:
    """The segments of a log, by the offsets that they begin at."""
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdigit())
    except FileNotFoundError:
        return []


def path_of(folder: Path, segment: int, suffix: str = "") -> Path:
    """Where a segment lies; with a suffix what belongs to it: ".at" is its index, ".runs" whose output it is."""
    return folder / f"{segment:016d}{suffix}"


def read_index(folder: Path, segment: int, end: int) -> list[tuple[float, int]]:
    """The index of a segment that ends at ``end``. What a killed writer left of more than that does not count."""
    try:
        data = path_of(folder, segment, ".at").read_bytes()
    except FileNotFoundError:
        return []
    whole = len(data) - len(data) % INDEX.size
    return [(key, offset) for key, offset in INDEX.iter_unpack(data[:whole]) if segment <= offset < end]


def parse(data: bytes, begin: int) -> Iterator[Record]:
    """The whole records in bytes that lie at ``begin``."""
    offset = 0
    while offset + HEAD.size <= len(data):
        at, fd, length = HEAD.unpack_from(data, offset)
        end = offset + HEAD.size + length
        if end > len(data):
            return
        yield Record(at, fd, data[offset + HEAD.size : end], begin + end)
        offset = end
