"""The dashboard in this server: made at the first request for it, so that a server without one pays nothing.

Joins ``alight.dashboard``, which knows nobody, with the routes, the tokens and the scheduler of this server.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from alight.gateway.table import SITE
from alight.server import auth
from alight.server.asked import Asking
from alight.server.auth import Principal
from alight.server.changes import Changes
from alight.server.loop import Loop
from alight.server.request import Routes
from alight.server.services.audits import Audits
from alight.server.services.tokens import Tokens
from alight.server.services.web_names import WebNames
from alight.store.base import Row, Store
from alight.wire import errors, ids
from alight.wire.dashboard import DashboardUrl
from alight.wire.version import __version__

if TYPE_CHECKING:
    from alight.dashboard.api import Api
    from alight.dashboard.events import Topics
    from alight.dashboard.sessions import Session, Sessions
    from alight.dashboard.site import Site
    from alight.gateway.site import Asked, Said, Serve

#: The page of an object, by the prefix of its id.
PAGES = {
    ids.APP: "apps",
    ids.FUNCTION: "functions",
    ids.CALL: "calls",
    ids.CONTAINER: "containers",
    ids.VOLUME: "volumes",
    ids.IMAGE: "images",
    ids.SECRET: "secrets",
    ids.NODE: "machines",
}
#: Pages that stand for all of their kind.
_LISTS = {ids.SECRET}


@dataclass(frozen=True)
class Around:
    """What the dashboard stands on."""

    store: Store
    tokens: Tokens
    names: WebNames
    audits: Audits
    changes: Changes
    loop: Loop
    server_id: str
    terminal: bool


class Dashboard:
    """Fills ``gateway.site.Site``, answers ``rest``, and gives out links. ``routes`` are set once they are made."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self.routes: Routes = {}
        self._made: _Made | None = None

    async def answer(self, asked: Asked) -> Said:
        """See ``gateway.site.Site``."""
        return await self._make().site.answer(asked)

    async def socket(self, asked: Asked) -> Said | Serve:
        """See ``gateway.site.Site``."""
        return await self._make().site.socket(asked)

    async def rest(self, method: str, target: str, headers: Mapping[str, str], body: bytes, uid: Optional[int]) -> Said:
        """The same API on the server's own port: over the local socket the kernel says who asks, else a token does."""
        made = self._make()
        try:
            who = auth.by_uid(uid) if uid is not None else await self._by_token(headers.get("authorization", ""))
        except errors.Error as error:
            return made.problem(error)
        if target.partition("?")[0] == "/api/v1/events":
            return made.events("" if who.kind == auth.OWNER else who.owner)
        return await made.api.answer(method, target, headers, body, who)

    def link(self, object_id: str, who: Principal | None) -> DashboardUrl:
        """The page of an object, and with a principal a link that opens a session of theirs."""
        base = self._around.names.base
        if not base.address:
            return DashboardUrl()
        origin, path = base.label(SITE), page_of(object_id)
        url = f"{origin}{path}"
        if who is None:
            return DashboardUrl(url)
        if not who.is_person:
            raise errors.PermissionDeniedError("code in a container cannot log in at the dashboard")
        code = self._make().sessions.link(who, time.time())
        return DashboardUrl(url, f"{origin}/login?code={code}&to={path}")

    def close(self) -> None:
        """End what streams."""
        if self._made is not None:
            self._made.topics.close()

    def _make(self) -> _Made:
        if self._made is None:
            self._made = self._assemble()
        return self._made

    def _assemble(self) -> _Made:
        from alight.dashboard import api, streams  # noqa: PLC0415  most servers show nobody a page
        from alight.dashboard.events import Topics  # noqa: PLC0415  as above
        from alight.dashboard.sessions import Sessions  # noqa: PLC0415  as above
        from alight.dashboard.site import About, Site  # noqa: PLC0415  as above

        around = self._around
        ask = Asking(self.routes)
        changes, loop = around.changes, around.loop

        def heard(is_heard: bool) -> None:
            loop.seen = changes.after_step if is_heard else None

        topics = Topics(changes.counts, changes.look, heard)
        changes.topics = topics
        sessions = Sessions(_Kept(around.store), self._token_lives)
        about = About(__version__, around.server_id, socket.gethostname(), around.terminal)
        site = Site(ask, self._audit, sessions, topics, self._by_token, _person, about)

        def events(owner: str) -> Said:
            return streams.stream(streams.changes(topics, owner, ""))

        return _Made(site, api.Api(ask, self._audit), sessions, topics, api.problem, events)

    async def _by_token(self, said: str) -> Principal:
        """Who has the token of an Authorization field. Raises AuthError."""
        scheme, _, given = said.partition(" ")
        token_id, _, secret = given.strip().partition(":")
        if scheme.lower() != "bearer" or not token_id:
            raise errors.AuthError(
                "this needs a token",
                hint="send `Authorization: Bearer TOKEN_ID:TOKEN_SECRET`; `alight token new` makes one",
            )
        who = auth.by_secret(await self._around.tokens.find(token_id, time.time()), token_id, secret)
        if not who.is_person:
            raise errors.PermissionDeniedError("this token is a machine's, and looks at nothing")
        return who

    async def _token_lives(self, token_id: str) -> bool:
        return await self._around.tokens.find(token_id, time.time()) is not None

    async def _audit(self, who: Principal, action: str, target: str, detail: str, problem: str) -> None:
        app_id, owner = await self._whose(target)
        await self._around.audits.add(
            who.owner, action, target[:200], detail[:500], problem, app_id=app_id, owner=owner
        )

    async def _whose(self, target: str) -> tuple[str, str]:
        """The app that an object belongs to, and whose that is; "" where nobody knows."""
        store, row = self._around.store, None
        if ids.is_id(target, ids.APP):
            row = await store.one("app_by_id", app_id=target)
        elif ids.is_id(target, ids.CONTAINER):
            row = await store.one("container_shown", container_id=target)
        elif ids.is_id(target, ids.FUNCTION):
            row = await store.one("function_shown", function_id=target)
        elif ids.is_id(target, ids.CALL):
            call = await store.one("call_by_id", call_id=target)
            row = await store.one("app_by_id", app_id=call["app_id"]) if call is not None else None
        return (str(row["app_id"]), str(row["owner"])) if row is not None else ("", "")


