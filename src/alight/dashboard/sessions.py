"""Who is logged in: links that open a session once, and sessions, of which only hashes are kept.

A link lives a minute and in memory alone. A session lives twelve hours, or as long as the token that it was opened
with. Time is an argument (unix seconds).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from alight.dashboard.seams import Keep
from alight.wire import errors

LINK_SECONDS = 60.0
SESSION_SECONDS = 12 * 3600.0
_LINKS = 1000  # that wait at a time
_KNOWN = 1000  # sessions in memory
_LOOK_AGAIN = 5.0  # seconds after which it is asked again whether a session's token is still there


@dataclass(frozen=True)
class Session:
    """``key`` is the hash of what the browser has."""

    key: bytes
    kind: str
    owner: str
    token_id: str
    expires_at: float


def hash_of(secret: str) -> bytes:
    """Secrets are 192 random bits: one round keeps them."""
    return hashlib.sha256(secret.encode()).digest()


class Sessions:
    """Verbs on links and sessions. ``token_lives`` says whether a token is still there."""

    def __init__(self, keep: Keep, token_lives: Callable[[str], Awaitable[bool]]) -> None:
        self._keep = keep
        self._token_lives = token_lives
        self._links: dict[bytes, tuple[float, str, str, str]] = {}
        self._known: dict[bytes, tuple[Session, float]] = {}

    def link(self, who: Any, now: float) -> str:
        """The code of a link that opens one session for this person, within a minute."""
        self._links = {key: one for key, one in self._links.items() if one[0] > now}
        while len(self._links) >= _LINKS:
            del self._links[next(iter(self._links))]
        code = secrets.token_urlsafe(24)
        self._links[hash_of(code)] = (now + LINK_SECONDS, who.kind, who.owner, who.token_id)
        return code

    async def open_link(self, code: str, now: float) -> str:
        """What the browser keeps of its new session. Raises AuthError for a link that is used or too old."""
        found = self._links.pop(hash_of(code), None)
        if found is None or found[0] <= now:
            raise errors.AuthError(
                "this link was used already, or is older than a minute", hint="`alight dashboard` makes a new one"
            )
        return await self.begin(found[1], found[2], found[3], now)

    async def begin(self, kind: str, owner: str, token_id: str, now: float) -> str:
        """A session of somebody who has shown who they are; returns what their browser keeps of it."""
        secret = secrets.token_urlsafe(24)
        session = Session(hash_of(secret), kind, owner, token_id, now + SESSION_SECONDS)
        row = {"session": session.key, "kind": kind, "owner": owner, "token_id": token_id, "now": now}
        await self._keep.add({**row, "expires_at": session.expires_at})
        self._remember(session, now)
        return secret

    async def find(self, secret: str, now: float) -> Session | None:
        """The session of a cookie; None for one that has ended or never was."""
        if not 0 < len(secret) <= 64:
            return None
        key = hash_of(secret)
        known = self._known.get(key)
        if known is None:
            row = await self._keep.find(key)
            if row is None:
                return None
            session = Session(key, row["kind"], row["owner"], row["token_id"], row["expires_at"])
            looked = 0.0
        else:
            session, looked = known
        if session.expires_at <= now:
            await self.end(session)
            return None
        if not 0 <= now - looked < _LOOK_AGAIN:
            if session.token_id and not await self._token_lives(session.token_id):
                await self.end(session)
                return None
            self._remember(session, now)
        return session

    async def end(self, session: Session) -> None:
        """Log out."""
        self._known.pop(session.key, None)
        await self._keep.delete(session.key)

    def _remember(self, session: Session, now: float) -> None:
        while len(self._known) >= _KNOWN:
            del self._known[next(iter(self._known))]
        self._known[session.key] = (session, now)
