"""Giving the files of an upload their names: all of them or none, also when this process dies in between.

The plan of an upload is a file of lines beside what is staged. Until it is sealed (renamed to ``commit``) a killed
upload never was; from then on it is finished at the next start. A file that is replaced is exchanged with the new one,
so that what was there can be put back when a later one cannot be placed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alight.node import paths
from alight.wire import errors
from alight.wire.transfers import Offer

log = logging.getLogger(__name__)

_NOREPLACE, _EXCHANGE = 1, 2
_KEEP_SIZE = 1
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Line(NamedTuple):
    """One file of a plan. ``number`` -1: the volume has its bytes, only the mode may be another."""

    number: int
    path: str
    mode: int
    inode: int = 0
    digest: str = ""


class Plan:
    """What an upload will do, as lines of a file: no list of a million files is in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = (folder / "plan").open("w", encoding="utf-8")

    def add(self, number: int, offer: Offer, inode: int) -> None:
        """A staged file, as soon as it exists."""
        self._write([number, offer.path, offer.mode, inode, offer.digest])

    def keep(self, path: str, mode: int) -> None:
        """A file that stays as it is."""
        self._write([-1, path, mode, 0, ""])

    def drop(self, number: int) -> None:
        """A file that was added and does not count any more."""
        self._write([number])

    def flush(self) -> None:
        """Let a killed process leave what was said until now."""
        self._file.flush()

    def seal(self) -> None:
        """From here on it is carried out, by whoever comes after us if need be."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        (self._folder / "plan").rename(self._folder / "commit")

    def unseal(self) -> None:
        """It was undone."""
        (self._folder / "commit").rename(self._folder / "plan")

    def close(self) -> None:
        """Stop writing."""
        self._file.close()

    def lines(self) -> Iterator[Line]:
        """The files of a sealed plan, in their order."""
        return lines(self._folder / "commit")

    @staticmethod
    def digests(folder: Path) -> dict[int, str]:
        """Which digest each staged file of an unfinished upload is to have."""
        for name in ("plan", "commit"):
            if (folder / name).exists():
                return {line.number: line.digest for line in lines(folder / name) if line.number >= 0}
        return {}

    def _write(self, line: list[Any]) -> None:
        self._file.write(json.dumps(line) + "\n")


def lines(plan: Path) -> Iterator[Line]:
    """What a plan's file says. A last line that is not whole was never meant."""
    dropped = {line[0]: index for index, line in enumerate(_read(plan)) if len(line) == 1}
    for index, line in enumerate(_read(plan)):
        if len(line) == 5 and index > dropped.get(line[0], -1):
            yield Line(*line)


def _read(plan: Path) -> Iterator[list[Any]]:
    with plan.open(encoding="utf-8") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                return
            yield line