def page_of(object_id: str) -> str:
    """The path of an object's page; the first one for what has none. Raises InvalidError."""
    if not object_id:
        return "/"
    prefix = object_id.partition("-")[0]
    if ids.is_id(object_id, ids.INPUT):
        return f"/calls/{ids.of_input(object_id)[0]}"
    page = PAGES.get(prefix)
    if page is None and ids.is_id(object_id):
        return "/"  # of a kind that has no pages
    if page is None or not ids.is_id(object_id):
        raise errors.InvalidError(
            f"{object_id[:60]!r} is not the id of something that has a page",
            hint=f"ids begin with {', '.join(f'{one}-' for one in PAGES)}",
        )
    return f"/{page}" if prefix in _LISTS else f"/{page}/{object_id}"


@dataclass
class _Made:
    """What there is once somebody has asked."""

    site: Site
    api: Api
    sessions: Sessions
    topics: Topics
    problem: Callable[[errors.Error], Said]
    events: Callable[[str], Said]


class _Kept:
    """Sessions in the store. Fills ``dashboard.seams.Keep``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, row: Mapping[str, Any]) -> None:
        """See ``Keep``."""
        await self._store.write([("web_session_add", row)])

    async def find(self, session: bytes) -> Row | None:
        """See ``Keep``."""
        return await self._store.one("web_session", session=session)

    async def delete(self, session: bytes) -> None:
        """See ``Keep``."""
        await self._store.write([("web_session_delete", {"session": session})])


def _person(session: Session) -> Principal:
    return Principal(session.kind, owner=session.owner, token_id=session.token_id)
