"""How many files and bytes a volume holds, and which of them are newer than a moment. Reads, never follows a link."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from alight.node import paths


@dataclass(frozen=True)
class Census:
    """``at`` is a moment of the filesystem's own clock (ns): what changes later is stamped with it or a later one."""

    at: int = 0
    files: int = -1
    size: int = -1


@dataclass(frozen=True)
class Change:
    """What one version of a volume differs in from the one before. ``files`` were written or are new."""

    any: bool = False
    files: int = 0
    size: int = 0
    removed: int = 0
    """-1: some, and nobody knows how many."""


class Clock:
    """The clock that stamps changes of files in a directory of ours: not the machine's, whose ticks differ."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".clock"

    def after_now(self) -> int:
        """A moment that is later than every change made until now, and not later than any made after this returns."""
        first = self._touched()
        while True:
            now = self._touched()
            if now != first:
                return now
            time.sleep(0.0005)

    def _touched(self) -> int:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.utime(fd)
            return os.fstat(fd).st_ctime_ns
        finally:
            os.close(fd)


def walk(data: Path, since: int) -> tuple[Census, Change]:
    """Look at everything. ``since``: the ``at`` of the last census; 0 means that all is new."""
    files = size = fresh = fresh_size = touched = 0
    root = paths.open_root(data)
    try:
        pending = ["."]
        touched += os.fstat(root).st_ctime_ns >= since
        while pending:
            path = pending.pop()
            try:
                folder = paths.open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY, links=False)
            except OSError:
                touched += 1  # it went away while we looked
                continue
            with contextlib.closing(_Descriptor(folder)), os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except OSError:
                        touched += 1
                        continue
                    new = info.st_ctime_ns >= since
                    if stat.S_ISDIR(info.st_mode):
                        touched += new
                        pending.append(entry.name if path == "." else f"{path}/{entry.name}")
                        continue
                    bytes_ = info.st_size if stat.S_ISREG(info.st_mode) else 0
                    files, size = files + 1, size + bytes_
                    if new:
                        fresh, fresh_size = fresh + 1, fresh_size + bytes_
    finally:
        os.close(root)
    return Census(0, files, size), Change(bool(fresh or touched), fresh, fresh_size, -1 if touched and not fresh else 0)


def count(entries: Iterable[tuple[bytes, bytes]], opened: Callable[[bytes], int]) -> Change:
    """What became of entries that are known to have changed. ``opened`` opens a directory by its handle."""
    files = size = removed = 0
    folder, at = -1, b""
    try:
        for directory, name in sorted(entries):
            if directory != at:
                if folder >= 0:
                    os.close(folder)
                folder, at = -1, directory
                with contextlib.suppress(OSError):
                    folder = opened(directory)
            if name == b".":
                continue
            try:
                if folder < 0:
                    raise FileNotFoundError
                info = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except OSError:
                removed += 1
                continue
            if not stat.S_ISDIR(info.st_mode):
                files += 1
                size += info.st_size if stat.S_ISREG(info.st_mode) else 0
    finally:
        if folder >= 0:
            os.close(folder)
    return Change(True, files, size, removed)


def load(folder: Path) -> Census:
    """The census that was kept last; an empty one when there is none."""
    try:
        found = json.loads((folder / "census.json").read_text())
        return Census(int(found["at"]), int(found["files"]), int(found["size"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Census()


def save(folder: Path, census: Census) -> None:
    """Keep it beside the files. Lost in a power cut, it costs one version that says that all is new."""
    new = folder / ".census.json"
    new.write_text(json.dumps(asdict(census)))
    new.rename(folder / "census.json")


class _Descriptor:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)
