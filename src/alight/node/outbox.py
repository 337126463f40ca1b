"""Answers that the server has not committed yet.

While the server answers they are kept in memory here, and a second time by the container's runtime, so nothing touches
a disk. When the server is away, or the container is gone, they are written down, many to a file; then the runtime may
forget them. They are written down, too, when their bodies together grow beyond ``MOST_IN_MEMORY``.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Tuple, Union

import msgspec

from alight.node.runs import Shares
from alight.node.spool import remove_soon
from alight.wire import chunk, errors
from alight.wire.calling import Payload
from alight.wire.codec import HEADER, Kind, encode_frame
from alight.wire.commands import Output
from alight.wire.record import replace

#: Bytes of bodies that one container's outbox keeps in memory.
MOST_IN_MEMORY = 64 << 20

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Output).decode
_FRAMES = ".frames"

#: A frame's serial; for what the node answered by itself: call, position and attempt.
Key = Union[int, Tuple[str, int, int]]


class Kept:
    """One answer: ``values`` (a chunk) or ``output`` (how an attempt ended otherwise).

    ``file`` holds a value too large for a frame; what names it is made anew for everyone who is told. ``record`` is the
    file in which it is written down.
    """

    __slots__ = ("_at", "body", "counted", "file", "key", "output", "record", "shares", "values")

    def __init__(
        self, said: chunk.Outputs | Output, body: bytes = b"", file: Path | None = None, shares: Shares = ()
    ) -> None:
        self.values = said if isinstance(said, chunk.Outputs) else None
        self.output = said if isinstance(said, Output) else None
        self.body = body
        self.file = file
        self.shares = shares
        self.key: Key = said.serial
        if self.output is not None and not said.serial:
            self.key = (self.output.call_id, self.output.position, self.output.attempt)
        self.record: _Record | None = None
        self.counted = 0  # bytes that the outbox counts for it
        self._at = 0, 0

    @property
    def call_id(self) -> str:
        return self.values.call_id if self.values is not None else self._said.call_id

    @property
    def attempt(self) -> int:
        return self.values.attempt if self.values is not None else self._said.attempt

    @property
    def positions(self) -> range | tuple[int, ...]:
        """The inputs that this answers: none, for items of a generator."""
        if self.values is None:
            return range(self._said.position, self._said.position + 1)
        return () if self.values.is_items else self.values.positions

    @property
    def serial(self) -> int:
        """Of the frame; 0 for what the node answered by itself."""
        return self.key if isinstance(self.key, int) else 0

    @property
    def on_disk(self) -> bool:
        return self.record is not None

    @property
    def large(self) -> str:
        """What names a value too large for the frame. Raises InternalError."""
        return chunk.read_reference(self.body)[0] if self.values is not None else self._said.payload.blob

    @property
    def _said(self) -> Output:
        assert self.output is not None
        return self.output

    def fail(self, status: str, problem: errors.Error) -> None:
        """The value cannot be had: say this instead."""
        values, error = self.values, errors.to_wire(problem)
        if values is None:
            self.output = replace(self._said, status=status, payload=Payload(), failure=None, error=error)
        else:
            position = values.position if values.is_items else values.positions[0]
            self.output = Output(
                values.call_id,
                position,
                values.attempt,
                status,
                values.container,
                values.serial,
                error=error,
                log_offset=values.log_offset,
                started_at=values.ended - values.busy,
                ended_at=values.ended,
            )
            self.values = None
        if self.file is not None:
            remove_soon(self.file)
        self.file, self.body, self._at = None, b"", (0, 0)

    def read(self) -> bytes:
        """The body, wherever it is. Raises OSError."""
        if self.body or self.record is None or not self._at[1]:
            return self.body
        with self.record.path.open("rb") as file:
            return os.pread(file.fileno(), self._at[1], self._at[0])

    def name(self, name: str, size: int) -> None:
        """What whoever reads this calls the content of ``file``."""
        if self.values is None:
            self.output = replace(self._said, payload=Payload(name, size))
            return
        self.body = chunk.reference(name, size)
        self.values.sizes = (len(self.body),)

    def rest(self, record: _Record, at: int, size: int) -> None:
        """It is written down there now."""
        self.record, self._at, self.body = record, (at, size), b""
        record.count += 1


class _Record:
    """A file with answers in it, and how many of them are still wanted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def release(self) -> None:
        self.count -= 1
        if self.count <= 0:
            self.path.unlink(missing_ok=True)


