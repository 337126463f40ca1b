"""What clients and the server say to each other about who may come in: set-up and tokens. See ``messages``."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from alight.wire.record import dataclass


@dataclass(frozen=True)
class SetupBegin:
    """setup.begin (needs no token) → SetupBegun:

    a laptop asks to be let in. ``nonce`` is the client's half of the code.
    """

    nonce: str
    hostname: str = ""


@dataclass(frozen=True)
class SetupBegun:
    """Both sides show the code that ``setup_code`` derives from both nonces and the fingerprint.

    Valid 5 minutes, 5 tries.
    """

    request_id: str
    nonce: str
    expires_at: float
    approve_url: str = ""


@dataclass(frozen=True)
class SetupPoll:
    """setup.poll (needs no token) → TokenCreated when approved; NotFoundError when refused or expired; waits up to
    ``wait`` seconds, then ServiceError (ask again)."""

    request_id: str
    nonce: str = ""
    wait: float = 20.0


@dataclass(frozen=True)
class SetupApprove:
    """setup.approve (owner) → {}: ``code`` as the laptop shows it. setup.pending (owner) → SetupPending."""

    code: str


@dataclass(frozen=True)
class SetupPending:
    requests: Tuple[Dict[str, Any], ...] = ()


@dataclass(frozen=True)
class TokenCreate:
    """token.create (owner) → TokenCreated, the only time that the secret is seen.

    token.list → TokenListed. token.delete (token_id).
    """

    name: str = ""
    token_id: str = ""
    node: bool = False  # a token for a machine's agent (`alight node start`)


@dataclass(frozen=True)
class TokenCreated:
    token_id: str
    token_secret: str


@dataclass(frozen=True)
class TokenInfo:
    token_id: str
    name: str
    created_at: float
    last_used_at: Optional[float] = None


@dataclass(frozen=True)
class TokenListed:
    tokens: Tuple[TokenInfo, ...] = ()


def setup_code(client_nonce: str, server_nonce: str, fingerprint: str) -> str:
    """The code that both sides show, "ABCD-EFGH": a middleman, whose certificate differs, would show another one."""
    import hashlib  # noqa: PLC0415  only set-up needs it

    alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    mixed = hashlib.sha256(f"alight-setup\n{client_nonce}\n{server_nonce}\n{fingerprint}".encode()).digest()
    code = "".join(alphabet[byte % len(alphabet)] for byte in mixed[:8])
    return f"{code[:4]}-{code[4:]}"
