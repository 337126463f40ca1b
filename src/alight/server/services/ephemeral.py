"""Nameless objects that live while somebody wants them: whoever made one says so now and then (``keep``).

The object itself belongs to a service of its kind, which says how one is deleted (``deleters``) and puts ``record``
into the transaction that makes it. Who ends properly says so (``drop``); those of programs that died expire.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from alight.server.auth import CONTAINER, Principal
from alight.store.base import Statement, Store
from alight.wire import errors

log = logging.getLogger(__name__)
#: Seconds after the last word of its holder that an object lives: three heartbeats of 300 s.
PATIENCE = 900.0


class Ephemeral:
    """The nameless objects of a server, of all kinds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: How an object of each kind is deleted. Must not mind when it is gone already.
        self.deleters: dict[str, Callable[[str], Awaitable[None]]] = {}

    async def open(self) -> None:
        """Give the holders of all there are their time again: while the server was away none could say anything."""
        await self._store.write([("ephemerals_seen", {"now": time.time()})])

    def record(self, kind: str, object_id: str, environment: str, owner: str) -> Statement:
        """What belongs into the transaction that makes a nameless object."""
        row = {"object_id": object_id, "kind": kind, "environment": environment, "owner": owner, "now": time.time()}
        return "ephemeral_add", row

    async def keep(self, object_id: str, who: Principal) -> None:
        """It is still wanted. Raises NotFoundError when it is gone."""
        await self._find(object_id, who)
        await self._store.write([("ephemeral_seen", {"object_id": object_id, "now": time.time()})], urgent=False)

    async def drop(self, object_id: str, who: Principal) -> None:
        """It is not wanted any more. Raises NotFoundError when it is gone already."""
        await self._delete(await self._find(object_id, who), object_id)

    async def expire(self, now: float) -> None:
        """Delete what nobody has wanted for ``PATIENCE`` seconds."""
        for row in await self._store.read("ephemerals_unseen", before=now - PATIENCE):
            log.info("the nameless %s %s is deleted: its program has not been heard of", row["kind"], row["object_id"])
            try:
                await self._delete(row["kind"], row["object_id"])
            except errors.Error as error:
                log.warning("%s could not be deleted now: %s", row["object_id"], error)

    async def _find(self, object_id: str, who: Principal) -> str:
        """Its kind."""
        row = await self._store.one("ephemeral_by_id", object_id=object_id)
        if row is None:
            raise errors.NotFoundError(
                f"there is no nameless object {object_id} (any more)",
                hint="it lived as long as the block that made it",
            )
        if who.kind == CONTAINER and row["environment"] != who.environment:
            raise errors.PermissionDeniedError(
                f"code in environment {who.environment!r} may not use an object of another environment"
            )
        return str(row["kind"])

    async def _delete(self, kind: str, object_id: str) -> None:
        # The object first: dying in between leaves a word of it, and it is deleted again.
        delete = self.deleters.get(kind)
        if delete is not None:
            await delete(object_id)
        await self._store.write([("ephemeral_delete", {"object_id": object_id})])
