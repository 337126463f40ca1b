"""What has had its time goes: results after 7 days, their rows and ended containers after 30, logs by age."""

from __future__ import annotations

import asyncio
import logging
import time

from alight.server.logs import Logs
from alight.server.services.blobs import Blobs
from alight.server.settings import Settings
from alight.store.base import Store
from alight.wire import errors

log = logging.getLogger(__name__)
_EVERY = 600.0


class Janitor:
    """Cleans now and then, a first time when a server has settled."""

    def __init__(self, store: Store, blobs: Blobs, logs: Logs, settings: Settings) -> None:
        self._store = store
        self._blobs = blobs
        self._logs = logs
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._forever())

    def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    async def clean(self, now: float) -> None:
        """Clean once."""
        before = now - self._settings.results_kept
        large = await self._store.read("results_expiring", before=before)
        await self._store.write([("results_expire", {"before": before})])
        for row in large:
            self._blobs.let_go(row["result_blob"])
        await self._store.write([("inputs_forget", {"before": now - self._settings.rows_kept})])
        await self._store.write([("containers_forget", {"before": now - self._settings.rows_kept})])
        await asyncio.to_thread(self._logs.sweep, now - self._settings.logs_kept)

    async def _forever(self) -> None:
        await asyncio.sleep(60.0)
        while True:
            try:
                await self.clean(time.time())
            except (errors.Error, OSError) as error:
                log.error("cleaning up failed: %s", error)
            await asyncio.sleep(_EVERY)
