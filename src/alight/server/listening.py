"""Sockets that the server listens on: bound, named, and whose they are."""

from __future__ import annotations

import grp
import logging
import socket
from typing import Any

from alight.server.settings import GROUP
from alight.wire import errors

log = logging.getLogger(__name__)


def users_group() -> int | None:
    """The group whose members are users of the system's server, where there is one."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None


def bind(
    wanted: tuple[str, int], *, may_move: bool, option: str = "alight server start --listen HOST:PORT"
) -> socket.socket:
    """A socket bound to an address; ``may_move``: to another port where that one is taken. Raises InvalidError, which
    names ``option``."""
    host, port = wanted
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        try:
            sock.bind((host, port))
        except OSError as error:
            if not may_move:
                raise errors.InvalidError(
                    f"the server cannot listen on {host}:{port}: {error.strerror}",
                    hint=f"choose another address: {option}",
                ) from error
            log.info("port %d of loopback is taken (%s): another one is used", port, error.strerror)
            sock.bind((host, 0))
    except BaseException:
        sock.close()
        raise
    return sock


def bracketed(host: Any) -> str:
    """A host as it stands before ":PORT"."""
    return f"[{host}]" if ":" in str(host) else str(host)
