"""What has had its time goes: results after 7 days, their rows, ended containers and unused images after 30, logs by
age.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from alight.server.logs import Logs
from alight.server.services.blobs import Blobs
from alight.server.services.images import Images
from alight.server.settings import Settings
from alight.store.base import Store
from alight.wire import chunk, errors
from alight.wire.built import ImageWork

log = logging.getLogger(__name__)
_EVERY = 600.0
STARTS_KEPT = 1000  # of each function: what its statistics are made of
_AT_ONCE = 500  # calls in one transaction, so that others do not wait for long


class Janitor:
    """Cleans now and then, a first time when a server has settled."""

    def __init__(self, store: Store, blobs: Blobs, logs: Logs, images: Images, settings: Settings) -> None:
        self._store = store
        self._blobs = blobs
        self._logs = logs
        self._images = images
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        #: What other services have cleaned at the same times.
        self.more: list[Callable[[float], Awaitable[None]]] = []

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
        while await self._expire(before):
            continue
        await self._drop_arguments()
        await self._store.write([("calls_forget", {"before": now - self._settings.rows_kept})])
        await self._store.write([("containers_forget", {"before": now - self._settings.rows_kept})])
        await self._store.write([("starts_forget", {"before": now - self._settings.rows_kept})])
        await self._store.write([("starts_too_many", {"most": STARTS_KEPT})])
        await asyncio.to_thread(self._logs.sweep, now - self._settings.logs_kept, self._settings.logs_bytes)
        for clean in self.more:
            await clean(now)

    async def clear_images(self) -> None:
        """Images that nobody has used for long, or that are too many. While one is built it waits."""
        settings = self._settings
        asked = ImageWork("prune", older_than=settings.images_kept, most_bytes=settings.images_bytes)
        try:
            done = await self._images.work(asked)
        except errors.ConflictError as error:
            log.info("images are cleared up later: %s", error)
            return
        if done.images:
            log.info("removed %d images that were not used, %d bytes", len(done.images), done.freed)

    async def _expire(self, before: float) -> bool:
        """Results of some calls that were kept for their time. Whether there may be more."""
        calls = [row["call_id"] for row in await self._store.read("calls_expiring", before=before, limit=_AT_ONCE)]
        large = [row["body"] for one in calls for row in await self._store.read("outputs_large", call_id=one)]
        named = [{"call_id": one} for one in calls]
        if named:
            gone = ("outputs_drop", "chunks_of_call_drop", "call_expire")
            await self._store.write([(name, named) for name in gone], urgent=False)
        for body in large:
            self._blobs.let_go(chunk.read_reference(body)[0])
        return len(calls) == _AT_ONCE

    async def _drop_arguments(self) -> None:
        """Arguments of calls that ended with their app: it ended in one statement, however many they were."""
        while True:
            calls = [row["call_id"] for row in await self._store.read("chunks_left_over", limit=_AT_ONCE)]
            large = [row["body"] for one in calls for row in await self._store.read("chunks_references", call_id=one)]
            if calls:
                named = [{"call_id": one} for one in calls]
                await self._store.write([("chunks_of_call_drop", named), ("attempts_drop", named)], urgent=False)
            for body in large:
                self._blobs.let_go(chunk.read_reference(body)[0])
            if len(calls) < _AT_ONCE:
                return

    async def _forever(self) -> None:
        await asyncio.sleep(60.0)
        while True:
            try:
                await self.clean(time.time())
                await self.clear_images()
            except (errors.Error, OSError) as error:
                log.error("cleaning up failed: %s", error)
            await asyncio.sleep(_EVERY)
