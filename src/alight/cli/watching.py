"""Changes of files, told in the moment that they are saved. Of directories only the ones that are asked for."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable, Dict, Optional, Set, Tuple

_QUIET_MS = 50  # a save that comes in pieces is over when nothing came for so long
_LONGEST_MS = 400  # and is told after this long in any case

_AWAY_SECONDS = 0.5  # a file that is away for so long is not being saved, but gone

Mark = Optional[Tuple[int, int]]


class Watcher:
    """Watches files, and directories for new ones. ``changed`` hears of paths, in a thread of its own."""

    def __init__(self, changed: Callable[[Set[str]], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._files: Dict[str, Mark] = {}
        self._folders: Set[str] = set()
        self._places: Set[str] = set()
        self._away: Dict[str, float] = {}  # watched files that are not there, and since when
        self._stop: Optional[threading.Event] = None

    def watch(self, files: Set[str], folders: Set[str], *, anew: bool) -> None:
        """Watch these from now on: beside those before, or with ``anew`` in their place."""
        with self._lock:
            if anew:
                self._files = {path: self._files.get(path, _mark(path)) for path in files}
                self._folders = set(folders)
            else:
                for path in files:
                    self._files.setdefault(path, _mark(path))
                self._folders |= folders
            places = {os.path.dirname(path) for path in self._files} | self._folders
            places = {place for place in places if os.path.isdir(place)}
            if places == self._places and self._stop is not None:
                return
            self._places = places
            if self._stop is not None:
                self._stop.set()
            self._stop = threading.Event()
            threading.Thread(
                target=self._forever, args=(places, self._stop), daemon=True, name="alight-watcher"
            ).start()

    def close(self) -> None:
        """Watch no more."""
        with self._lock:
            if self._stop is not None:
                self._stop.set()

    def _forever(self, places: Set[str], stop: threading.Event) -> None:
        import watchfiles  # noqa: PLC0415  only who watches

        ignored, began = watchfiles.DefaultFilter(), False
        for changes in watchfiles.watch(
            *sorted(places),
            watch_filter=ignored,
            debounce=_LONGEST_MS,
            step=_QUIET_MS,
            stop_event=stop,
            rust_timeout=500,
            raise_interrupt=False,
            recursive=False,
            yield_on_timeout=True,
        ):
            if stop.is_set():
                return
            paths = {path for _, path in changes}
            if not began:  # what changed while one watch gave way to another was seen by neither
                began = True
                paths |= set(self._files)
            found = self._counting(paths)
            if found:
                self._changed(found)

    def _counting(self, paths: Set[str]) -> Set[str]:
        """Those that count: watched files that are different, and what is new in a directory that is watched."""
        found = set()
        with self._lock:
            for path in paths:
                mark = _mark(path)
                if path in self._files:
                    if mark is None and self._files[path] is not None:
                        self._away.setdefault(path, time.monotonic())
                    elif mark is not None and mark != self._files[path]:
                        self._files[path] = mark
                        found.add(path)
                elif os.path.dirname(path) in self._folders and mark is not None:
                    self._files[path] = mark
                    found.add(path)
            for path, since in list(self._away.items()):
                if _mark(path) is not None or path not in self._files:
                    del self._away[path]
                elif time.monotonic() - since > _AWAY_SECONDS:
                    del self._away[path]
                    self._files[path] = None
                    found.add(path)
        return found


def _mark(path: str) -> Mark:
    """What tells that a file is another one; None for one that is not there, as in the middle of a save."""
    try:
        status: Any = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
