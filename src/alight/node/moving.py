"""One byte that spawner and agent share: is output on its way from a pipe to its file just now?

What a container printed is in a pipe, in the spawner's hands, or in ``output.log``. The runtime sees its pipes, the
agent sees the file; with this byte both together know that nothing is in between, without asking the spawner.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path


class Moving:
    """The byte, of one home. The spawner writes it, agents read it; it starts as "no" with each spawner."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(fd, 1)
            self._map = mmap.mmap(fd, 1)
        finally:
            os.close(fd)

    def begin(self) -> None:
        """Before a pipe is read."""
        self._map[0] = 1

    def end(self) -> None:
        """After what was read is in its file, or lost."""
        self._map[0] = 0

    def close(self) -> None:
        self._map.close()

    @property
    def is_on(self) -> bool:
        return self._map[0] != 0


def path_of(home: Path) -> Path:
    """Where a home's byte lies."""
    return home / "run" / "moving"
