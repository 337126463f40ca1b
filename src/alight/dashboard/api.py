"""The JSON API: one path, one answer, the same for a page of the dashboard and for a program with a token.

Who asks is known here; that a browser's request came from our own pages was seen to before (``site``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from alight.dashboard import guard, streams
from alight.dashboard.doing import DOING, Change
from alight.dashboard.reading import READING, Asked
from alight.dashboard.seams import Ask, Said
from alight.wire import errors

log = logging.getLogger(__name__)
ROOT = "/api/v1/"
T = TypeVar("T")
#: Who, what was done, to what, how it was asked for, what kept it from being done.
Audit = Callable[[Any, str, str, str, str], Awaitable[None]]
_STATUS = {
    "not_found": 404,
    "auth": 401,
    "permission_denied": 403,
    "invalid": 400,
    "conflict": 409,
    "already_exists": 409,
    "output_expired": 410,
    "unimplemented": 404,
    "service": 503,
    "connection": 503,
    "timeout": 504,
    "resource_exhausted": 507,
}


class Api:
    """Answers one request after the other; keeps nothing."""

    def __init__(self, ask: Ask, audit: Audit) -> None:
        self._ask = ask
        self._audit = audit

    async def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes, who: Any) -> Said:
        """Status, header fields and body. Never raises what is the asker's doing."""
        try:
            return await self._answer(method, target, headers, body, who)
        except errors.Error as error:
            return problem(error)
        except Exception:  # one of the four loops: a fault in one answer ends that request alone
            fault = os.urandom(4).hex()
            log.exception("fault %s at %s %s", fault, method, target.partition("?")[0])
            return said(500, {"error": {"code": "internal", "message": f"the server failed at this (fault {fault})"}})

    async def _answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes, who: Any) -> Said:
        parts, query = taken_apart(target)
        if method in {"GET", "HEAD"}:
            return await self._read(parts, query, headers, who)
        if method != "POST":
            return refused("GET, HEAD, POST")
        action, names = _find(DOING, parts)
        if action is None:
            reader, _ = _find(READING, parts)
            if reader is not None:
                return refused("GET, HEAD")
            raise errors.NotFoundError(f"there is nothing to do at {ROOT}{'/'.join(parts)}"[:200])
        change = Change(who, self._ask, object_of(body, headers), names)
        target_id, detail = action.target(change), action.detail(change)
        try:
            done = await action.do(change)
        except errors.Error as error:
            await self._audit(who, action.word, target_id, detail, error.message)
            raise
        await self._audit(who, action.word, target_id, detail, "")
        return said(200, {"done": done.said, **done.more})

    async def _read(
        self, parts: tuple[str, ...], query: Mapping[str, str], headers: Mapping[str, str], who: Any
    ) -> Said:
        if parts == ("logs",):
            return await streams.logs(Asked(who, self._ask, query), headers)
        if len(parts) == 3 and (parts[0], parts[2]) == ("volumes", "download"):
            return await streams.download(Asked(who, self._ask, query, (parts[1],)))
        reader, names = _find(READING, parts)
        if reader is None:
            raise errors.NotFoundError(
                f"there is nothing at {ROOT}{'/'.join(parts)}"[:200], hint="docs/dashboard.md lists what there is"
            )
        return said(200, await reader(Asked(who, self._ask, query, names)))


def taken_apart(target: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The parts of a path below ``ROOT``, and its query; the last of several words of a name counts."""
    try:
        url = urlsplit(target)
        parts = tuple(unquote(part, errors="strict") for part in url.path.removeprefix(ROOT).split("/"))
        query = dict(parse_qsl(url.query, keep_blank_values=True, max_num_fields=50, errors="strict"))
    except ValueError:
        raise errors.InvalidError("the address cannot be read") from None
    return parts, query


def said(status: int, value: Any, **more: str) -> Said:
    """An answer in JSON."""
    return status, {**guard.fields("application/json"), **more}, msgspec.json.encode(value) + b"\n"


def problem(error: errors.Error) -> Said:
    """An error as an answer."""
    status = _STATUS.get(error.code, 500)
    status_, fields, body = said(status, {"error": errors.to_wire(error)})
    return status_, {**fields, "www-authenticate": "Bearer"} if status == 401 else fields, body


def refused(allowed: str) -> Said:
    """The method is none that is answered at this path."""
    words = {"code": "invalid", "message": f"{allowed} is what is answered here"}
    return said(405, {"error": words}, allow=allowed)


def _find(table: Mapping[tuple[str, ...], T], parts: tuple[str, ...]) -> tuple[T | None, tuple[str, ...]]:
    """What a path means, and what stands where its pattern has a name."""
    for pattern, found in table.items():
        if len(pattern) == len(parts) and all(one in {"*", part} for one, part in zip(pattern, parts, strict=True)):
            names = tuple(part for one, part in zip(pattern, parts, strict=True) if one == "*")
            if all(names):
                return found, names
    return None, ()


def object_of(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """The body as an object. Raises InvalidError.

    Its type must be stated: a form on another page could send the same bytes, but not say so.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise errors.InvalidError("a body is JSON here, and says so: Content-Type: application/json")
    try:
        value = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, RecursionError):
        raise errors.InvalidError("the body cannot be read as JSON") from None
    if not isinstance(value, dict):
        raise errors.InvalidError("the body is an object")
    return value
