"""The way from the gateway into a container: a descriptor on one machine, a stream between two, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace

import pytest

from alight.link.dial import Answers, dial_unix, serve
from alight.node import dials as of_node
from alight.server.services.dials import Dials
from alight.wire import errors
from alight.wire.commands import Dial
from alight.wire.messages import Hello
from alight.wire.version import WIRE_VERSION, __version__


class Engine:
    """Containers are folders; their network is ours."""

    def __init__(self, folder) -> None:
        self.folder = folder

    def directory(self, container_id):
        return self.folder / container_id

    async def netns_socket(self, container_id, family, kind):
        return socket.socket(family, kind)


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data.upper())
        await writer.drain()
    writer.close()


class World:
    """A node with one container that echoes, and the server's side. ``local``: both are on one machine."""

    def __init__(self, folder, local) -> None:
        self.folder, self.local = folder, local
        self.spool = folder / "ta-1" / "spool"
        self.spool.mkdir(parents=True)
        (folder / "run").mkdir()

    async def __aenter__(self):
        running = SimpleNamespace(running=True)
        self.node = of_node.Dials(Engine(self.folder), {"ta-1": running}, self.folder / "run" / "dial.sock")
        if self.local:
            self.node.open()
        self.runtime = await asyncio.start_unix_server(echo, str(self.spool / "web.sock"))
        self.program = await asyncio.start_server(echo, "127.0.0.1", 0)
        self.port = self.program.sockets[0].getsockname()[1]
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        listener.bind(str(self.folder / "server.sock"))

        async def greet(peer):
            return Hello(WIRE_VERSION, __version__, "server")

        async def on_stream(peer, stream):
            assert stream.method == "node.dial"
            await self.node.serve(stream)

        self.server = await serve(listener, Answers(on_hello=greet, on_stream=on_stream))
        self.peer = await dial_unix(str(self.folder / "server.sock"), Hello(WIRE_VERSION, __version__, "server"))
        self.peer.uid = 0 if self.local else None
        containers = SimpleNamespace(alive={"ta-1": SimpleNamespace(node_id="no-1")})
        nodes = SimpleNamespace(sessions={"no-1": SimpleNamespace(peer=self.peer)})
        self.dials = Dials(containers, nodes, self.folder / "run")
        return self

    async def __aexit__(self, *failure):
        self.dials.close()
        self.node.close()
        self.peer.close()
        for one in (self.runtime, self.program, self.server):
            one.close()
        await asyncio.sleep(0.05)


def run(test):
    asyncio.run(asyncio.wait_for(test, 20))


@pytest.mark.parametrize("local", [True, False])
def test_bytes_go_both_ways_to_runtimes_and_to_ports(tmp_path, local):
    async def test():
        async with World(tmp_path, local) as world:
            for port in (0, world.port):
                sock = await world.dials.dial("ta-1", port)
                assert not sock.getblocking()
                reader, writer = await asyncio.open_connection(sock=sock)
                body = os.urandom(3 << 20).lower()
                writer.write(body)
                writer.write_eof()
                assert await reader.read() == body.upper()
                writer.close()

    run(test())


@pytest.mark.parametrize("local", [True, False])
def test_what_cannot_be_reached_says_so(tmp_path, local):
    async def test():
        async with World(tmp_path, local) as world:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                closed = free.getsockname()[1]
            with pytest.raises(errors.ConnectionError, match=f"port {closed} of ta-1"):
                await world.dials.dial("ta-1", closed)
            with pytest.raises(errors.NotFoundError):
                await world.dials.dial("ta-2", 0)

    run(test())


@pytest.mark.parametrize("kind", ["link", "file", "nothing"])
def test_what_a_container_lays_in_place_of_its_socket_is_not_followed(tmp_path, kind):
    async def test():
        async with World(tmp_path, local=True) as world:
            path = world.spool / "web.sock"
            path.unlink()
            other = await asyncio.start_unix_server(echo, str(tmp_path / "of the host.sock"))
            if kind == "link":
                path.symlink_to(tmp_path / "of the host.sock")
            elif kind == "file":
                path.write_text("")
            with pytest.raises(errors.ConnectionError):
                await world.node.connect(Dial("ta-1"))
            other.close()

    run(test())


def test_the_socket_of_a_node_is_for_its_owner_alone(tmp_path):
    async def test():
        async with World(tmp_path, local=True):
            assert (tmp_path / "run" / "dial.sock").stat().st_mode & 0o777 == 0o600

    run(test())
