"""Where the web gateway listens: a socket for containers, and a port for the world, with TLS where that is due."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alight.server.services import urls
from alight.server.settings import Settings
from alight.wire import errors

if TYPE_CHECKING:
    from alight.server.web_tls import Certificates

log = logging.getLogger(__name__)
_BACKLOG = 1024
_HANDSHAKE_SECONDS = 10.0
_GOODBYE_SECONDS = 1.0  # for a client's part of the end of a TLS connection

Bind = Callable[..., socket.socket]


@dataclass
class Listening:
    """What came of it. ``hosts``: names of this machine that may be used with paths."""

    listeners: list[asyncio.AbstractServer] = field(default_factory=list)
    base: urls.Base = field(default_factory=urls.Base)
    hosts: frozenset[str] = frozenset()
    certificates: Certificates | None = None


async def listen(settings: Settings, client: Callable[[], asyncio.Protocol], bind: Bind) -> Listening:
    """Listen as the settings say. ``bind`` makes a socket. Raises InvalidError."""
    loop, made = asyncio.get_running_loop(), Listening()
    wanted = settings.web_address()
    check(settings)
    path = settings.run / "web.sock"
    path.unlink(missing_ok=True)
    inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    inner.bind(str(path))
    path.chmod(0o600)
    made.listeners.append(await loop.create_unix_server(client, sock=inner, backlog=_BACKLOG))
    if wanted is None:
        return made
    if settings.web_cert:
        made.certificates = await asyncio.to_thread(_certificates, settings)
        made.certificates.watch()
    tls = made.certificates
    sock = _bind(wanted, settings, bind)
    host, port = sock.getsockname()[:2]
    listener = await loop.create_server(
        client,
        sock=sock,
        backlog=_BACKLOG,
        ssl=None if tls is None else tls.context,
        ssl_handshake_timeout=None if tls is None else _HANDSHAKE_SECONDS,
        ssl_shutdown_timeout=None if tls is None else _GOODBYE_SECONDS,
    )
    made.listeners.append(listener)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    made.base = urls.Base(
        address, socket.gethostname(), settings.web_domain, tls=bool(settings.web_cert), proxied=_is_proxied(settings)
    )
    made.hosts = frozenset((socket.gethostname().lower(), host))
    return made


def check(settings: Settings) -> None:
    """Raise InvalidError for what would show web functions, or their tokens, to a network in plain text unasked."""
    if settings.web_key and not settings.web_cert:
        raise errors.InvalidError("ALIGHT_WEB_KEY is given without ALIGHT_WEB_CERT")
    wanted = settings.web_address()
    if wanted is None or settings.web_cert or settings.web_plain or _is_loopback(wanted[0]):
        return
    raise errors.InvalidError(
        f"ALIGHT_WEB_LISTEN={settings.web_listen} would let others reach web functions without TLS",
        hint="give ALIGHT_WEB_CERT and ALIGHT_WEB_KEY, or say ALIGHT_WEB_PLAIN=1 if plain HTTP is meant",
    )


def _certificates(settings: Settings) -> Certificates:
    from alight.server import web_tls  # noqa: PLC0415  without a certificate nobody pays for ssl

    return web_tls.Certificates(web_tls.pairs(settings.web_cert, settings.web_key), settings.web_domain)


def _is_proxied(settings: Settings) -> bool:
    """Whether somebody before us speaks TLS: a domain is of use on a loopback port, or one that trusts its clients'
    X-Forwarded-…, in no other way.
    """
    wanted = settings.web_address()
    behind = settings.web.trust_forwarded or (wanted is not None and _is_loopback(wanted[0]) and not settings.web_plain)
    return bool(settings.web_domain) and not settings.web_cert and behind


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(wanted: tuple[str, int], settings: Settings, bind: Bind) -> socket.socket:
    """The gateway's port. Where nobody asked for one, it is the one of last time, so that URLs stay as they are."""
    if settings.web_listen:
        return bind(wanted, may_move=False, option="ALIGHT_WEB_LISTEN=HOST:PORT")
    kept = settings.state / "web.port"
    text = kept.read_text().strip() if kept.is_file() else ""
    host, port = wanted[0], int(text) if text.isdigit() and 0 < int(text) < 65536 else wanted[1]
    sock = bind((host, port), may_move=True)
    kept.write_text(f"{sock.getsockname()[1]}\n")
    return sock
