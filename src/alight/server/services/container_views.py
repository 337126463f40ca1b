"""Containers as people look at them, and where their starts went. Looks and changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from alight.server.services import remedy
from alight.server.services.published import shown_name
from alight.store.base import Row, Store
from alight.wire import errors
from alight.wire.starts import (
    STAGES,
    AppStarts,
    AppStats,
    ContainerDetails,
    ContainerList,
    ContainerListed,
    ContainerSummary,
    FunctionStarts,
    Stage,
    StageStats,
    Start,
)
from alight.wire.states import ContainerState

_MOST = 10_000  # containers in one answer
_NAMESAKES = 200  # apps of one name that are looked at, the newest
_STARTS = 1000  # of one function that statistics are made of, the newest


class Alive(Protocol):
    """What is known of a container before it is written down."""

    def state_of(self, container_id: str) -> str | None:
        """Its state, None for one that is not there any more."""
        ...

    def usage_of(self, container_id: str) -> Mapping[str, float]:
        """What its machine last said that it uses."""
        ...


class ContainerViews:
    """Looks at containers."""

    def __init__(self, store: Store, alive: Alive) -> None:
        self._store = store
        self._alive = alive

    async def listed(self, asked: ContainerList, owner: str) -> ContainerListed:
        """Containers, the newest first. ``owner`` "" means everybody's."""
        limit = max(1, min(asked.limit, _MOST))
        await self._store.flush()  # one that starts just now is to be seen
        rows = await self._store.read(
            "containers_recent",
            environment=asked.environment,
            owner=owner,
            app=asked.app,
            ended=int(asked.ended),
            limit=limit + 1,
        )
        return ContainerListed(tuple(self.summary(row) for row in rows[:limit]), len(rows) > limit)

    async def row(self, container_id: str) -> Row:
        """What the store has of a container. Raises NotFoundError."""
        await self._store.flush()
        row = await self._store.one("container_shown", container_id=container_id)
        if row is None:
            raise errors.NotFoundError(
                f"there is no container {container_id}",
                hint="`alight container list --all` shows those that have ended, too, for 30 days",
            )
        return row

    def show(self, row: Row) -> ContainerDetails:
        """A container, and where its start went."""
        if row["stages"] is None:
            return ContainerDetails(self.summary(row))
        facts = json.loads(row["facts"])
        stages = json.loads(row["stages"])
        start = Start(
            tuple(Stage(name, stages[name]) for name in in_order(stages)),
            row["reached"],
            tuple((str(name), float(seconds)) for name, seconds in facts.get("imports", ())),
            tuple(facts.get("refused", ())),
            bool(facts.get("built")),
            str(facts.get("waited", "")),
            () if row["total"] is None and row["ended_at"] else remedy.remedies(_facts(row)),
            tuple(str(note) for note in facts.get("gpus", ())),
        )
        return ContainerDetails(self.summary(row), start)

    def summary(self, row: Row) -> ContainerSummary:
        """A row, with what is known of it now."""
        name = row["container_id"]
        state = row["state"]
        if state != ContainerState.ENDED:
            state = self._alive.state_of(name) or state
        return ContainerSummary(
            name,
            row["app_id"],
            row["app"] or "",
            row["function_id"],
            shown_name(row["function"] or row["function_id"], ""),
            row["node_id"],
            row["hostname"] or row["node_id"],
            state,
            row["created_at"],
            row["ended_at"],
            row["why"],
            row["exit_code"],
            row["signal"],
            row["how"] or "",
            row["level"] or 0,
            row["total"],
            row["memory"],
            tuple(json.loads(row["gpus"])),
            {} if state == ContainerState.ENDED else dict(self._alive.usage_of(name)),
        )

    async def stats(self, asked: AppStats, owner: str) -> AppStarts:
        """How the containers of an app started, function by function. ``owner`` "" means everybody's.

        A name stands for all apps that have it: each run of a script is an app of its own. Raises NotFoundError.
        """
        await self._store.flush()
        apps = await self._store.read(
            "apps_recent", environment=asked.environment, owner=owner, name_or_id=asked.app, limit=_NAMESAKES
        )
        if not apps:
            raise errors.NotFoundError(f"there is no app {asked.app!r}", hint="`alight app list` shows what there is")
        named = json.dumps([row["app_id"] for row in apps])
        functions: dict[str, list[Row]] = {}
        for row in await self._store.read("starts_of_apps", apps=named, since=asked.since, limit=_MOST):
            functions.setdefault(shown_name(row["function"], ""), []).append(row)
        found = tuple(_of_function(name, functions[name][:_STARTS]) for name in sorted(functions))
        return AppStarts(apps[0]["app_id"], apps[0]["name"] or apps[0]["description"], len(apps), found)


def in_order(stages: Mapping[str, Any]) -> list[str]:
    """The names of stages as they pass; those that this version does not know come last."""
    known = [name for name in STAGES if name in stages]
    return known + sorted(name for name in stages if name not in STAGES)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all are not above: one that occurred. ``values`` are sorted, and some."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _of_function(name: str, rows: Sequence[Row]) -> FunctionStarts:
    """``rows`` are its starts, the newest first, and there are some."""
    function_id = rows[0]["function_id"]
    done = [row for row in rows if row["total"] is not None]
    failed = sum(row["total"] is None and row["ended"] for row in rows)
    if not done:
        return FunctionStarts(name, function_id, len(rows), failed)
    seconds: dict[str, list[float]] = {}
    how: dict[str, int] = {}
    for row in done:
        how[row["how"]] = how.get(row["how"], 0) + 1
        for stage, took in json.loads(row["stages"]).items():
            seconds.setdefault(stage, []).append(took)
    stages = [_stage(stage, seconds[stage]) for stage in in_order(seconds)]
    stages.append(_stage("total", [row["total"] for row in done]))
    slowest = max(done, key=lambda row: float(row["total"]))
    return FunctionStarts(
        name,
        function_id,
        len(rows),
        failed,
        how,
        tuple(stages),
        slowest["total"],
        slowest["container_id"],
        remedy.remedies(_facts(slowest)),
    )


def _stage(name: str, seconds: list[float]) -> StageStats:
    seconds.sort()
    return StageStats(
        name, len(seconds), percentile(seconds, 0.5), percentile(seconds, 0.95), percentile(seconds, 0.99)
    )


def _facts(row: Row) -> remedy.Facts:
    facts = json.loads(row["facts"])
    declared = json.loads(row["spec"]) if row["spec"] else {}
    return remedy.Facts(
        json.loads(row["stages"]),
        row["level"],
        tuple((str(name), float(seconds)) for name, seconds in facts.get("imports", ())),
        tuple(facts.get("refused", ())),
        bool(facts.get("built")),
        str(facts.get("waited", "")),
        bool(declared.get("enable_memory_snapshot")),
        str(declared.get("module", "")),
    )
