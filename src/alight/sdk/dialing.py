"""Opening a connection to a server: over a socket of this machine, or over TCP with TLS.

Loaded at the first connection: whoever only declares functions does without sockets.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Optional, Tuple

from alight.wire import errors

if TYPE_CHECKING:
    from alight.sdk.carrier import Cipher
    from alight.sdk.client import Target

_CONNECT_SECONDS = 10.0


def connect_unix(target: Target) -> Tuple[socket.socket, Optional[Cipher]]:
    """To a server or node of this machine. Raises PermissionDeniedError, ConnectionError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(target.path)
    except OSError as error:
        sock.close()
        if target.role == "container" and isinstance(error, FileNotFoundError):
            raise errors.PermissionDeniedError(
                "this container may not use Alight itself: its function is declared with restrict_modal_access=True"
            ) from error
        if isinstance(error, PermissionError):
            raise errors.PermissionDeniedError(
                f"you may not use the server at {target.path}: {error.strerror}",
                hint="ask its owner to add you to the group `alight`, or use your own: ALIGHT_HOME=~/.alight",
            ) from error
        raise errors.ConnectionError(
            f"nothing answers at {target.path}: {error.strerror or error}", hint="see `alight server status`"
        ) from error
    return sock, None


def connect_tcp(target: Target) -> Tuple[socket.socket, Optional[Cipher]]:
    """To a server elsewhere, with TLS unless the address says otherwise. Raises ConnectionError, AuthError."""
    try:
        sock = socket.create_connection((target.host, target.port), timeout=_CONNECT_SECONDS)
    except OSError as error:
        raise errors.ConnectionError(
            f"nothing answers at {target.host}:{target.port}: {error.strerror or error}",
            hint="check the address with `alight config show`, and `alight server status` on its machine",
        ) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(sock)
    cipher: Optional[Cipher] = None
    if target.tls:
        from alight.sdk.tls import TlsCipher  # noqa: PLC0415  ssl is heavy; unix sockets do without

        try:
            cipher = TlsCipher(sock, target.host, target.fingerprint)
        except BaseException:
            sock.close()
            raise
    sock.settimeout(None)
    return sock, cipher


def _keep_alive(sock: socket.socket) -> None:
    """Have the kernel notice a peer that is gone without a word: within 25 s."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
