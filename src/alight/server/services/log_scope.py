"""Which logs a question means: from names and ids to containers, with the rights of whoever asks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from alight.server.auth import CONTAINER, OWNER, Principal
from alight.server.services.published import shown_name
from alight.store.base import Row, Store
from alight.wire import errors, ids
from alight.wire.logs import SOURCES, LogQuery

_MOST = 20_000  # containers that one question looks at, the newest
_AFTER = 5.0  # seconds after the end of a call or container in which its output may come
_SKEW = 60.0  # seconds that a machine's clock may be behind the server's
_FOR_EVER = 1e12


@dataclass(frozen=True, slots=True)
class Source:
    """One container's log, which has nothing before ``begins`` and nothing after ``ends`` (unix time)."""

    container_id: str
    function_id: str
    begins: float
    ends: float
    together: bool  # it runs several inputs at a time


@dataclass
class Scope:
    """What a question means. ``functions``: names by id; ``only``: ids that were asked for, none for all."""

    app_id: str
    functions: dict[str, str]
    together: frozenset[str]
    only: frozenset[str]
    since: float
    until: float
    container: str = ""
    call: str = ""
    sources: list[Source] = field(default_factory=list)

    def source(self, container_id: str, function_id: str, begins: float, ends: float | None) -> Source:
        """A log that belongs to it."""
        last = _FOR_EVER if ends is None else ends + _AFTER
        return Source(container_id, function_id, begins - _SKEW, last, function_id in self.together)

    def wants(self, container_id: str, function_id: str) -> bool:
        """Whether it means a container that has just begun to write."""
        if self.container:
            return container_id == self.container
        return not self.only or function_id in self.only

    def wants_words(self, said: dict[str, Any]) -> bool:
        """Whether it means a line of Alight's own."""
        if self.container and said.get("container") != self.container:
            return False
        if self.call and said.get("call") != self.call:
            return False
        if not self.only or said.get("function") in self.only:
            return True
        return said.get("function") in {self.functions.get(one) for one in self.only}


class Scopes:
    """Finds out."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, asked: LogQuery, environment: str, who: Principal) -> Scope:
        """Raises NotFoundError for what there is not, or is somebody else's; InvalidError for what makes no sense."""
        _check(asked)
        await self._store.flush()
        since, until = asked.since, asked.until or _FOR_EVER
        app_id, function_id = asked.app, asked.function
        if asked.call:
            call = await self._store.one("call_by_id", call_id=asked.call)
            if call is None:
                raise errors.NotFoundError(f"there is no call {asked.call}", hint="`alight call list` shows calls")
            app_id = self._same(app_id, call["app_id"])
            function_id = function_id or call["function_id"]
            since = max(since, call["created_at"] - 1.0)
            if call["done_at"] is not None:
                until = min(until, call["done_at"] + _AFTER)
        if asked.container:
            row = await self._store.one("log_container", container_id=asked.container)
            if row is None:
                raise errors.NotFoundError(
                    f"there is no container {asked.container}", hint="`alight container list --all` shows containers"
                )
            app_id = self._same(app_id, row["app_id"])
        if not app_id and ids.is_id(function_id, ids.FUNCTION):
            row = await self._store.one("log_function", function_id=function_id)
            app_id = row["app_id"] if row is not None else ""
            if row is None:
                raise errors.NotFoundError(f"there is no function {function_id}")
        app = await self._app(app_id, environment, who)
        rows = await self._store.read("log_functions", app_id=app["app_id"])
        scope = Scope(
            app["app_id"],
            {row["function_id"]: shown_name(row["name"]) for row in rows},
            frozenset(row["function_id"] for row in rows if _is_together(row)),
            _only(rows, function_id, str(app["name"])),
            since,
            until,
            asked.container,
            asked.call,
        )
        found = await self._store.read(
            "log_containers",
            app_id=scope.app_id,
            functions=json.dumps(sorted(scope.only)),
            container=asked.container,
            since=max(0.0, since - _SKEW),
            until=min(_FOR_EVER, until + _SKEW),
            limit=_MOST,
        )
        scope.sources = [
            scope.source(row["container_id"], row["function_id"], row["created_at"], row["ended_at"]) for row in found
        ]
        return scope

    def _same(self, named: str, app_id: str) -> str:
        """An id that says its app needs no name of it; one that is named must be the right one, if it is an id."""
        if ids.is_id(named, ids.APP) and named != app_id:
            raise errors.InvalidError(f"this is of another app: {app_id}, not {named}")
        return app_id

    async def _app(self, app: str, environment: str, who: Principal) -> Row:
        if not app:
            raise errors.InvalidError("logs of what?", hint="name an app, a function, a call or a container")
        owner = "" if who.kind == OWNER else who.owner
        by_id = ids.is_id(app, ids.APP)
        row = await self._store.one("log_app", app=app, environment="" if by_id else environment, owner=owner)
        if row is None or (who.kind == CONTAINER and row["environment"] != who.environment):
            raise errors.NotFoundError(f"there is no app {app!r}", hint="`alight app list` shows what there is")
        return row


def _check(asked: LogQuery) -> None:
    if asked.source and asked.source not in SOURCES:
        raise errors.InvalidError(f"there is no source {asked.source!r}", hint=f"it is one of {', '.join(SOURCES)}")
    for name, kind, given in (("call", ids.CALL, asked.call), ("container", ids.CONTAINER, asked.container)):
        if given and not ids.is_id(given, kind):
            raise errors.InvalidError(f"{given!r} is not the id of a {name}", hint=f"they look like {kind}-…")
    if asked.until and asked.since > asked.until:
        raise errors.InvalidError("these logs would end before they begin", hint="`since` must not be after `until`")


def _only(rows: list[Row], function: str, app: str) -> frozenset[str]:
    """The functions that are meant, with their variants; none for all."""
    if not function:
        return frozenset()
    for row in rows:
        if row["function_id"] == function:
            function = shown_name(row["name"])
    named = {function, f"{function}.*", f"{function.partition('.')[0]}.*"}
    found = frozenset(row["function_id"] for row in rows if shown_name(row["name"]) in named)
    if not found:
        there = sorted({shown_name(row["name"]).removesuffix(".*") for row in rows})
        raise errors.NotFoundError(
            f"{app} has no function {function!r}", hint=f"it has {', '.join(there)}" if there else None
        )
    return found


def _is_together(row: Row) -> bool:
    scaling = json.loads(row["spec"]).get("autoscaling", {})
    return int(scaling.get("max_concurrent_inputs", 1)) > 1 or int(scaling.get("batch_size", 0)) > 0
