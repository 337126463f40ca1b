"""Outputs that the server has not committed yet.

While the server answers they are kept in memory here, and a second time by the container's runtime, so nothing touches
a disk. When the server is away, or the container is gone, they are written down; then the runtime may forget them.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from alight.wire.commands import Output

_decode = msgspec.json.Decoder(Output).decode


@dataclass(frozen=True)
class Kept:
    """One output. ``file`` holds a body too large for a frame; else ``body`` does."""

    output: Output
    body: bytes = b""
    file: Path | None = None
    on_disk: bool = False


class Outbox:
    """The outputs of one container, oldest first, by input."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, input_id: str) -> bool:
        return input_id in self._kept

    def load(self) -> None:
        """Take up what an earlier agent wrote down."""
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self._folder.glob("*.json"), key=lambda one: one.stat().st_mtime):
                try:
                    output = _decode(path.read_bytes())
                except msgspec.MsgspecError:
                    continue  # a crash of the machine may leave an empty file; the input runs again
                file = self.body_path(output.input_id)
                large = output.payload.size > 0
                body = b"" if large or not file.exists() else file.read_bytes()
                self._kept[output.input_id] = Kept(output, body, file if large else None, on_disk=True)

    def add(self, kept: Kept) -> None:
        self._kept[kept.output.input_id] = kept

    def update(self, output: Output) -> None:
        """Replace what is said about a body (it became a blob of the server)."""
        old = self._kept.get(output.input_id)
        if old is not None:
            self._kept[output.input_id] = replace(old, output=output)

    def forget(self, input_id: str) -> bool:
        """The server has it. True when it was kept."""
        kept = self._kept.pop(input_id, None)
        if kept is None:
            return False
        if kept.on_disk or kept.file is not None:
            for path in (self._record_path(input_id), self.body_path(input_id)):
                path.unlink(missing_ok=True)
        return True

    def waiting(self) -> list[Kept]:
        """All that the server has not acknowledged, oldest first."""
        return list(self._kept.values())

    def write_down(self) -> list[str]:
        """Put on disk what is in memory alone; the ids of those inputs. Raises OSError when there is no room."""
        written = []
        for input_id, kept in list(self._kept.items()):
            if kept.on_disk:
                continue
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if kept.file is None and kept.body:
                _write(self.body_path(input_id), kept.body)
            # Without its blob's name: the server that comes back may be one that never got it.
            output = kept.output
            if kept.file is not None:
                output = replace(output, payload=replace(output.payload, blob=""))
            _write(self._record_path(input_id), msgspec.json.encode(output))
            self._kept[input_id] = replace(kept, on_disk=True)
            written.append(input_id)
        if written:
            _sync(self._folder)
        return written

    def body_path(self, input_id: str) -> Path:
        """Where a body too large for a frame belongs."""
        return self._folder / f"{input_id}.body"

    def folder(self) -> Path:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return self._folder

    def _record_path(self, input_id: str) -> Path:
        return self._folder / f"{input_id}.json"


def _write(path: Path, data: bytes) -> None:
    new = path.with_suffix(path.suffix + ".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
