"""Dicts and queues as one part of the server: their names, what they hold, and what is cleaned now and then."""

from __future__ import annotations

from alight.server.services.blobs import Blobs
from alight.server.services.dicts import Dicts
from alight.server.services.ephemeral import Ephemeral
from alight.server.services.queues import Queues
from alight.server.services.shared_names import SharedNames
from alight.server.services.shared_store import SharedStore
from alight.store.base import Store


class Shared:
    """Both kinds, and the database of what they hold."""

    def __init__(self, store: Store, shared: SharedStore, blobs: Blobs, ephemeral: Ephemeral) -> None:
        self.store = shared
        self.queues = Queues(shared)
        self.dicts = Dicts(shared, blobs, self.queues)
        self.dict_names = SharedNames("dict", store, ephemeral, self.dicts.delete)
        self.queue_names = SharedNames("queue", store, ephemeral, self.queues.delete)

    async def clean(self, now: float) -> None:
        """What has had its time goes."""
        if self.store.exists:
            await self.dicts.clean(now, await self.dict_names.all_ids())
            await self.queues.clean(now, await self.queue_names.all_ids())
