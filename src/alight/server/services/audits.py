"""Who changed what at the dashboard: kept in the store, told in the system lines of the app."""

from __future__ import annotations

import time

from alight.server.auth import OWNER, Principal
from alight.server.services.hub import Hub
from alight.store.base import Statement, Store
from alight.wire.dashboard import AuditEntry, AuditListed
from alight.wire.messages import AppEvent

_KEPT = 90 * 86400.0
_MOST = 1000


class Audits:
    """Writes entries and shows them."""

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store = store
        self._hub = hub

    async def add(  # noqa: PLR0913  what an entry has
        self,
        who: str,
        action: str,
        target: str,
        detail: str = "",
        problem: str = "",
        *,
        app_id: str = "",
        owner: str = "",
    ) -> None:
        """Keep an entry; ``app_id`` and ``owner`` of what was changed, where it belongs to an app."""
        row = {"now": time.time(), "who": who, "action": action, "target": target, "detail": detail}
        added: Statement = ("audit_add", {**row, "app_owner": owner, "problem": problem})
        await self._store.write([added])
        if app_id and not problem:
            text = f"{who} at the dashboard: {action} {target}{f' ({detail})' if detail else ''}"
            self._hub.tell(app_id, AppEvent("system", text=text))

    async def list(self, limit: int, who: Principal) -> AuditListed:
        """Entries, newest first. A user sees their own and those about what is theirs."""
        owner = "" if who.kind == OWNER else who.owner
        rows = await self._store.read("audit_last", owner=owner, limit=max(1, min(limit, _MOST)))
        return AuditListed(tuple(AuditEntry(**row) for row in rows))

    async def forget(self, now: float) -> None:
        """Entries and sessions that have had their time."""
        await self._store.write(
            [("audit_forget", {"before": now - _KEPT}), ("web_sessions_over", {"now": now})], urgent=False
        )
