"""A connection comes in, says who it is, and its requests find their routes."""

from __future__ import annotations

import time

from alight.link.peer import Peer, Stream
from alight.server import auth, permissions
from alight.server.auth import Principal
from alight.server.request import QuickRoutes, Request, Routes
from alight.server.services.containers import Containers
from alight.server.services.tokens import Tokens
from alight.wire import errors
from alight.wire.messages import Hello
from alight.wire.version import WIRE_VERSION, __version__


class Front:
    """What the listeners call: greet a peer, serve a stream."""

    def __init__(
        self, server_id: str, routes: Routes, quick: QuickRoutes, containers: Containers, tokens: Tokens
    ) -> None:
        self._server_id = server_id
        self._quick = quick
        self._routes = routes
        self._containers = containers
        self._tokens = tokens
        self._peers: set[Peer] = set()

    async def on_hello(self, peer: Peer) -> Hello:
        """Decide who is connected. Raises AuthError, which refuses the connection."""
        peer.info["who"] = await self._who(peer)
        self._peers.add(peer)
        return Hello(WIRE_VERSION, __version__, "server", server_id=self._server_id)

    async def on_stream(self, peer: Peer, stream: Stream) -> None:
        """Serve one request."""
        who = self._principal(peer, stream)
        route = self._routes.get(stream.method)
        if route is None:
            raise errors.UnimplementedError(f"this server does not do {stream.method} yet")
        await route(Request(who, stream, peer))

    def at_once(self, peer: Peer, stream: Stream) -> bool:
        """Serve a request that needs no waiting; False leaves it, with all that is wrong with it, to ``on_stream``."""
        serve = self._quick.get(stream.method)
        if serve is None:
            return False
        try:
            return serve(Request(self._principal(peer, stream), stream, peer))
        except errors.Error:
            return False

    def on_close(self, peer: Peer) -> None:
        """A connection is over."""
        self._peers.discard(peer)

    async def close(self) -> None:
        """End all connections."""
        for peer in list(self._peers):
            peer.close()
            await peer.wait_closed()

    def _principal(self, peer: Peer, stream: Stream) -> Principal:
        """Who asks. Raises what they may not."""
        who: Principal = peer.info["who"]
        if stream.container:
            node_id = str(peer.info.get("node_id", ""))
            who = auth.for_container(who, self._containers.principal(node_id, stream.container))
        permissions.check(who, stream.method)
        return who

    async def _who(self, peer: Peer) -> Principal:
        if peer.uid is not None:
            return auth.by_socket(peer)
        transport = peer.transport
        if transport is not None:
            address = transport.get_extra_info("peername")
            peer.info["address"] = address[0] if address else ""
        hello = peer.hello
        token = await self._tokens.find(hello.token_id, time.time()) if hello is not None and hello.token_id else None
        return auth.by_token(peer, token)
