"""Reaching a peer and letting peers reach us: unix sockets, TCP, TLS with a pinned certificate."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from dataclasses import dataclass
from typing import Callable, Optional

from alight.link.peer import AtOnce, OnClose, OnHello, OnStream, Peer
from alight.wire import errors
from alight.wire.messages import Hello

_BACKLOG = 512


@dataclass(frozen=True)
class Answers:
    """What an end does with its peer: greet it (accepting ends), serve its streams, notice that it left."""

    on_stream: Optional[OnStream] = None
    at_once: Optional[AtOnce] = None
    on_hello: Optional[OnHello] = None
    on_close: Optional[OnClose] = None
    http: Optional[Callable[[], asyncio.Protocol]] = None


async def serve(
    listener: socket.socket, answers: Answers, *, tls: Optional[ssl.SSLContext] = None
) -> asyncio.AbstractServer:
    """Accept peers on a bound socket. ``answers.http`` gets the connections that do not speak our wire."""
    loop = asyncio.get_running_loop()

    def accept() -> Peer:
        return Peer(
            ours=None,
            on_stream=answers.on_stream,
            at_once=answers.at_once,
            on_hello=answers.on_hello,
            on_close=answers.on_close,
            http=answers.http,
        )

    if listener.family == socket.AF_UNIX:
        return await loop.create_unix_server(accept, sock=listener, backlog=_BACKLOG)
    return await loop.create_server(accept, sock=listener, backlog=_BACKLOG, ssl=tls)


async def dial_unix(path: str, hello: Hello, answers: Answers = Answers()) -> Peer:
    """Connect over a unix socket and greet. Raises ConnectionError, or what the other side refuses with."""
    loop = asyncio.get_running_loop()
    try:
        _, peer = await loop.create_unix_connection(lambda: _dialling(hello, answers), path)
    except OSError as error:
        raise errors.ConnectionError(f"nothing answers at {path}: {error.strerror or error}") from error
    await peer.wait_greeted()
    return peer


async def dial_tcp(
    host: str,
    port: int,
    hello: Hello,
    answers: Answers = Answers(),
    *,
    tls: Optional[ssl.SSLContext] = None,
    fingerprint: str = "",
) -> Peer:
    """Connect over TCP (TLS when a context is given) and greet. A certificate other than the pinned one is refused."""
    loop = asyncio.get_running_loop()
    try:
        transport, peer = await loop.create_connection(
            lambda: _dialling(None if fingerprint else hello, answers), host, port, ssl=tls
        )
    except (OSError, ssl.SSLError) as error:
        raise errors.ConnectionError(f"nothing answers at {host}:{port}: {error}") from error
    if fingerprint:
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if hashlib.sha256(shown or b"").hexdigest() != fingerprint:
            transport.close()
            raise errors.AuthError(
                f"the server at {host}:{port} shows a different certificate than the one that was pinned",
                hint="if it was renewed on purpose, run `alight setup` again; if not, somebody is in between",
            )
        peer.greet(hello)
    await peer.wait_greeted()
    return peer


def _dialling(hello: Optional[Hello], answers: Answers) -> Peer:
    return Peer(ours=hello, dialled=True, on_stream=answers.on_stream, on_close=answers.on_close)
