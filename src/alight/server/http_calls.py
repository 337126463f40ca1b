"""Functions for programs without Python: JSON over HTTP, with tokens and never with cookies.

    POST /v1/apps/APP/functions/FUNCTION/call      {"args": […], "kwargs": {…}} → {"call_id": …, "value": …}
    GET  /v1/calls/CALL_ID                         the same answer, later
    GET  /v1/openapi.json                          what there is, for programs and people

Who asks shows ``Authorization: Bearer wk-….ws-…``, a token of scope ``call:APP``, or a client's ``ak-…:as-…``.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional
from urllib.parse import parse_qs, unquote, urlsplit

from alight.server import auth
from alight.server.auth import Principal
from alight.server.http_calls_openapi import DOCUMENT
from alight.server.services.access import ProxyTokens
from alight.server.services.json_calls import Ended, JsonCalls
from alight.server.services.tokens import Tokens
from alight.wire import errors
from alight.wire.calling import CallUpdate
from alight.wire.codec import MAX_INLINE
from alight.wire.states import ResultStatus
from alight.wire.version import __version__

log = logging.getLogger(__name__)

PREFIX = "/v1/"
BODY_MOST = MAX_INLINE
_STATUS = {
    "not_found": 404,
    "auth": 401,
    "permission_denied": 403,
    "invalid": 400,
    "conflict": 409,
    "output_expired": 410,
    "resource_exhausted": 507,
    "timeout": 504,
}
_OF_RESULT = {
    ResultStatus.EXCEPTION: 500,
    ResultStatus.INIT_FAILURE: 500,
    ResultStatus.TIMEOUT: 504,
    ResultStatus.CANCELLED: 409,
    ResultStatus.IMPOSSIBLE: 503,
}
_LONGEST = 86400.0

#: Status, header fields, body.
Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class _Caller:
    """Who asks; ``scope``: app and environment, where the token is for one app alone."""

    who: Principal
    scope: tuple[str, str] | None = None


@dataclass(frozen=True)
class _Sent:
    headers: Mapping[str, str]
    body: bytes


class HttpCalls:
    """Answers requests whose path begins with ``PREFIX``."""

    def __init__(self, calls: JsonCalls, access: ProxyTokens, tokens: Tokens) -> None:
        self._calls = calls
        self._access = access
        self._tokens = tokens

    async def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, uid: Optional[int] = None
    ) -> Answer:
        """``headers`` by names in lower case; ``uid``: who asks over the local socket."""
        try:
            return await self._answer(method, target, headers, body, uid)
        except errors.Error as error:
            status = _STATUS.get(error.code, 500)
            more = {"www-authenticate": "Bearer"} if status == 401 else {}
            return _said(status, {"error": errors.to_wire(error)}, more)
        except Exception:  # one of the four loops: a fault in one answer ends that request alone
            fault = os.urandom(4).hex()
            log.exception("fault %s at %s %s", fault, method, target.partition("?")[0])
            return _said(500, {"error": {"code": "internal", "message": f"fault {fault}"}})

    async def _answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, uid: Optional[int]
    ) -> Answer:
        url = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        parts = [unquote(part) for part in url.path.removeprefix(PREFIX).split("/")]
        if url.path == "/health":
            return _said(200, {"ok": True, "version": __version__})
        if len(body) > BODY_MOST:
            return _said(413, {"error": {"code": "invalid", "message": f"arguments may have {BODY_MOST >> 20} MiB"}})
        if parts == ["openapi.json"]:
            return _said(200, DOCUMENT) if method in {"GET", "HEAD"} else _not_allowed("GET")
        caller = await self._who(headers, uid)
        if len(parts) == 5 and parts[0] == "apps" and parts[2] == "functions" and parts[4] == "call":
            if method != "POST":
                return _not_allowed("POST")
            return await self._call((parts[1], parts[3]), query, _Sent(headers, body), caller)
        if len(parts) == 2 and parts[0] == "calls":
            return await self._result(parts[1], query, caller) if method == "GET" else _not_allowed("GET")
        raise errors.NotFoundError(f"there is nothing at {url.path}", hint=f"{PREFIX}openapi.json says what there is")

    async def _call(self, place: tuple[str, str], query: Mapping[str, str], sent: _Sent, caller: _Caller) -> Answer:
        app, function = place
        scope = caller.scope
        environment = query.get("environment") or (scope[1] if scope is not None else "main")
        if scope is not None and (app, environment) != scope:
            raise errors.PermissionDeniedError(f"this token calls functions of {scope[0]!r} in {scope[1]!r} only")
        kind = sent.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _said(415, {"error": {"code": "invalid", "message": f"a body of type {kind} is not JSON"}})
        seconds = _wait(query)
        published, method = self._calls.find(app, function, environment, caller.who)
        call_id = await self._calls.start(
            published, method, sent.body, sent.headers.get("idempotency-key", ""), caller.who
        )
        return await self._told(call_id, seconds)

    async def _result(self, call_id: str, query: Mapping[str, str], caller: _Caller) -> Answer:
        await self._calls.check_use(call_id, caller.who, caller.scope)
        return await self._told(call_id, _wait(query, 0.0))

    async def _told(self, call_id: str, seconds: Optional[float]) -> Answer:
        ended = await self._calls.wait(call_id, seconds) if seconds is None or seconds > 0 else None
        if ended is None:
            ended = await self._calls.wait(call_id, 0.01) if seconds == 0 else None
        if ended is None:
            return _said(202, {"call_id": call_id}, {"location": f"{PREFIX}calls/{call_id}"})
        return _ended(ended)

    async def _who(self, headers: Mapping[str, str], uid: Optional[int]) -> _Caller:
        if uid is not None:
            return _Caller(auth.by_uid(uid))
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip()
        if scheme.lower() == "bearer" and given.startswith("wk-"):
            key, _, secret = given.partition(":" if ":" in given else ".")
            found = self._access.caller(key, secret)
            if found is not None:
                return _Caller(found[0], (found[1], found[2]))
            raise errors.AuthError("this token calls nothing", hint="`alight token new --call APP` makes one that does")
        key, _, secret = given.partition(":")
        if scheme.lower() != "bearer" or not key:
            raise errors.AuthError(
                "this needs a token", hint="send `Authorization: Bearer …`; `alight token new --call APP` makes one"
            )
        return _Caller(auth.by_secret(await self._tokens.find(key, time.time()), key, secret))


def _ended(ended: Ended) -> Answer:
    if ended.failure is None:
        body = b'{"call_id":' + json.dumps(ended.call_id).encode() + b',"value":' + ended.value + b"}\n"
        return 200, {"content-type": "application/json"}, body
    update = ended.failure
    status = _OF_RESULT.get(update.status, 502)
    if update.failure is not None and update.failure.type.endswith("SerializationError") and update.error is not None:
        status = 422
    if update.error is not None and update.error.get("code") == "invalid" and update.status == ResultStatus.EXCEPTION:
        status = 400
    return _said(status, {"call_id": ended.call_id, "status": update.status, "error": _words(update)})


def _words(update: CallUpdate) -> dict[str, Any]:
    failure, error = update.failure, update.error
    if failure is None:
        return dict(error or {"code": "remote", "message": f"the call ended as {update.status}"})
    frames = [f"{one.file}:{one.line} in {one.name}" for one in failure.frames if one.user]
    said: dict[str, Any] = {"type": failure.type, "message": failure.message, "traceback": frames}
    if error is not None and error.get("hint"):
        said["hint"] = error["hint"]
    return said


def _wait(query: Mapping[str, str], default: Optional[float] = None) -> Optional[float]:
    text = query.get("wait", "")
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST:
        raise errors.InvalidError(f"wait={text!r} is no number of seconds up to a day")
    return seconds


def _not_allowed(method: str) -> Answer:
    return _said(
        405, {"error": {"code": "invalid", "message": f"{method} is what is answered here"}}, {"allow": method}
    )


def _said(status: int, value: Any, more: Mapping[str, str] = {}) -> Answer:
    fields = {"content-type": "application/json", "cache-control": "no-store", **more}
    return status, fields, json.dumps(value).encode() + b"\n"
