"""A whole server in this process, on a unix socket in a temporary folder, with fake machines."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from alight.link.dial import Answers, dial_unix
from alight.server import wiring
from alight.server.settings import Settings
from alight.testing.fakes import FakeNode
from alight.wire import chunk, ids, payload
from alight.wire.calling import CallStart, CallUpdate
from alight.wire.messages import AppCreate, AppCreated, AppPublish, AppPublished, Hello
from alight.wire.record import replace
from alight.wire.spec import FunctionSpec


class Client:
    """Speaks to the server as the SDK does."""

    def __init__(self, peer):
        self.peer = peer

    async def ask(self, method, args, reply):
        return await asyncio.wait_for(self.peer.call(method, args, reply), 5)

    async def app(self, *specs, **create):
        app = await self.ask("app.create", AppCreate(**create), AppCreated)
        published = await self.ask("app.publish", AppPublish(app.app_id, specs), AppPublished)
        return app.app_id, {one.name: one for one in published.functions}

    async def start(self, function, *args, call=None, **options):
        call_id = call or ids.new_id(ids.CALL)
        asked = CallStart(call_id, function.function_id, **options)
        stream = await self.peer.open("call.start", asked, payload.dumps_bytes((args, {})), end=True)
        stream.call_id = call_id
        return stream

    async def open_map(self, function, *, call=None, **options):
        """Begin a call of many inputs; they are sent with ``send``."""
        call_id = call or ids.new_id(ids.CALL)
        asked = CallStart(call_id, function.function_id, many=True, **{"verb": "map", **options})
        stream = await self.peer.open("call.start", asked)
        stream.call_id = call_id
        return stream

    async def send(self, stream, start, arguments):
        """One chunk of inputs of a map: each of ``arguments`` is the one argument of an input."""
        bodies = [payload.dumps_bytes(((one,), {})) for one in arguments]
        head = chunk.Inputs(stream.call_id, start, [len(body) for body in bodies]).encode()
        await stream.send_raw(head, b"".join(bodies))

    async def map(self, function, arguments, size=256, **options):
        """A whole map; returns its values by position (a CallUpdate for what is none), in the order they came."""
        stream = await self.open_map(function, **options)
        for start in range(0, len(arguments), size):
            await self.send(stream, start, arguments[start : start + size])
        await stream.end()
        return await self.gather(stream)

    async def gather(self, stream, until=None):
        """What comes of a call, by position, until its stream ends or so many came; ``stream.accepted`` is noted."""

        async def read():
            found = {}
            while until is None or len(found) < until:
                message = await stream.recv()
                if message is None:
                    break
                found.update(self.read(stream, *message))
            return found

        return await asyncio.wait_for(read(), 10)

    def read(self, stream, head, body):
        """The values in one message, by position; items by (position, number)."""
        if chunk.is_chunk(head):
            said = chunk.Outputs.decode(head)
            values = [payload.loads(bytes(piece)) for piece in chunk.cut(said.sizes, body)]
            keys = [(said.position, one) for one in said.positions] if said.is_items else said.positions
            return dict(zip(keys, values))
        update = stream.decode(CallUpdate, head)
        if update.state == "accepted":
            stream.accepted = update.accepted
        return {update.position: update} if update.state == "done" else {}

    async def remote(self, function, *args, **options):
        return await self.result(await self.start(function, *args, **options))

    async def result(self, stream):
        async def wait():
            async for head, body in stream:
                if chunk.is_chunk(head):
                    said = chunk.Outputs.decode(head)
                    update = CallUpdate(said.call_id, "done", status="success", attempt=said.attempt)
                    return replace(update, container=said.container), payload.loads(body)
                update = stream.decode(CallUpdate, head)
                if update.state == "done":
                    return update, (payload.loads(body) if body else None)
            raise AssertionError("the stream ended before the call was done")

        return await asyncio.wait_for(wait(), 5)


class World:
    """Starts servers, machines and clients for a test, and ends them."""

    def __init__(self, folder):
        self.settings = Settings(folder, "none", holder_grace=0.2, node_grace=0.3)
        self.server = None
        self.nodes = []
        self.peers = []

    @property
    def socket(self):
        return str(self.settings.run / "server.sock")

    async def serve(self, **settings):
        if settings:
            self.settings = Settings(self.settings.home, "none", **{"holder_grace": 30, "node_grace": 30, **settings})
        self.server = await wiring.start(self.settings)
        await self.server.listen_unix()
        return self.server

    async def node(self, functions=None, **facts):
        node = FakeNode(functions or {}, **facts)
        await node.connect(self.socket)
        self.nodes.append(node)
        await self.until(lambda: node.node_id in self.server.parts.loop.state.nodes)
        return node

    async def client(self):
        peer = await dial_unix(self.socket, Hello(1, "0", "client"), Answers())
        self.peers.append(peer)
        return Client(peer)

    async def until(self, condition, seconds=5.0):
        async def wait():
            while not condition():  # noqa: ASYNC110  conditions of parts that know no events
                await asyncio.sleep(0.002)

        await asyncio.wait_for(wait(), seconds)

    async def crash(self):
        """End the server without its goodbye: what was not on disk is lost."""
        server, self.server = self.server, None
        for listener in server._listeners:
            listener.close()
        server._janitor.close()
        server._schedules.close()
        server.parts.loop.close()
        server._usage.stop()
        server._stored.close()
        server.parts.apps.leases.close()
        server.parts.nodes.close()
        server.parts.hub.on_watched = None
        await server.front.close()
        await server.parts.shared.store.close()
        await server.parts.store.close()
        server.parts.logs.close()

    async def close(self):
        for node in self.nodes:
            await node.disconnect()
        for peer in self.peers:
            peer.close()
            await peer.wait_closed()
        if self.server is not None:
            await self.server.close()
        await asyncio.sleep(0)  # transports close in the turn after


@pytest.fixture
def world(tmp_path):
    """``world(work)`` runs ``work(World)`` on an event loop of its own."""

    def drive(work):
        async def main():
            place = World(tmp_path / "home")
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(place.close)
                return await work(place)

        return asyncio.run(main())

    return drive


def spec(name="double", **fields):
    return FunctionSpec(name=name, **fields)


__all__ = ["SimpleNamespace", "spec"]
