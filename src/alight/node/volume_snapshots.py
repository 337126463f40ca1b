"""Snapshots of volumes on this machine: what a volume held at a moment, in ``<volumes>/.snapshots/<id>/<name>``.

A file of a snapshot shares its blocks with the live one where the filesystem can (a reflink). Elsewhere it is a copy,
and one that did not change since the snapshot before is that snapshot's file once more (a hard link). It is never a
link to a live file: what a container writes cannot reach it. A snapshot is made beside the others and gets its name
when it is on the disk, so whatever ends in the middle leaves none.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from alight.node import paths, volume_entries, volume_plans
from alight.node.volume_census import Clock
from alight.node.volume_entries import DIRECTORY, FILE, LINK, OTHER, Entry
from alight.wire import errors
from alight.wire.snapshots import Difference, Snapshot, SnapshotAsked

_NAME = re.compile(r"s[1-9][0-9]{0,8}")
_TRIES = 3  # of a file that changes while it is copied
_index = msgspec.json.Decoder(list[Entry]).decode
_meta = msgspec.json.Decoder(Snapshot).decode


@dataclass(frozen=True)
class Bounds:
    """How much snapshots that copy may take: ``share`` times the volume; ``spare`` of the disk stays free."""

    share: float = 3.0
    spare: float = 0.1


class Snapshots:
    """Of all volumes. Blocking: for threads, one at a time for each volume."""

    def __init__(self, root: Path, data: Callable[[str], Path], bounds: Bounds, sync: Callable[[Path], None]) -> None:
        self._root = root / ".snapshots"
        self._data = data
        self._bounds = bounds
        self._sync = sync

    def take(self, asked: SnapshotAsked) -> Snapshot:
        """Make one. Raises ResourceExhaustedError when it would take more than it may, AlreadyExistsError."""
        folder = self._folder(asked.volume_id, create=True)
        have = self.all(asked.volume_id)
        _check_label(asked.label, have)
        new = folder / f".new-{os.urandom(6).hex()}"
        (new / "data").mkdir(mode=0o700, parents=True)
        try:
            made = self._fill(asked, new, have)
            self._sync(new)
            new.rename(folder / made.name)
            _sync_directory(folder)
            return made
        except OSError as error:
            raise explained(error, "the snapshot was not made") from error
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def all(self, volume_id: str) -> list[Snapshot]:
        """All that there are, newest first."""
        found = []
        for path in self._folder(volume_id).glob("s*/meta.json"):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                found.append(_meta(path.read_bytes()))
        return sorted(found, key=lambda one: -int(one.name[1:]))

    def files(self, volume_id: str, name: str) -> Path:
        """The directory with a snapshot's files. Raises NotFoundError."""
        return self._folder(volume_id) / self.find(volume_id, name).name / "data"

    def find(self, volume_id: str, name: str) -> Snapshot:
        """By name or label. Raises NotFoundError."""
        have = self.all(volume_id)
        for one in have:
            if name and name in (one.name, one.label):
                return one
        known = ", ".join(one.name + (f" ({one.label})" if one.label else "") for one in have[:8])
        raise errors.NotFoundError(
            f"the volume has no snapshot {name!r}",
            hint=f"it has {known}" if known else "`alight volume snapshot NAME` makes one",
        )

    def remove(self, volume_id: str, name: str) -> None:
        """Let one go. Raises NotFoundError."""
        folder = self._folder(volume_id)
        gone = folder / f".gone-{os.urandom(6).hex()}"
        (folder / self.find(volume_id, name).name).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def forget(self, volume_id: str) -> None:
        """Its volume is deleted."""
        shutil.rmtree(self._root / volume_id, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a killed agent left half made or half removed."""
        for pattern in ("*/.new-*", "*/.gone-*"):
            for path in self._root.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def diff(self, asked: SnapshotAsked) -> Iterator[Difference]:
        """What ``other`` (the volume as it is now when it is empty) has otherwise than ``snapshot``."""
        old = self.find(asked.volume_id, asked.snapshot)
        before, now = self.index(asked.volume_id, old.name), {}
        if asked.other:
            newer = self.find(asked.volume_id, asked.other)
            now, there = self.index(asked.volume_id, newer.name), self.files(asked.volume_id, newer.name)
        else:
            there = self._data(asked.volume_id)
            with _root(there) as root:
                now = {one.path: one for one in volume_entries.walk(root) if one.kind != OTHER}
        found, unsure = volume_plans.differences(now, before)
        with _root(there) as root, _root(self.files(asked.volume_id, old.name)) as old_root:
            for path in unsure:
                if not _same_bytes(root, old_root, path):
                    found.append(Difference(path, "changed", now[path].size, before[path].size))
        yield from sorted(found, key=lambda one: one.path)

    def index(self, volume_id: str, name: str) -> dict[str, Entry]:
        """What a snapshot holds, by path. Raises DataLossError when that cannot be read."""
        path = self._folder(volume_id) / name / "index.json"
        try:
            entries = _index(path.read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            raise errors.DataLossError(f"the snapshot {name} cannot be read: {error}") from error
        return {_path_in(one.path): replace(one, path=_path_in(one.path)) for one in entries}

    def clones(self, volume_id: str) -> bool:
        """Whether snapshots of this volume share blocks with it, and so cost next to nothing."""
        with _root(self._data(volume_id)) as source, _root(self._folder(volume_id, create=True)) as folder:
            return volume_entries.can_clone(source, folder)

    def _fill(self, asked: SnapshotAsked, new: Path, have: list[Snapshot]) -> Snapshot:
        data = self._data(asked.volume_id)
        clone = self.clones(asked.volume_id)
        before: dict[str, Entry] = {}
        last = have[0].name if have else ""
        if last:
            with contextlib.suppress(errors.DataLossError):  # then all is copied anew
                before = self.index(asked.volume_id, last)
        at = Clock(data.parent).after_now()
        with _root(data) as root, _root(new / "data") as target:
            entries = list(volume_entries.walk(root))
            if not clone:
                self._refuse_too_much(entries, before, have, new)
            old = self._folder(asked.volume_id) / last / "data" if before else None
            copying = _Copying(root, target, old, before, clone)
            kept = [volume_plans.steady(one, at) for entry in entries if (one := copying.copy(entry)) is not None]
            copying.finish()
        files = [one for one in kept if one.kind != DIRECTORY]
        made = Snapshot(
            f"s{int(have[0].name[1:]) + 1 if have else 1}",
            asked.label,
            time.time(),
            asked.version,
            len(files),
            sum(one.size for one in files),
            copying.copied,
            "reflink" if clone else "copy",
            asked.automatic,
            copying.unsteady,
            copying.left_out,
        )
        encoded = msgspec.json.encode([replace(one, path=_path_out(one.path)) for one in kept])
        (new / "index.json").write_bytes(encoded)
        (new / "meta.json").write_bytes(msgspec.json.encode(made))
        return made

    def _refuse_too_much(
        self, entries: list[Entry], before: dict[str, Entry], have: list[Snapshot], folder: Path
    ) -> None:
        disk = os.statvfs(folder)
        room = volume_plans.Room(
            volume_plans.to_copy(entries, before),
            sum(one.copied for one in have),
            sum({one.inode: one.blocks for one in entries if one.kind == FILE}.values()),
            disk.f_bavail * disk.f_frsize,
            disk.f_blocks * disk.f_frsize,
        )
        why = volume_plans.refusal(room, self._bounds.share, self._bounds.spare)
        if why:
            raise errors.ResourceExhaustedError(
                f"the snapshot would copy {room.copies / 1e9:.2f} GB, and {why}",
                hint="delete some (`alight volume snapshot NAME --delete SNAPSHOT`), or raise ALIGHT_SNAPSHOTS_SHARE",
            )

    def _folder(self, volume_id: str, *, create: bool = False) -> Path:
        self._data(volume_id)  # refuses what is no volume
        path = self._root / volume_id
        if create:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root.chmod(0o700)
        return path


class _Copying:
    """One snapshot that is being made."""

    def __init__(self, root: int, target: int, old: Path | None, before: dict[str, Entry], clone: bool) -> None:
        self._root, self._target, self._old, self._before, self._clone = root, target, old, before, clone
        self._first: dict[int, str] = {}  # of files with several names in the volume: where the first is
        self._directories: list[Entry] = []
        self.copied = self.unsteady = self.left_out = 0

    def copy(self, entry: Entry) -> Entry | None:
        """Have the entry in the snapshot, as it is returned; None: it is not there (any more), or is no data."""
        if entry.kind == OTHER:
            self.left_out += 1
            return None
        try:
            if entry.kind == DIRECTORY:
                if entry.path != ".":
                    os.mkdir(entry.path, 0o700, dir_fd=self._target)
                self._directories.append(entry)
                return entry
            if entry.kind == LINK:
                parent, name = paths.split(entry.path)
                with self._parent(parent) as folder:
                    volume_entries.copy_link(folder, name, self._target, entry.path, entry)
                return entry
            if self._linked(entry):
                return entry
            return self._copy_file(entry)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def finish(self) -> None:
        """Give directories what only those that are full can have."""
        for entry in reversed(self._directories):
            target = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._target)
            try:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._parent(entry.path) as source:
                    volume_entries.give_attributes(source, target, entry)
            finally:
                os.close(target)

    def _linked(self, entry: Entry) -> bool:
        try:
            if entry.links > 1 and entry.inode in self._first:
                os.link(self._first[entry.inode], entry.path, src_dir_fd=self._target, dst_dir_fd=self._target)
                return True
            if self._old is not None and volume_plans.unchanged(entry, self._before.get(entry.path)):
                os.link(self._old / entry.path, entry.path, dst_dir_fd=self._target)
                self._first[entry.inode] = entry.path
                return True
        except FileExistsError:
            raise
        except OSError:
            return False  # too many links, or a snapshot that somebody damaged: it is copied
        return False

    def _copy_file(self, entry: Entry) -> Entry | None:
        seen = self._copied(entry.path)
        for _ in range(_TRIES - 1):
            if seen is None or seen.ctime:
                break
            seen = self._copied(entry.path)
        if seen is not None:
            self.unsteady += seen.ctime == 0
            self._first[seen.inode] = entry.path
        return seen

    def _copied(self, path: str) -> Entry | None:
        """As it was copied; ``ctime`` 0 when it changed meanwhile."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        source = paths.open_beneath(self._root, path, flags, links=False)
        try:
            seen = volume_entries.described(path, os.fstat(source))
            if seen.kind != FILE:
                return None
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(path, flags, 0o600, dir_fd=self._target)
            try:
                self.copied += volume_entries.copy_file(source, target, clone=self._clone)
                volume_entries.give_attributes(source, target, seen)
            finally:
                os.close(target)
            after = volume_entries.described(path, os.fstat(source))
        finally:
            os.close(source)
        return seen if replace(after, links=0, blocks=0) == replace(seen, links=0, blocks=0) else replace(seen, ctime=0)

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[int]:
        fd = paths.open_beneath(self._root, path, os.O_RDONLY | os.O_DIRECTORY, links=False)
        try:
            yield fd
        finally:
            os.close(fd)


def explained(error: OSError, what: str) -> errors.Error:
    """A disk's refusal in words."""
    if error.errno in (28, 122):
        return errors.ResourceExhaustedError(
            f"{what}: the disk that holds the volumes is full", hint="free some space, or delete snapshots"
        )
    return errors.ServiceError(f"{what}: {error.strerror or error}")


@contextlib.contextmanager
def _root(path: Path) -> Iterator[int]:
    root = paths.open_root(path)
    try:
        yield root
    finally:
        os.close(root)


def _check_label(label: str, have: list[Snapshot]) -> None:
    if not label:
        return
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", label) or _NAME.fullmatch(label):
        raise errors.InvalidError(
            f"{label[:80]!r} cannot be the label of a snapshot",
            hint="letters, digits, dots, dashes and underscores, and not like a snapshot's own name (s1)",
        )
    if any(one.label == label for one in have):
        raise errors.AlreadyExistsError(f"the volume has a snapshot labelled {label!r} already")


def _same_bytes(root: int, old_root: int, path: str) -> bool:
    try:
        one = paths.open_file(root, path)
    except (OSError, errors.Error):
        return False
    try:
        other = paths.open_file(old_root, path)
        try:
            while True:
                left, right = os.read(one, 1 << 20), os.read(other, 1 << 20)
                if left != right:
                    return False
                if not left:
                    return True
        finally:
            os.close(other)
    finally:
        os.close(one)


def _path_out(path: str) -> str:
    """A path of any bytes as text that JSON takes."""
    return os.fsencode(path).decode("latin-1")


def _path_in(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
