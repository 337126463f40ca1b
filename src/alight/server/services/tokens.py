"""Tokens: made once, shown once, kept as a hash."""

from __future__ import annotations

import secrets
from typing import Optional

from alight.server.auth import USER, Token, hash_secret
from alight.store.base import Store
from alight.wire import errors, ids
from alight.wire.admission import TokenCreated, TokenInfo, TokenListed


class Tokens:
    """Verbs on tokens. Time is an argument (unix seconds)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, name: str, now: float, *, kind: str = USER, owner: str = "") -> TokenCreated:
        """A new token. The secret is in the answer and nowhere else."""
        token_id, secret = ids.new_id(ids.TOKEN_ID), f"{ids.TOKEN_SECRET}-{secrets.token_urlsafe(24)}"
        row = {
            "token_id": token_id,
            "secret_hash": hash_secret(secret),
            "name": name[:64],
            "kind": kind,
            "owner": owner or kind,
            "now": now,
        }
        await self._store.write([("token_add", row)])
        return TokenCreated(token_id, secret)

    async def find(self, token_id: str, now: float) -> Optional[Token]:
        """The token of this id, and a note that it was used."""
        row = await self._store.one("token", token_id=token_id)
        if row is None:
            return None
        self._store.write_soon([("token_used", {"token_id": token_id, "now": now})])
        return Token(row["token_id"], bytes(row["secret_hash"]), row["name"], row["kind"], row["owner"])

    async def list(self) -> TokenListed:
        rows = await self._store.read("tokens")
        return TokenListed(
            tuple(TokenInfo(row["token_id"], row["name"], row["created_at"], row["last_used_at"]) for row in rows)
        )

    async def delete(self, token_id: str) -> None:
        """Raises NotFoundError."""
        if (await self._store.write([("token_delete", {"token_id": token_id})])) == [0]:
            raise errors.NotFoundError(
                f"there is no token {token_id}", hint="`alight token list` shows those there are"
            )
