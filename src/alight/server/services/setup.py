"""Letting a laptop in: it asks, both sides show the same code, the owner confirms, the laptop gets a token.

The code is derived from both sides' nonces and the certificate's fingerprint, so a middleman, who has another
certificate, shows another code. Requests live in memory only: 5 minutes, 5 wrong codes, at most 20 at a time; a
restarted server has forgotten them.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from dataclasses import dataclass, field
from typing import Dict, List, Optional

from alight.wire import errors, ids
from alight.wire.admission import SetupBegin, SetupBegun, TokenCreated, setup_code

LIFETIME = 300.0
TRIES = 5
PENDING = 20


@dataclass
class Request:
    """One laptop that waits to be let in."""

    request_id: str
    client_nonce: str
    code: str
    hostname: str
    address: str
    expires_at: float
    tries: int = 0
    token: Optional[TokenCreated] = None
    decided: asyncio.Event = field(default_factory=asyncio.Event)


class Setup:
    """Pending requests. Time is an argument (unix seconds)."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._requests: Dict[str, Request] = {}

    def use_certificate(self, fingerprint: str) -> None:
        """The server listens with this certificate: codes are derived from it from now on."""
        self._fingerprint = fingerprint

    def begin(self, asked: SetupBegin, address: str, now: float) -> SetupBegun:
        """Raises ResourceExhaustedError when too many wait, InvalidError for a nonce that is too short to mix a
        code from.
        """
        self._expire(now)
        if len(asked.nonce) < 16 or len(asked.nonce) > 200:
            raise errors.InvalidError("the nonce of a set-up request has 16 to 200 characters")
        if len(self._requests) >= PENDING:
            raise errors.ResourceExhaustedError("too many set-up requests are waiting", hint="try again in 5 minutes")
        nonce = os.urandom(16).hex()
        request = Request(
            request_id=ids.new_id("sr"),
            client_nonce=asked.nonce,
            code=setup_code(asked.nonce, nonce, self._fingerprint),
            hostname=asked.hostname[:64],
            address=address,
            expires_at=now + LIFETIME,
        )
        self._requests[request.request_id] = request
        return SetupBegun(request.request_id, nonce, request.expires_at)

    def pending(self, now: float) -> List[Request]:
        """What waits for the owner. Codes are not shown: the owner types what the laptop shows."""
        self._expire(now)
        return [request for request in self._requests.values() if request.token is None]

    def match(self, code: str, now: float) -> Request:
        """The request with this code. A wrong code counts against every pending request. Raises NotFoundError."""
        self._expire(now)
        typed = code.strip().upper().replace(" ", "")
        if len(typed) == 8:
            typed = f"{typed[:4]}-{typed[4:]}"
        found = None
        for request in self.pending(now):
            if hmac.compare_digest(request.code.encode(), typed.encode()):
                found = request
        if found is not None:
            return found
        for request in self.pending(now):
            request.tries += 1
            if request.tries >= TRIES:
                self._drop(request)
        raise errors.NotFoundError(
            f"no machine that asks to be let in shows the code {code!r}",
            hint="compare it with the laptop's; after 5 wrong tries the laptop has to ask again",
        )

    def grant(self, request: Request, token: TokenCreated) -> None:
        """Give the laptop its token; it is handed out once."""
        request.token = token
        request.decided.set()

    async def wait(self, request_id: str, client_nonce: str, seconds: float) -> TokenCreated:
        """The token once the owner has confirmed.

        Raises ServiceError (ask again) or NotFoundError (refused, expired).
        """
        request = self._requests.get(request_id)
        if request is None or not hmac.compare_digest(request.client_nonce.encode(), client_nonce.encode()):
            raise errors.NotFoundError(
                "this set-up request is over: it expired, or was refused", hint="run `alight setup` again"
            )
        try:
            await asyncio.wait_for(request.decided.wait(), max(0.0, min(seconds, 60.0)))
        except asyncio.TimeoutError:
            raise errors.ServiceError("the owner has not answered yet") from None
        self._requests.pop(request_id, None)
        if request.token is None:
            raise errors.NotFoundError(
                "this set-up request is over: too many wrong codes", hint="run `alight setup` again"
            )
        return request.token

    def _drop(self, request: Request) -> None:
        self._requests.pop(request.request_id, None)
        request.decided.set()

    def _expire(self, now: float) -> None:
        for request in [request for request in self._requests.values() if request.expires_at <= now]:
            self._drop(request)
