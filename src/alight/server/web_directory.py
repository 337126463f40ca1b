"""What a request gets that meant a web function and found none: a 404, with what there is for those who may see it.

Who shows a proxy token (as a protected function wants it) or a client's token sees the functions of whoever made it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from alight.server import auth
from alight.server.auth import OWNER
from alight.server.services import urls
from alight.server.services.access import ProxyTokens
from alight.server.services.tokens import Tokens
from alight.server.services.web_names import WebNames
from alight.wire import errors

NOTHING = "no web function has this address"
_TEXT = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}
_MOST = 200  # lines


class Directory:
    """Answers requests that nobody serves and that show a token."""

    def __init__(self, names: WebNames, access: ProxyTokens, tokens: Tokens) -> None:
        self._names = names
        self._access = access
        self._tokens = tokens

    async def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """See ``gateway.api.Api``."""
        del method, target, body
        owner = await self._owner(headers)
        lines = [NOTHING]
        if owner is not None:
            lines += self._lines(owner)
        return 404, dict(_TEXT), ("\n".join(lines) + "\n").encode()

    def _lines(self, owner: str) -> list[str]:
        found = self._names.endpoints()
        mine = [one for one in found if owner in {OWNER, one.owner}]
        if not mine:
            return ["Whoever made your token has no web functions now."]
        told = sorted(f"  {one.what}: {urls.url_of(one, self._names.base, found).url}" for one in mine)
        more = [f"  and {len(told) - _MOST} more"] if len(told) > _MOST else []
        return ["Those that your token may see:", *told[:_MOST], *more]

    async def _owner(self, headers: Mapping[str, str]) -> str | None:
        """Whose functions the token shows; None when it is none."""
        for word in ("modal", "alight"):
            if f"{word}-key" in headers:
                return self._access.owner(headers[f"{word}-key"], headers.get(f"{word}-secret", ""))
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer":
            return None
        key, _, secret = given.partition(":" if ":" in given else ".")
        if key.startswith("wk-"):
            return self._access.owner(key, secret)
        try:
            return auth.by_secret(await self._tokens.find(key, time.time()), key, secret).owner
        except errors.Error:
            return None