class Outbox:
    """The answers of one container, oldest first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[Key, Kept] = {}
        self._in_memory: dict[Key, Kept] = {}
        self._bytes = 0
        self._written = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def get(self, key: Key) -> Kept | None:
        return self._kept.get(key)

    def load(self) -> None:
        """Take up what an earlier agent wrote down."""
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self._folder.glob(f"*{_FRAMES}"), key=_number):
                self._written = max(self._written, _number(path))
                self._load_one(path)

    def add(self, kept: Kept) -> None:
        self._kept[kept.key] = self._in_memory[kept.key] = kept
        kept.counted = len(kept.body)
        self._bytes += kept.counted

    def forget(self, key: Key) -> Kept | None:
        """The server has it. What it was, when it was kept."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return None
        if self._in_memory.pop(key, None) is not None:
            self._bytes -= kept.counted
        if kept.record is not None:
            kept.record.release()
        if kept.file is not None:
            remove_soon(kept.file)
        return kept

    def waiting(self) -> list[Kept]:
        """All that the server has not acknowledged, oldest first."""
        return list(self._kept.values())

    @property
    def too_large(self) -> bool:
        """Whether more is in memory than should be."""
        return self._bytes > MOST_IN_MEMORY

    def write_down(self, *, sync: bool = True) -> list[Kept]:
        """Put on disk what is in memory alone; these. Raises OSError when there is no room, and nothing has changed.

        Without ``sync`` it survives this process and not the machine, which is enough while the server is there.
        """
        written = list(self._in_memory.values())
        if not written:
            return []
        path = self.folder() / f"{self._written + 1}{_FRAMES}"
        new = path.with_suffix(".new")
        places: list[tuple[int, int]] = []
        try:
            with new.open("wb") as file:
                for kept in written:
                    head, body = _as_written(kept)
                    file.writelines(encode_frame(Kind.LINK_OUTPUT, 0, head, body))
                    places.append((file.tell() - len(body), len(body)))
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            new.rename(path)
            if sync:
                _sync(self._folder)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        self._written += 1
        record = _Record(path)
        for kept, (at, size) in zip(written, places):
            kept.rest(record, at, size)
        self._in_memory.clear()
        self._bytes = 0
        return written

    def body_path(self, serial: int) -> Path:
        """Where a value too large for a frame belongs."""
        return self.folder() / f"{serial}.body"

    def folder(self) -> Path:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return self._folder

    def _load_one(self, path: Path) -> None:
        data = path.read_bytes()
        record, at = _Record(path), 0
        while at + HEADER.size <= len(data):
            size, _, head_size, _ = HEADER.unpack_from(data, at)
            start = at + HEADER.size
            at = start + size
            if at > len(data):
                break  # a crash of the machine may tear a file; the input runs again
            try:
                kept = self._read_one(data[start : start + head_size], data[start + head_size : at])
            except (msgspec.MsgspecError, errors.InternalError, UnicodeDecodeError):
                continue
            kept.rest(record, start + head_size, size - head_size)
            self._kept[kept.key] = kept
        if not record.count:
            path.unlink()

    def _read_one(self, head: bytes, body: bytes) -> Kept:
        if not chunk.is_chunk(head):
            output = _decode(head)
            name = output.payload.blob
            return Kept(output, b"", self._folder / os.path.basename(name) if name else None)
        values = chunk.Outputs.decode(head)
        name = chunk.read_reference(body)[0] if values.is_reference else ""
        return Kept(values, b"", self._folder / os.path.basename(name) if name else None)


def _as_written(kept: Kept) -> tuple[bytes, bytes]:
    if kept.file is not None:
        # Not by its blob's name: the server that comes back may be one that never got it.
        kept.name(kept.file.name, kept.file.stat().st_size)
    return kept.values.encode() if kept.values is not None else _encode(kept.output), kept.body


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdigit() else 0


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
