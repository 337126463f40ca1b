"""What an operator can set of the gateway, with what holds when nothing is set. Seconds and bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The only limit on how long a request may take is its function's own timeout."""

    head_bytes: int = 64 << 10
    head_seconds: float = 20.0  # from a head's first byte to its last
    idle_seconds: float = 75.0  # between two requests of a connection
    body_bytes: int | None = None
    message_bytes: int = 16 << 20  # of a WebSocket
    ping_seconds: float = 20.0  # a WebSocket that says nothing for so long is asked, and closed after twice that
    lease_seconds: float = 1.0  # how long a container stays leased without a request
    connections: int = 10_000
    trust_forwarded: bool = False  # clients are a proxy of the operator's, whose X-Forwarded-* are true
