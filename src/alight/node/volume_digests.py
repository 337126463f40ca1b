"""SHA-256 of files in volumes, remembered as long as the kernel says that they are the same."""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict

_REMEMBERED = 50_000
_PIECE = 4 << 20
#: A file that changed within this many seconds may change again without its time saying so.
_TICK = 0.05


class Digests:
    """Asked by threads. What is remembered is lost with the process, and costs one reading more."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int, int, int, int], str] = OrderedDict()

    def of(self, fd: int) -> str:
        """The digest of an open file's bytes; "" when it changes meanwhile."""
        begun = time.time()
        before = os.fstat(fd)
        key = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
        found = self._known.get(key)
        if found is not None:
            return found
        running = hashlib.sha256()
        offset = 0
        while piece := os.pread(fd, _PIECE, offset):
            running.update(piece)
            offset += len(piece)
        after = os.fstat(fd)
        if (after.st_mtime_ns, after.st_ctime_ns, after.st_size) != (key[3], key[4], offset):
            return ""
        digest = running.hexdigest()
        if begun - before.st_ctime > _TICK:
            self._known[key] = digest
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return digest
