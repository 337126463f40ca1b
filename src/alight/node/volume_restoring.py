"""A snapshot's files back into their volume, while containers may use it.

Each file is made beside the volume's files and takes the live one's place in one step: whoever has the old one open
keeps it. What stands in the way (a directory where a file was) is moved aside first, and removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from alight.node import paths, volume_entries, volume_plans
from alight.node.volume_entries import DIRECTORY, FILE, LINK, OTHER, Entry
from alight.wire import errors
from alight.wire.snapshots import Restored


def restore(source: int, data: int, wanted: Mapping[str, Entry], aside: Path, *, start: str, exact: bool) -> Restored:
    """Make the volume below ``start`` what the snapshot has there. ``aside``: an empty directory of ours beside it.

    ``wanted``: all of the snapshot by path. Without ``exact``, what the snapshot does not have stays.
    Raises NotFoundError when the snapshot has no ``start``, OSError.
    """
    if start not in wanted:
        raise errors.NotFoundError(f"the snapshot has no {start!r}")
    root = paths.open_root(aside)
    try:
        return _Restoring(source, data, root, aside).run(wanted, start, exact)
    finally:
        os.close(root)
        shutil.rmtree(aside, ignore_errors=True)


class _Restoring:
    def __init__(self, source: int, data: int, aside: int, folder: Path) -> None:
        self._source, self._data, self._aside, self._folder = source, data, aside, folder
        self._count = 0
        self._made: dict[int, str] = {}  # files with several names: what was restored of them, by the snapshot's inode

    def run(self, wanted: Mapping[str, Entry], start: str, exact: bool) -> Restored:
        try:
            now = {one.path: one for one in volume_entries.walk(self._data, start)}
        except (FileNotFoundError, NotADirectoryError):
            now = {}
        mine = [one for path, one in wanted.items() if _below(path, start)]
        torn = {one.inode for one in mine if one.links > 1 and not volume_plans.unchanged(now_of(now, one), one)}
        files = size = removed = 0
        folders = []
        for one in mine:
            if one.kind == DIRECTORY:
                self._directory(one)
                folders.append(one)
            elif one.inode in torn or not volume_plans.unchanged(now_of(now, one), one):
                self._file(one)
                files, size = files + 1, size + one.size
        if exact:
            for path, one in now.items():
                if path not in wanted and one.kind != OTHER and self._move_away(path):
                    removed += 1
        for one in reversed(folders):
            self._dress(one)
        return Restored(files, size, removed)

    def _directory(self, entry: Entry) -> None:
        if entry.path == ".":
            return
        parent, name = paths.split(entry.path)
        with paths.directory(self._data, parent, create=True) as folder:
            try:
                os.mkdir(name, 0o755, dir_fd=folder)
            except FileExistsError:
                if not volume_entries.is_directory(folder, name):
                    self._take_away(folder, name)
                    os.mkdir(name, 0o755, dir_fd=folder)

    def _file(self, entry: Entry) -> None:
        new = self._fresh()
        parent, name = paths.split(entry.path)
        if entry.kind == LINK:
            with paths.directory(self._source, parent) as folder:
                volume_entries.copy_link(folder, name, self._aside, new, entry)
        elif entry.inode in self._made and self._again(entry, new):
            pass
        else:
            self._copied(entry, new)
        with paths.directory(self._data, parent, create=True) as folder:
            try:
                os.rename(new, name, src_dir_fd=self._aside, dst_dir_fd=folder)
            except (IsADirectoryError, FileExistsError):
                self._take_away(folder, name)
                os.rename(new, name, src_dir_fd=self._aside, dst_dir_fd=folder)
        if entry.links > 1:
            self._made[entry.inode] = entry.path

    def _copied(self, entry: Entry, new: str) -> None:
        source = paths.open_file(self._source, entry.path)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(new, flags, 0o600, dir_fd=self._aside)
            try:
                volume_entries.copy_file(source, target, clone=True)
                volume_entries.give_attributes(source, target, entry)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _again(self, entry: Entry, new: str) -> bool:
        """One more name for a file that was restored a moment ago; False when somebody replaced it meanwhile."""
        parent, name = paths.split(self._made[entry.inode])
        try:
            with paths.directory(self._data, parent) as folder:
                os.link(name, new, src_dir_fd=folder, dst_dir_fd=self._aside, follow_symlinks=False)
                info = os.stat(new, dir_fd=self._aside, follow_symlinks=False)
        except OSError:
            return False
        if (info.st_size, info.st_mtime_ns) == (entry.size, entry.mtime):
            return True
        os.unlink(new, dir_fd=self._aside)
        return False

    def _dress(self, entry: Entry) -> None:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            paths.directory(self._source, entry.path) as source,
            paths.directory(self._data, entry.path) as target,
        ):
            volume_entries.give_attributes(source, target, entry)

    def _move_away(self, path: str) -> bool:
        parent, name = paths.split(path)
        try:
            with paths.directory(self._data, parent) as folder:
                self._take_away(folder, name)
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False  # it went with its directory

    def _take_away(self, folder: int, name: str) -> None:
        os.rename(name, self._fresh(), src_dir_fd=folder, dst_dir_fd=self._aside)

    def _fresh(self) -> str:
        self._count += 1
        return str(self._count)


def now_of(now: Mapping[str, Entry], entry: Entry) -> Entry:
    """What is there now; something that equals nothing when there is nothing."""
    return now.get(entry.path, Entry(entry.path, FILE, 0, 0, 0, 0, 0, 0, 0))


def _below(path: str, start: str) -> bool:
    return start in {".", path} or path.startswith(f"{start}/")
