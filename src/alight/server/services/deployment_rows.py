"""Versions of apps as the store keeps them: made of what somebody wishes for, and read for people. Pure."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from alight.server.auth import Principal
from alight.server.services.apps import App
from alight.store.base import Row, Statement
from alight.wire.codec import to_plain
from alight.wire.deploying import DeployVersion
from alight.wire.spec import FunctionSpec


@dataclass
class Wish:
    """One version to be made."""

    app: App
    who: Principal
    name: str
    specs: tuple[FunctionSpec, ...]
    strategy: str
    tags: dict[str, str] | None = None
    row: dict[str, Any] = field(default_factory=dict)
    renew: bool = False  # fresh containers, and no new version


def rows_of(wish: Wish, number: int, tags: dict[str, str]) -> list[Statement]:
    """How the store keeps a version that serves from now on."""
    now = {"now": time.time(), "who": wish.who.owner, "app_id": wish.app.app_id, "version": number}
    return [("app_deploy", {**now, "name": wish.name, "tags": json.dumps(tags)}), row_of(wish, number, tags)]


def row_of(wish: Wish, number: int, tags: dict[str, str], *, staged: bool = False) -> Statement:
    """One more version in an app's history."""
    row = {
        **wish.row,
        "now": time.time(),
        "who": wish.who.owner,
        "app_id": wish.app.app_id,
        "version": number,
        "specs": json.dumps([to_plain(spec) for spec in wish.specs]),
        "tags": json.dumps(tags),
        "strategy": wish.strategy,
        "staged": int(staged),
    }
    return "deployment_add", row


def version_of(row: Row) -> DeployVersion:
    """One of them as people see it."""
    return DeployVersion(
        row["version"],
        row["deployed_at"],
        row["deployed_by"],
        row["tag"],
        row["git_commit"],
        bool(row["dirty"]),
        row["client"],
        row["strategy"],
        row["origin"],
        row["failed"],
        bool(row["kept"]),
        bool(row["staged"]),
    )
