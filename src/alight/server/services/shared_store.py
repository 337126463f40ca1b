"""The database of what dicts and queues hold: opened at its first use, since most servers have neither."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from alight.store import SqliteStore, open_store

#: Seconds that the answer of a request is kept for a caller who asks again: longer than a client tries.
KEPT = 600.0


class SharedStore:
    """One store, opened once, for both services."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._opening: asyncio.Future[SqliteStore] | None = None

    async def get(self) -> SqliteStore:
        """The store. Raises what opening it raised; the next one tries again."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(open_store(self.path, "shared"))
        try:
            return await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._opening = None
            raise

    @property
    def opened(self) -> SqliteStore | None:
        """The store, when it is open already."""
        opening = self._opening
        if opening is None or not opening.done() or opening.cancelled() or opening.exception() is not None:
            return None
        return opening.result()

    @property
    def exists(self) -> bool:
        """Whether there is anything to look after."""
        return self._opening is not None or Path(self.path).exists()

    async def expire(self, now: float | None = None) -> None:
        """Forget the answers that nobody has asked for again."""
        before = (time.time() if now is None else now) - KEPT
        await (await self.get()).write([("shared_requests_old", {"before": before})], urgent=False)

    async def close(self) -> None:
        """Flush and let go of the file."""
        if self._opening is not None:
            await (await self._opening).close()
            self._opening = None
