"""A port of a container, reachable from outside for as long as a `with` block lasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import AsyncIterator, Optional, Tuple

from alight.sdk.client import Client
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual_context_function
from alight.wire.errors import InvalidError

_HTTPS = 443


@dataclass(frozen=True)
class Tunnel:
    """Where a forwarded port can be reached."""

    host: str
    port: int
    unencrypted_host: str
    unencrypted_port: int

    @property
    def url(self) -> str:
        """The address for browsers."""
        return f"https://{self.host}" if self.port == _HTTPS else f"https://{self.host}:{self.port}"

    @property
    def tls_socket(self) -> Tuple[str, int]:
        """Host and port for TLS."""
        return self.host, self.port

    @property
    def tcp_socket(self) -> Tuple[str, int]:
        """Host and port for plain TCP. InvalidError unless the port was forwarded with ``unencrypted=True``."""
        if not self.unencrypted_host:
            raise InvalidError("this tunnel has no plain TCP socket", hint="forward(port, unencrypted=True)")
        return self.unencrypted_host, self.unencrypted_port


@dual_context_function
@unimplemented(
    "forward would make a port of this container reachable from outside; there are no tunnels yet, and @app.server and "
    "@web_server have URLs"
)
async def forward(
    port: int, *, unencrypted: bool = False, h2_enabled: bool = False, client: Optional[Client] = None
) -> AsyncIterator[Tunnel]:
    """Make a port of this container reachable while the block runs. Only inside a container."""
    yield  # type: ignore[misc]
