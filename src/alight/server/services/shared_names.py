"""Dicts and queues by name and id: found, made, listed, forgotten. What they hold is for ``dicts`` and ``queues``."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from alight.server.auth import CONTAINER, Principal
from alight.server.services.ephemeral import Ephemeral
from alight.store.base import Row, Statement, Store
from alight.wire import errors, ids
from alight.wire.shared import SharedEnsure, SharedInfo, SharedListed, SharedNamed

_KNOWN = 4096  # objects whose records are kept in memory


class SharedNames:
    """The names of one kind, "dict" or "queue". ``forget`` deletes what an object holds."""

    def __init__(self, kind: str, store: Store, ephemeral: Ephemeral, forget: Callable[[str], Awaitable[None]]) -> None:
        self.kind = kind
        self._prefix = ids.DICT if kind == "dict" else ids.QUEUE
        self._store = store
        self._ephemeral = ephemeral
        self._forget = forget
        self._known: dict[str, SharedInfo] = {}
        ephemeral.deleters[kind] = self.delete

    async def ensure(self, asked: SharedEnsure, environment: str, owner: str) -> SharedInfo:
        """The one of a name, or a new nameless one. Raises NotFoundError without ``create``, AlreadyExistsError with
        ``exclusive``.
        """
        ids.check_environment(environment)
        if asked.ephemeral:
            return await self._make(None, environment, owner)
        ids.check_name(asked.name, self.kind)
        row = await self._by_name(asked.name, environment)
        if row is None and not asked.create:
            raise self._unknown(asked.name, environment)
        if row is None:
            try:
                return await self._make(asked.name, environment, owner)
            except errors.AlreadyExistsError:  # somebody else made it meanwhile
                row = await self._by_name(asked.name, environment)
        if row is None:
            raise errors.ServiceError(f"the {self.kind} {asked.name!r} was deleted while it was made: try again")
        if asked.exclusive:
            raise errors.AlreadyExistsError(
                f"there is a {self.kind} {asked.name!r} in environment {environment!r} already",
                hint="choose another name, or use the one there is",
            )
        return self._remember(row)

    async def list(self, environment: str, limit: int) -> SharedListed:
        """The named ones of an environment, newest first."""
        rows = await self._store.read(
            "shared_in", kind=self.kind, environment=environment, limit=limit if limit > 0 else -1
        )
        return SharedListed(tuple(_info(row) for row in rows))

    async def named(self, asked: SharedNamed, environment: str) -> SharedInfo | None:
        """By name or id. Raises NotFoundError unless ``allow_missing``."""
        if asked.object_id:
            row = await self._store.one("shared_by_id", kind=self.kind, object_id=asked.object_id)
        else:
            row = await self._by_name(asked.name, environment)
        if row is not None:
            return self._remember(row)
        if asked.allow_missing:
            return None
        if asked.object_id:
            raise self.gone(asked.object_id)
        raise self._unknown(asked.name, environment)

    async def check(self, object_id: str, who: Principal) -> SharedInfo:
        """It exists, and they may use it. Raises NotFoundError, PermissionDeniedError."""
        info = self._known.get(object_id)
        if info is None:
            row = await self._store.one("shared_by_id", kind=self.kind, object_id=object_id)
            if row is None:
                raise self.gone(object_id)
            info = self._remember(row)
        self.check_environment(info, who)
        return info

    def is_known(self, object_id: str, who: Principal) -> bool:
        """``check`` where nothing has to be read. False says nothing. Raises PermissionDeniedError."""
        info = self._known.get(object_id)
        if info is None:
            return False
        self.check_environment(info, who)
        return True

    def check_environment(self, info: SharedInfo, who: Principal) -> None:
        """Raise PermissionDeniedError for code of another environment."""
        if who.kind == CONTAINER and info.environment != who.environment:
            raise errors.PermissionDeniedError(
                f"code in environment {who.environment!r} may not use a {self.kind} of another environment"
            )

    async def delete(self, object_id: str) -> None:
        """Forget one with all that it holds. Does not mind when it is gone."""
        self._known.pop(object_id, None)
        # The name first: what an unnamed one holds is found and removed later, should this process die in between.
        await self._store.write(
            [("shared_delete", {"object_id": object_id}), ("ephemeral_delete", {"object_id": object_id})]
        )
        self._known.pop(object_id, None)
        await self._forget(object_id)

    async def all_ids(self) -> set[str]:
        """Every one there is."""
        return {row["object_id"] for row in await self._store.read("shared_all", kind=self.kind)}

    def gone(self, object_id: str) -> errors.NotFoundError:
        """The error for one that is not there."""
        return errors.NotFoundError(
            f"there is no {self.kind} {object_id} (any more)", hint=f"`alight {self.kind} list` shows what there is"
        )

    async def _make(self, name: str | None, environment: str, owner: str) -> SharedInfo:
        row = {
            "object_id": ids.new_id(self._prefix),
            "kind": self.kind,
            "name": name,
            "environment": environment,
            "owner": owner,
            "now": time.time(),
        }
        statements: list[Statement] = [
            ("environment_add", {"name": environment, "owner": owner, "now": row["now"]}),
            ("shared_add", row),
        ]
        if name is None:
            statements.append(self._ephemeral.record(self.kind, str(row["object_id"]), environment, owner))
        await self._store.write(statements)
        return self._remember({**row, "created_at": row["now"]})

    async def _by_name(self, name: str, environment: str) -> Row | None:
        return await self._store.one("shared_by_name", kind=self.kind, environment=environment, name=name)

    def _remember(self, row: Row) -> SharedInfo:
        info = _info(row)
        if len(self._known) >= _KNOWN:
            self._known.pop(next(iter(self._known)))
        self._known[info.object_id] = info
        return info

    def _unknown(self, name: str, environment: str) -> errors.NotFoundError:
        noun = self.kind.capitalize()
        return errors.NotFoundError(
            f"there is no {self.kind} {name!r} in environment {environment!r}",
            hint=f"make it: `alight {self.kind} create {name}`, or {noun}.from_name(…, create_if_missing=True)",
        )


def _info(row: Row) -> SharedInfo:
    return SharedInfo(row["object_id"], row["name"] or "", row["environment"], row["created_at"], row["owner"])
