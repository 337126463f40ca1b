"""Tokens of those who call without being clients: made once, shown once, kept as a hash, looked up in memory.

One opens protected web functions, or calls functions of one app over HTTP, and nothing else: they are no tokens of
clients, and the server's own methods know nothing of them.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from alight.server.auth import OWNER, USER, Principal, hash_secret
from alight.store.base import Store
from alight.wire import errors, ids
from alight.wire.admission import TokenCreated
from alight.wire.urls import ProxyTokenInfo, ProxyTokenListed

_SECRET = "ws"
_ID = "wk"
_NAME_MOST = 64
_CALL = "call:"
_NOTE_SECONDS = 60.0  # how old the noted last use of a busy token may be


@dataclass(frozen=True)
class _Kept:
    secret_hash: bytes
    name: str
    owner: str
    created_at: float
    last_used_at: float | None = None
    scope: str = ""
    environment: str = ""


class ProxyTokens:
    """``owner_of`` says whose a function is, None for one that is not there."""

    def __init__(self, store: Store, owner_of: Callable[[str], str | None]) -> None:
        self._store = store
        self._owner_of = owner_of
        self._tokens: dict[str, _Kept] = {}

    async def load(self) -> None:
        """Take up what there is. Until then nobody is let in."""
        for row in reversed(await self._store.read("proxy_tokens")):
            self._tokens[row["token_id"]] = _Kept(
                bytes(row["secret_hash"]),
                row["name"],
                row["owner"],
                row["created_at"],
                row["last_used_at"],
                row["scope"],
                row["environment"],
            )

    async def create(self, name: str, who: Principal, scope: str = "", environment: str = "main") -> TokenCreated:
        """A new one. The secret is in the answer and nowhere else. Raises InvalidError."""
        made, secret = ids.new_id(_ID), f"{_SECRET}-{secrets.token_urlsafe(24)}"
        if scope:
            _check_scope(scope)
        where = environment if scope else ""
        kept = _Kept(hash_secret(secret), _checked(name), who.owner, time.time(), scope=scope, environment=where)
        row = {
            "token_id": made,
            "secret_hash": kept.secret_hash,
            "name": name,
            "owner": kept.owner,
            "scope": scope,
            "environment": where,
        }
        await self._store.write([("proxy_token_add", {**row, "now": kept.created_at})])
        self._tokens[made] = kept
        return TokenCreated(made, secret)

    @contextlib.contextmanager
    def lent(self, name: str, who: Principal) -> Iterator[TokenCreated]:
        """One for protected web functions that is good as long as the block, and that nobody keeps."""
        made, secret = ids.new_id(_ID), f"{_SECRET}-{secrets.token_urlsafe(24)}"
        self._tokens[made] = _Kept(hash_secret(secret), _checked(name), who.owner, time.time())
        try:
            yield TokenCreated(made, secret)
        finally:
            self._tokens.pop(made, None)

    def listed(self, who: Principal) -> ProxyTokenListed:
        """Newest first: the server's owner sees all, users their own."""
        mine = [(token_id, one) for token_id, one in self._tokens.items() if _theirs(one, who)]
        return ProxyTokenListed(
            tuple(
                ProxyTokenInfo(
                    token_id, one.name, one.created_at, one.owner, one.last_used_at, one.scope, one.environment
                )
                for token_id, one in reversed(mine)
            )
        )

    async def rename(self, token_id: str, name: str, who: Principal) -> None:
        """Raises NotFoundError, InvalidError."""
        kept = self._mine(token_id, who)
        await self._store.write([("proxy_token_name", {"token_id": token_id, "name": _checked(name)})])
        self._tokens[token_id] = replace(kept, name=name)

    async def delete(self, token_id: str, who: Principal) -> None:
        """Whoever has it is refused from the next request on. Raises NotFoundError."""
        self._mine(token_id, who)
        await self._store.write([("proxy_token_delete", {"token_id": token_id})])
        self._tokens.pop(token_id, None)

    def check(self, key: str, secret: str, function_id: str) -> bool:
        """Whether whoever shows this may call this web function."""
        kept = self._shown(key, secret)
        if kept is None or kept.scope:
            return False
        owner = self._owner_of(function_id)
        if owner is None or kept.owner not in {OWNER, owner}:
            return False
        self._note(key, kept)
        return True

    def owner(self, key: str, secret: str) -> str | None:
        """Who made this token, if it opens web functions; None when it does not."""
        kept = self._shown(key, secret)
        return None if kept is None or kept.scope else kept.owner

    def caller(self, key: str, secret: str) -> tuple[Principal, str, str] | None:
        """Who calls over HTTP with this token, of which app (by name or id) and environment. None: nobody may."""
        kept = self._shown(key, secret)
        if kept is None or not kept.scope.startswith(_CALL):
            return None
        self._note(key, kept)
        kind = OWNER if kept.owner == OWNER else USER
        return Principal(kind, owner=kept.owner, token_id=key), kept.scope[len(_CALL) :], kept.environment

    def _shown(self, key: str, secret: str) -> _Kept | None:
        kept = self._tokens.get(key)
        # Compared in any case, so that time tells nobody which ids there are.
        known = hmac.compare_digest(kept.secret_hash if kept is not None else bytes(32), hash_secret(secret))
        return kept if known else None

    def _note(self, key: str, kept: _Kept) -> None:
        now = time.time()
        if kept.last_used_at is None or abs(now - kept.last_used_at) > _NOTE_SECONDS:
            self._tokens[key] = replace(kept, last_used_at=now)
            self._store.write_soon([("proxy_token_used", {"token_id": key, "now": now})])

    def _mine(self, token_id: str, who: Principal) -> _Kept:
        kept = self._tokens.get(token_id)
        if kept is None or not _theirs(kept, who):
            raise errors.NotFoundError(
                f"there is no token {token_id} for web functions",
                hint="`alight workspace proxy-tokens list` shows those there are",
            )
        return kept


def _theirs(kept: _Kept, who: Principal) -> bool:
    return who.kind == OWNER or kept.owner == who.owner


def _check_scope(scope: str) -> None:
    app = scope[len(_CALL) :] if scope.startswith(_CALL) else ""
    if not app:
        raise errors.InvalidError(f"{scope!r} is no scope of a token", hint="call:APP, with the name of an app")
    if not ids.is_id(app, ids.APP):
        ids.check_name(app, "app")


def _checked(name: str) -> str:
    if len(name) > _NAME_MOST or not name.isprintable():
        raise errors.InvalidError(f"the name of a token has at most {_NAME_MOST} characters, all printable")
    return name