class Placing:
    """A sealed plan, carried out. ``root`` is the volume's directory, ``folder`` the upload's."""

    def __init__(self, root: int, folder: int, *, force: bool) -> None:
        self._root = root
        self._folder = folder
        self._force = force
        self._made: list[str] = []
        self._parent: tuple[str, int] | None = None

    def run(self, plan: Plan) -> int:
        """All of it; the number of files. Raises OSError or an error of Alight's, and nothing is changed."""
        count = 0
        try:
            for line in plan.lines():
                self.place(line)
                count += 1
        except BaseException:
            self._undo(plan, count)
            raise
        finally:
            self.leave()
        return count

    def place(self, line: Line) -> None:
        """One file, when it was not placed already."""
        parent, name = paths.split(line.path)
        if line.number < 0:
            with contextlib.suppress(OSError, errors.InvalidError):  # replaced since: it is not ours to change
                fd = paths.open_file(self._root, line.path)
                try:
                    if os.fstat(fd).st_mode & 0o777 != line.mode:
                        os.fchmod(fd, line.mode)
                finally:
                    os.close(fd)
            return
        if not self._is_staged(line):
            return
        folder = self._open_parent(parent)
        staged = str(line.number)
        try:
            _rename(self._folder, staged, folder, name, _NOREPLACE)
            return
        except FileExistsError:
            if not self._force:
                raise errors.AlreadyExistsError(
                    f"somebody else has made {line.path!r} in the volume meanwhile", hint="use --force to replace it"
                ) from None
        # Whatever it is, it is looked at only once nobody else can exchange it: in our own folder.
        _rename(self._folder, staged, folder, name, _EXCHANGE)
        if _is_directory(self._folder, staged):
            _rename(self._folder, staged, folder, name, _EXCHANGE)
            raise errors.AlreadyExistsError(
                f"{line.path!r} is a directory of the volume", hint="name the file to write"
            )

    def _is_staged(self, line: Line) -> bool:
        try:
            return os.stat(str(line.number), dir_fd=self._folder, follow_symlinks=False).st_ino == line.inode
        except FileNotFoundError:
            return False

    def _open_parent(self, parent: str) -> int:
        if self._parent is not None:
            if self._parent[0] == parent:
                return self._parent[1]
            self.leave()
        try:
            folder = paths.open_directory(self._root, parent)
        except FileNotFoundError:
            self._make(parent)
            folder = paths.open_directory(self._root, parent)
        self._parent = (parent, folder)
        return folder

    def _make(self, parent: str) -> None:
        parts = parent.split("/")
        for end in range(1, len(parts) + 1):
            path = "/".join(parts[:end])
            above, name = paths.split(path)
            with paths.directory(self._root, above) as folder:
                try:
                    os.mkdir(name, 0o755, dir_fd=folder)
                except FileExistsError:
                    continue
            self._made.append(path)

    def leave(self) -> None:
        """Let go of the directory that was used last."""
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _undo(self, plan: Plan, count: int) -> None:
        """Put back what was there before the first ``count`` files were placed."""
        for index, line in enumerate(plan.lines()):
            if index >= count:
                break
            if line.number < 0:
                continue
            parent, name = paths.split(line.path)
            try:
                folder = self._open_parent(parent)
                replaced = _exists(self._folder, str(line.number))
                _rename(folder, name, self._folder, str(line.number), _EXCHANGE if replaced else _NOREPLACE)
            except (OSError, errors.Error) as error:
                log.warning("an upload that failed could not be taken back at %r: %s", line.path, error)
        self.leave()
        for path in reversed(self._made):
            parent, name = paths.split(path)
            with contextlib.suppress(OSError), paths.directory(self._root, parent) as folder:
                os.rmdir(name, dir_fd=folder)  # somebody else's by now: it is not empty
        plan.unseal()


def finish_interrupted(data: Path, folder: Path) -> None:
    """Place what a killed process has left of a sealed upload. What cannot be placed is said and left out."""
    root, ours = paths.open_root(data), paths.open_root(folder)
    try:
        placing = Placing(root, ours, force=True)
        for line in lines(folder / "commit"):
            try:
                placing.place(line)
            except (OSError, errors.Error) as error:
                log.warning("an upload that was interrupted could not place %r: %s", line.path, error)
        placing.leave()
    finally:
        os.close(root)
        os.close(ours)


def syncfs(path: Path) -> None:
    """Write a filesystem to its disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def allocate(fd: int, size: int) -> None:
    """Take the room that a file will need, before its bytes come. Raises OSError when it is not there."""
    if _libc.fallocate(fd, _KEEP_SIZE, 0, size) != 0:
        number = ctypes.get_errno()
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(number, os.strerror(number))


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_directory(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _rename(from_folder: int, from_name: str, to_folder: int, to_name: str, how: int) -> None:
    if _libc.renameat2(from_folder, os.fsencode(from_name), to_folder, os.fsencode(to_name), how) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EINVAL and (how == _EXCHANGE or not _exists(to_folder, to_name)):
        # A filesystem (some shared ones) that cannot do it in one step, nor take it back.
        os.rename(from_name, to_name, src_dir_fd=from_folder, dst_dir_fd=to_folder)
        return
    raise OSError(number, os.strerror(number), to_name)
