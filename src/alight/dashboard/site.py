"""The dashboard at its host: files, login, and the API for who is logged in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from alight.dashboard import api, files, guard, streams, terminal
from alight.dashboard.events import Topics
from alight.dashboard.reading import Asked
from alight.dashboard.seams import Ask, ByToken, Request, Said, Serve, Talk
from alight.dashboard.sessions import SESSION_SECONDS, Session, Sessions
from alight.wire import errors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class About:
    """What pages are told of the server. ``terminal``: whether they may open one in containers."""

    version: str
    server_id: str
    hostname: str
    terminal: bool = True


@dataclass(frozen=True)
class _Caller:
    """Who asks, by a session or (``session`` None) by a token."""

    who: Any
    session: Session | None = None


class Site:
    """Fills ``gateway.site.Site``. ``person`` makes who asks of a session's kind, owner and token."""

    def __init__(  # noqa: PLR0913, PLR0917  what it stands on
        self,
        ask: Ask,
        audit: api.Audit,
        sessions: Sessions,
        topics: Topics,
        by_token: ByToken,
        person: Callable[[Session], Any],
        about: About,
    ) -> None:
        self._ask = ask
        self._api = api.Api(ask, audit)
        self._audit = audit
        self._sessions = sessions
        self._topics = topics
        self._by_token = by_token
        self._person = person
        self._about = about

    async def answer(self, asked: Request) -> Said:
        """See ``gateway.site.Site``."""
        status, fields, body = await self._answer(asked)
        if asked.method == "HEAD" and not isinstance(body, bytes):
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()
            body = b""
        return status, fields, body

    async def _answer(self, asked: Request) -> Said:
        path = asked.target.partition("?")[0]
        try:
            if path.startswith("/api/"):
                return await self._of_api(path, asked)
            if asked.method not in {"GET", "HEAD"}:
                return api.refused("GET, HEAD")
            if path == "/login":
                return await self._log_in_by_link(asked)
            return _file(path, asked.headers)
        except errors.Error as error:
            if error.code == "permission_denied":
                log.info("refused %s %s: %s", asked.method, path[:200], error)
            return api.problem(error)

    async def socket(self, asked: Request) -> Said | Serve:
        """See ``gateway.site.Site``."""
        try:
            caller = await self._caller(asked)
            parts, query = api.taken_apart(asked.target)
            if len(parts) != 3 or (parts[0], parts[2]) != ("containers", "terminal"):
                raise errors.NotFoundError("there is no WebSocket at this path")
            if not self._about.terminal:
                raise errors.PermissionDeniedError(
                    "terminals are switched off at this dashboard", hint="`alight container exec` opens one"
                )
            question = Asked(caller.who, self._ask, query, (parts[1],))
            start = terminal.start_of(question)
        except errors.Error as error:
            return api.problem(error)

        async def written(problem: str) -> None:
            await self._audit(caller.who, "opened a terminal in the container", parts[1], "", problem)

        async def serve(talk: Talk) -> None:
            await terminal.serve(question, start, talk, written)

        return serve

    # the API

    async def _of_api(self, path: str, asked: Request) -> Said:
        if path == f"{api.ROOT}login":
            return await self._log_in_by_token(asked)
        caller = await self._caller(asked)
        session = caller.session
        if asked.method not in {"GET", "HEAD"} and session is not None:
            guard.check_csrf(asked.headers, session.key)
        if path == f"{api.ROOT}me":
            return self._me(caller, asked)
        if path == f"{api.ROOT}events":
            owner = "" if caller.who.kind == "owner" else caller.who.owner
            return streams.stream(streams.changes(self._topics, owner, guard.csrf_of(session.key) if session else ""))
        if path == f"{api.ROOT}session/end" and session is not None and asked.method == "POST":
            await self._sessions.end(session)
            status, fields, body = api.said(200, {"done": "You are logged out."})
            name = guard.cookie_name(asked.headers.get("host", ""), secure=asked.secure)
            return status, {**fields, "set-cookie": guard.set_cookie(name, "", 0, secure=asked.secure)}, body
        if not path.startswith(api.ROOT):
            raise errors.NotFoundError(f"there is nothing at {path[:100]}", hint=f"the API begins at {api.ROOT}")
        return await self._api.answer(asked.method, asked.target, asked.headers, asked.body, caller.who)

    def _me(self, caller: _Caller, asked: Request) -> Said:
        about, session = self._about, caller.session
        me: dict[str, Any] = {
            "who": caller.who.owner,
            "kind": caller.who.kind,
            "csrf": guard.csrf_of(session.key) if session is not None else "",
            "expires_at": session.expires_at if session is not None else None,
            "version": about.version,
            "server_id": about.server_id,
            "hostname": about.hostname,
            "host": asked.headers.get("host", ""),
            "terminal": about.terminal,
            "now": time.time(),
        }
        return api.said(200, me)

    # who asks

    async def _caller(self, asked: Request) -> _Caller:
        """Who asks. Raises AuthError, and PermissionDeniedError for what other pages have a browser send."""
        headers = asked.headers
        by_token = "authorization" in headers
        guard.check_origin(asked.method, headers, secure=asked.secure, by_cookie=not by_token)
        if by_token:
            return _Caller(await self._by_token(headers["authorization"]))
        name = guard.cookie_name(headers.get("host", ""), secure=asked.secure)
        for value in guard.cookies(asked.cookies, name):
            session = await self._sessions.find(value, time.time())
            if session is not None:
                return _Caller(self._person(session), session)
        raise errors.AuthError(
            "nobody is logged in here", hint="`alight dashboard` on the server's machine opens a page that is"
        )

    async def _log_in_by_link(self, asked: Request) -> Said:
        query = parse_qs(urlsplit(asked.target).query)
        code, to = query.get("code", [""])[-1], guard.local_path(query.get("to", ["/"])[-1])
        if not code:
            return _file("/login", asked.headers)
        try:
            secret = await self._sessions.open_link(code, time.time())
        except errors.AuthError:
            return _moved("/login?used=1")
        return self._with_session(_moved(to), secret, asked)

    async def _log_in_by_token(self, asked: Request) -> Said:
        if asked.method != "POST":
            return api.refused("POST")
        guard.check_origin(asked.method, asked.headers, secure=asked.secure, by_cookie=True)
        token = api.object_of(asked.body, asked.headers).get("token", "")
        if not isinstance(token, str):
            raise errors.InvalidError("token is text: TOKEN_ID:TOKEN_SECRET")
        who = await self._by_token(f"Bearer {token}")
        secret = await self._sessions.begin(who.kind, who.owner, who.token_id, time.time())
        return self._with_session(api.said(200, {"done": "You are logged in."}), secret, asked)

    def _with_session(self, answer: Said, secret: str, asked: Request) -> Said:
        status, fields, body = answer
        name = guard.cookie_name(asked.headers.get("host", ""), secure=asked.secure)
        cookie = guard.set_cookie(name, secret, int(SESSION_SECONDS), secure=asked.secure)
        return status, {**fields, "set-cookie": cookie}, body


def _moved(to: str) -> Said:
    return 303, guard.fields("text/plain; charset=utf-8", location=to), b""


def _file(path: str, headers: Mapping[str, str]) -> Said:
    """A file of the pages; every address that is none is the one page, which reads its address itself."""
    inside = path.startswith("/static/")
    found = files.find(path.removeprefix("/static/")) if inside else files.find(files.INDEX)
    if found is None:
        raise errors.NotFoundError("there is no such file" if inside else "the pages are not installed")
    policy = guard.PAGE_POLICY
    if headers.get("if-none-match") == found.tag:
        return 304, guard.fields(found.kind, policy, cached=True, etag=found.tag), b""
    return 200, guard.fields(found.kind, policy, cached=True, etag=found.tag), found.body
