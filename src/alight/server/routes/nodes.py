"""The session of a machine: one stream for as long as it is connected."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.services.nodes import Nodes
from alight.wire import errors
from alight.wire.commands import NodeHello


def routes(nodes: Nodes) -> Routes:
    async def session(request: Request) -> None:
        hello = request.arguments(NodeHello)
        if not hello.node_id or hello.cpus <= 0 or hello.memory <= 0:
            raise errors.InvalidError("a machine says its id, cores and memory when it joins")
        joined = await nodes.join(request.peer, request.stream, hello)
        try:
            request.stream.listen(lambda head, body: nodes.reports.on_message(joined, head, body))
            await request.stream.recv()
        except errors.ConnectionError:
            return  # how every session ends
        finally:
            nodes.left(joined)

    return {"node.session": session}
