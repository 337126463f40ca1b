"""What volumes hold, counted once an hour: a GiB that lies there for an hour is a GiB-hour of its owner's."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

from alight.server.metering import STORAGE, Key
from alight.server.services.usage import Usage
from alight.store.base import Store
from alight.wire.stored import VolumeInfo, VolumeListed

log = logging.getLogger(__name__)
_HOUR = 3600
_SETTLED = 60.0  # seconds after a start: machines have joined by then
_MOST = 7 * 24  # hours that are made up for when no server ran: files lie there all the same
_GIB = 1 << 30


class Volumes(Protocol):
    """Who knows volumes and how large they are."""

    async def list(self, environment: str, limit: int) -> VolumeListed:
        """Named volumes."""

    async def measured(self, info: VolumeInfo) -> VolumeInfo:
        """With its size, where its machine says it."""


class StoredUsage:
    """Looks at volumes one after the other, so that nobody waits for it."""

    def __init__(self, store: Store, volumes: Volumes, usage: Usage) -> None:
        self._store = store
        self._volumes = volumes
        self._usage = usage
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._forever())

    def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    async def count(self, now: float) -> int:
        """Count the hours since the last time, if one has passed; how many volumes there are in it."""
        await self._usage.flush()
        hour = int(now // _HOUR)
        row = await self._store.one("usage_stored_last")
        last = row["hour"] if row is not None and row["hour"] is not None else hour - 1
        hours = min(hour - last, _MOST)
        if hours <= 0:
            return 0
        counted = 0
        for environment in await self._store.read("environments"):
            for one in (await self._volumes.list(environment["name"], 0)).volumes:
                size = (await self._volumes.measured(one)).size
                if size > 0:
                    key = Key(hour, one.volume_id, "", one.created_by, one.environment, STORAGE, "stored")
                    self._usage.meter.store(key, hours * size / _GIB)
                    counted += 1
        await self._usage.flush()
        return counted

    async def _forever(self) -> None:
        await asyncio.sleep(_SETTLED)
        while True:
            try:
                await self.count(time.time())
            except Exception:  # one volume that cannot be looked at must not end the count
                log.exception("what volumes hold could not be counted")
            await asyncio.sleep(_HOUR - time.time() % _HOUR + 1)
