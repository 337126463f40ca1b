"""While the OCI runtime starts something, the kernel is kept ready for moves between control groups.

See ``cgroups.expecting_moves``: the kernel stays ready for about as long as it took to get there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from alight.node import cgroups

_EVERY, _SECONDS = 0.004, 0.2


class Starting:
    """How many starts are under way. Used from one event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._work: asyncio.Future[None] | None = None

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Around a start."""
        self._count += 1
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().run_in_executor(None, self._expect_moves)
        try:
            yield
        finally:
            self._count -= 1

    def _expect_moves(self) -> None:
        # In a thread of its own: each one waits for the kernel.
        until = time.monotonic() + _SECONDS
        with cgroups.expecting_moves() as expect_move:
            while self._count and time.monotonic() < until:
                expect_move()
                time.sleep(_EVERY)
