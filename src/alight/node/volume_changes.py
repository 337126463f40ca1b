"""What changed in which volume since somebody last asked, learnt from the kernel while it happens (decision 0015).

One mark per filesystem hears of everything on it, so events of other directories come too, and are dropped by one
look into a table. Nothing is marked while no volume is watched. When events come faster than they are read, or nothing
can be marked, the answer is "unknown", and whoever asked walks the volume instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from alight.node import fanotify

log = logging.getLogger(__name__)

_EVERY = 0.1  # events wait so long in the kernel: those of one entry by one process become one there
_PAUSE = 10.0  # without marks, after events came too fast
_MOST_ENTRIES = 20_000  # changed ones by name; beyond that only a walk says which
_MOST_DIRECTORIES = 65_536  # that are known by handle
#: Of one look: the kernel's queue holds 16,384, so more than this means that they come as fast as they are read.
_MOST_AT_ONCE = 50_000


@dataclass
class Changed:
    """Of one volume: ``entries`` are (directory, name) as ``fanotify`` gives them, or None: only a walk can tell.

    ``moved``: directories came from elsewhere, and what is in them changed before anybody heard of it.
    """

    entries: set[tuple[bytes, bytes]] | None = None
    moved: bool = False


@dataclass
class _Filesystem:
    root: int
    """A directory of it, for opening others by handle."""
    path: str
    volumes: set[str] = field(default_factory=set)
    marked: bool = False


class Changes:
    """For all volumes below ``root``. May be asked from any thread."""

    def __init__(self, root: Path) -> None:
        self._prefix = f"{os.path.realpath(root)}/"
        self._lock = threading.Lock()
        self._group: fanotify.Group | None = None
        self._filesystems: dict[bytes, _Filesystem] = {}
        self._watched: dict[str, Changed] = {}
        self._directories: dict[bytes, str] = {}
        self._thread: threading.Thread | None = None
        self._paused_until = 0.0
        self._refused = False

    def watch(self, volume_id: str, data: Path) -> None:
        """Hear of this volume from now on. What happened before is unknown."""
        with self._lock:
            if volume_id in self._watched or self._refused:
                return
            try:
                if self._group is None:
                    self._group = fanotify.Group()
                key = fanotify.filesystem(str(data))
                known = self._filesystems.get(key)
                if known is None:
                    known = self._filesystems[key] = _Filesystem(os.open(data, os.O_RDONLY | os.O_CLOEXEC), str(data))
                if not known.marked and time.monotonic() >= self._paused_until:
                    self._group.mark(known.path)
                    known.marked = True
            except OSError as error:
                log.info("changes of volumes are found by walking them: %s", error)
                self._refused = self._group is None
                return
            known.volumes.add(volume_id)
            self._watched[volume_id] = Changed()
            if self._thread is None:
                self._thread = threading.Thread(target=self._read_forever, name="volume-changes", daemon=True)
                self._thread.start()

    def unwatch(self, volume_id: str) -> None:
        """Nobody asks for this one any more."""
        with self._lock:
            self._watched.pop(volume_id, None)
            for key, one in list(self._filesystems.items()):
                one.volumes.discard(volume_id)
                if not one.volumes:
                    self._unmark(one)
                    os.close(one.root)
                    del self._filesystems[key]

    def take(self, volume_id: str) -> Changed:
        """What changed since the last ``take``, and begin anew."""
        with self._lock:
            self._read()
            found = self._watched.get(volume_id)
            if found is None:
                return Changed()
            # What follows is known only while somebody hears it.
            heard = any(one.marked for one in self._filesystems.values() if volume_id in one.volumes)
            self._watched[volume_id] = Changed(set() if heard else None)
            return found

    def give_back(self, volume_id: str, taken: Changed) -> None:
        """What was taken was of no use (a sync failed): it counts again."""
        with self._lock:
            now = self._watched.get(volume_id)
            if now is None or now.entries is None:
                return
            if taken.entries is None:
                now.entries = None
            else:
                now.entries |= taken.entries
                now.moved |= taken.moved

    def any(self, volume_id: str) -> bool | None:
        """Whether something changed since the last ``take``; None: unknown."""
        with self._lock:
            self._read()
            found = self._watched.get(volume_id)
            return None if found is None or found.entries is None else bool(found.entries)

    def opened(self, directory: bytes) -> int:
        """The directory of an entry, as a path only; for the caller to close. Raises OSError when it is gone."""
        with self._lock:
            one = self._filesystems.get(directory[:8])
            if one is None:
                raise FileNotFoundError(2, "its filesystem is not watched")
            return fanotify.open_directory(one.root, directory)

    def _read_forever(self) -> None:
        while True:
            time.sleep(_EVERY)
            with self._lock:
                if not self._watched:
                    self._thread = None
                    return
                self._read()

    def _read(self) -> None:
        group = self._group
        if group is None:
            return
        if self._paused_until and time.monotonic() >= self._paused_until:
            self._mark_again(group)
        count = 0
        for mask, directory, name in group.events():
            count += 1
            if mask & fanotify.OVERFLOW or count > _MOST_AT_ONCE:
                self._too_fast()
                return
            volume = self._directories.get(directory)
            if volume is None:
                volume = self._resolve(directory)
            if not volume or (not mask & fanotify.NAMES and self._is_nameless(directory, name)):
                continue
            if mask & fanotify.ON_DIRECTORY and mask & (fanotify.MOVED_FROM | fanotify.MOVED_TO):
                self._directories.clear()  # directories below it may have come into a volume, or left it
            found = self._watched.get(volume)
            if found is not None and found.entries is not None:
                if mask & fanotify.ON_DIRECTORY and mask & fanotify.MOVED_TO:
                    found.moved = True
                found.entries.add((directory, name))
                if len(found.entries) > _MOST_ENTRIES:
                    found.entries = None

    def _is_nameless(self, directory: bytes, name: bytes) -> bool:
        """Whether it was a file without a name (O_TMPFILE): the kernel calls them "#" and their number."""
        if not (name[:1] == b"#" and name[1:].isdigit()):
            return False
        one = self._filesystems.get(directory[:8])
        if one is None:
            return False
        try:
            fd = fanotify.open_directory(one.root, directory)
        except OSError:
            return False
        try:
            os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return True
        finally:
            os.close(fd)
        return False  # somebody really calls a file so

    def _resolve(self, directory: bytes) -> str:
        """Which volume it lies in; "" for none."""
        volume = ""
        one = self._filesystems.get(directory[:8])
        with contextlib.suppress(OSError):
            if one is not None:
                fd = fanotify.open_directory(one.root, directory)
                try:
                    volume = volume_of(os.readlink(f"/proc/self/fd/{fd}"), self._prefix)
                finally:
                    os.close(fd)
        if len(self._directories) >= _MOST_DIRECTORIES:
            self._directories.clear()
        self._directories[directory] = volume
        return volume

    def _too_fast(self) -> None:
        """Hear nothing for a while; all are unknown."""
        log.info("files of this machine change faster than is worth following: volumes are walked for some seconds")
        for one in self._filesystems.values():
            self._unmark(one)
        if self._group is not None:
            self._group.close()
            self._group = None
        with contextlib.suppress(OSError):
            self._group = fanotify.Group()
        for found in self._watched.values():
            found.entries = None
        self._paused_until = time.monotonic() + _PAUSE

    def _mark_again(self, group: fanotify.Group) -> None:
        self._paused_until = 0.0
        for one in self._filesystems.values():
            with contextlib.suppress(OSError):
                group.mark(one.path)
                one.marked = True

    def _unmark(self, one: _Filesystem) -> None:
        if one.marked and self._group is not None:
            with contextlib.suppress(OSError):
                self._group.unmark(one.path)
        one.marked = False


def volume_of(path: str, prefix: str) -> str:
    """The volume whose files are at ``path``, a directory; "" for every other one. Pure."""
    if not path.startswith(prefix):
        return ""
    volume, _, rest = path[len(prefix) :].partition("/")
    return volume if rest == "data" or rest.startswith("data/") else ""
