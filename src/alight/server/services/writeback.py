"""Large results on their way from memory to the disk, beside whoever waits for them.

A file that was just written is memory until the kernel writes it, some 30 seconds later, and stays memory after that.
So every large result would take new memory, which costs most: a virtual machine may have to get it from its host, ten
times slower than memory that was in use a moment ago. Here each result is written at once, and once somebody has read
it its memory is free for the next one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

log = logging.getLogger(__name__)

#: Seconds between looks at whether results have been read, and for how long each is looked at. Then the kernel decides.
_LOOK_AGAIN = 0.5
_PATIENCE = 30.0


class Writeback:
    """One file at a time, in a thread that nobody waits for: what it has not written when we end, the kernel writes."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Path] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, path: Path) -> None:
        """Write this file to the disk soon, and let go of its memory when it has been read."""
        self._queue.put(path)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="writeback", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        unread: list[tuple[float, Path]] = []
        look_at = 0.0
        while True:
            try:
                path = self._queue.get(timeout=_LOOK_AGAIN if unread else None)
            except Empty:
                pass
            else:
                if not (_write(path) and release(path)):
                    unread.append((time.monotonic() + _PATIENCE, path))
            now = time.monotonic()
            if now >= look_at:
                look_at = now + _LOOK_AGAIN
                unread = [(until, path) for until, path in unread if now < until and not release(path)]


def _write(path: Path) -> bool:
    """Whether the file is on disk, or gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError as error:
        log.warning("a result could not be opened to write it to the disk: %s", error)
        return False
    try:
        os.fdatasync(fd)
    except OSError as error:
        log.warning("a result could not be written to the disk: %s", error)
        return False
    finally:
        os.close(fd)
    return True


def release(path: Path) -> bool:
    """Let go of the memory of a file, as far as it is on disk, if it has been read since it was written.

    True: it has been, or the file is gone. Where the file system does not note when files are read, this is False.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        found = os.fstat(fd)
        if found.st_atime_ns <= found.st_mtime_ns:
            return False
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return True  # a file system without such a thing
    finally:
        os.close(fd)
    return True
