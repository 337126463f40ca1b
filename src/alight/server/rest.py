"""What can be read over HTTP, as JSON: the same answers that the command line gets, with the same rights.

Over the local socket the kernel says who asks; over TCP a token does: ``Authorization: Bearer TOKEN_ID:TOKEN_SECRET``.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Optional
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from alight.server import auth, permissions
from alight.server.auth import Principal
from alight.server.routes.containers import check, whose
from alight.server.services.container_views import ContainerViews
from alight.server.services.tokens import Tokens
from alight.wire import errors
from alight.wire.starts import AppStats, ContainerDetails, ContainerList

_ROOT = "/api/v1/"
_STATUS = {"not_found": 404, "auth": 401, "permission_denied": 403, "invalid": 400, "unimplemented": 404}
_encode = msgspec.json.encode

Answer = tuple[int, bytes]


class Api:
    """Answers one request after the other; keeps nothing."""

    def __init__(self, views: ContainerViews, tokens: Tokens) -> None:
        self._views = views
        self._tokens = tokens

    async def get(self, target: str, headers: Mapping[str, str], uid: Optional[int]) -> Answer:
        """Status and JSON of a path. ``uid`` is who asks over the local socket."""
        try:
            who = await self._who(headers, uid)
            return 200, await self._found(who, target)
        except errors.Error as error:
            return _STATUS.get(error.code, 500), _encode({"error": errors.to_wire(error)})

    async def _found(self, who: Principal, target: str) -> bytes:
        url = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        parts = [unquote(part) for part in url.path.removeprefix(_ROOT).split("/")]
        answer: Callable[[], Awaitable[Any]]
        if parts == ["containers"]:
            method, answer = "container.list", lambda: self._containers(who, query)
        elif len(parts) == 2 and parts[0] == "containers":
            method, answer = "container.show", lambda: self._container(who, parts[1])
        elif len(parts) == 3 and parts[0] == "apps" and parts[2] == "stats":
            asked = AppStats(parts[1], query.get("environment", ""), _number(query, "since"))
            method, answer = "app.stats", lambda: self._views.stats(asked, whose(who))
        else:
            raise errors.NotFoundError(
                f"there is nothing at {url.path}",
                hint=f"{_ROOT}containers, {_ROOT}containers/ID and {_ROOT}apps/APP/stats are there",
            )
        permissions.check(who, method)
        return _encode(await answer())

    async def _containers(self, who: Principal, query: Mapping[str, str]) -> Any:
        asked = ContainerList(
            query.get("environment", ""),
            query.get("app", ""),
            query.get("all", "") not in ("", "0", "false"),
            int(_number(query, "limit", 100)),
        )
        return await self._views.listed(asked, whose(who))

    async def _container(self, who: Principal, container_id: str) -> ContainerDetails:
        row = await self._views.row(container_id)
        check(who, row)
        return self._views.show(row)

    async def _who(self, headers: Mapping[str, str], uid: Optional[int]) -> Principal:
        if uid is not None:
            return auth.by_uid(uid)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        token_id, _, secret = given.strip().partition(":")
        if scheme.lower() != "bearer" or not token_id:
            raise errors.AuthError(
                "this needs a token",
                hint="send `Authorization: Bearer TOKEN_ID:TOKEN_SECRET`; `alight token new` makes one",
            )
        return auth.by_secret(await self._tokens.find(token_id, time.time()), token_id, secret)


def _number(query: Mapping[str, str], name: str, default: float = 0.0) -> float:
    text = query.get(name, "")
    try:
        return float(text) if text else default
    except ValueError:
        raise errors.InvalidError(f"{name}={text!r} is no number") from None
