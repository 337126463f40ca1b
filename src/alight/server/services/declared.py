"""What functions were declared with, and their variants, as people look at them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from alight.server.services.functions import Functions
from alight.server.services.published import scaled_spec, shown_name
from alight.store.base import Row, Store
from alight.wire.codec import to_plain
from alight.wire.measures import FunctionDeclared, Variant, VariantsListed
from alight.wire.messages import FunctionStats

_HIDDEN = ("env", "parameters", "serialized", "files", "kept")


class Declared:
    """Looks, and changes nothing."""

    def __init__(self, store: Store, functions: Functions, now_of: Callable[[str], FunctionStats]) -> None:
        self._store = store
        self._functions = functions
        self._now_of = now_of

    async def show(self, row: Row) -> FunctionDeclared:
        """One function, of a stopped app too."""
        published = self._functions.by_id.get(row["function_id"])
        spec: dict[str, Any] = json.loads(row["spec"])
        scaling = dict(spec.get("autoscaling") or {})
        urls: tuple[str, ...] = ()
        if published is not None:
            spec = to_plain(published.spec)
            scaling = to_plain(scaled_spec(published.spec, published.scaled).autoscaling)
            urls = tuple(one.url for one in self._functions.urls(published))
        spec["env_names"] = sorted(spec.get("env") or {})
        volumes = {}
        for mount in spec.get("volumes") or ():
            found = await self._store.one("volume_by_id", volume_id=mount["volume_id"])
            if found is not None and found["name"]:
                volumes[mount["volume_id"]] = found["name"]
        for name in _HIDDEN:
            spec.pop(name, None)
        return FunctionDeclared(
            row["function_id"],
            shown_name(row["name"], "").removesuffix(".*"),
            row["app_id"],
            row["app"] or "",
            row["environment"],
            row["state"],
            spec,
            scaling,
            urls,
            volumes,
        )

    def variants(self, rows: Sequence[Row], limit: int) -> VariantsListed:
        """A function's variants, the function itself first."""
        return VariantsListed(tuple(self._variant(row) for row in rows[:limit]), len(rows) > limit)

    def _variant(self, row: Row) -> Variant:
        published = self._functions.by_id.get(row["function_id"])
        now = self._now_of(row["function_id"]) if published is not None else FunctionStats()
        kept = json.loads(row["spec"]).get("kept") or {}
        changes = {name: value for name, value in (kept.get("changes") or {}).items() if name not in _HIDDEN}
        changes.update(kept.get("given") or {})
        return Variant(
            row["function_id"], row["name"], row["created_at"], now.containers, now.backlog, now.running, changes
        )
