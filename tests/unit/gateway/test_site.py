"""Protects the server's own pages at the gateway: their host, answers that go on, readers that are slow or leave."""

from __future__ import annotations

import asyncio
import json

import pytest

from alight.gateway import websocket
from alight.gateway.table import Names
from tests.unit.gateway.world import World, answer

HOST = b"Host: alight.localhost\r\n"


class Site:
    """Answers as a test says; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked, self.sockets = [], []
        self.closed = asyncio.Event()
        self.begun = asyncio.Event()
        self.sent = 0
        self.status = 200

    async def answer(self, asked):
        self.asked.append(asked)
        if asked.target == "/fault":
            raise RuntimeError("a fault of ours")
        if asked.target == "/bad":
            return 200, {"x": "a\r\nset-cookie: b=c"}, b""
        if asked.target.startswith("/stream"):
            return 200, {"content-type": "text/event-stream"}, self.pieces(asked.target)
        said = {"method": asked.method, "body": asked.body.decode(), "cookies": asked.cookies, "secure": asked.secure}
        return self.status, {"content-type": "application/json"}, json.dumps(said).encode()

    async def pieces(self, target):
        try:
            self.begun.set()
            if target == "/stream/short":
                yield b"one"
                yield b"two"
                return
            if target == "/stream/quiet":
                yield b"one"
                await asyncio.Event().wait()
            if target == "/stream/fault":
                yield b"one"
                raise RuntimeError("a fault of ours")
            while True:
                yield b"x" * 65536
                self.sent += 65536
                await asyncio.sleep(0)
        finally:
            self.closed.set()

    async def socket(self, asked):
        self.sockets.append(asked)
        if asked.target != "/echo":
            return 403, {"content-type": "text/plain"}, b"no\n"

        async def serve(talk):
            while (message := await talk.recv()) is not None:
                await talk.send(message)
            self.closed.set()

        return serve


def run(work):
    async def main():
        async with World() as world:
            world.gateway.site = site = Site()
            await work(world, site)

    asyncio.run(main())


def test_requests_for_its_host_are_answered_by_it_and_for_no_other():
    async def work(world, site):
        world.table.names = Names("apps.example")
        async with world.client(
            b"POST /p?q=1 HTTP/1.1\r\n" + HOST + b"Cookie: a=b\r\nContent-Length: 2\r\n\r\nhi"
        ) as ends:
            first, _, body = await answer(ends[0])
            assert first == b"HTTP/1.1 200 OK"
            assert json.loads(body) == {"method": "POST", "body": "hi", "cookies": ["a=b"], "secure": False}
            ends[1].write(b"GET / HTTP/1.1\r\nHost: alight.apps.example\r\n\r\n")  # the connection is kept
            assert (await answer(ends[0]))[0] == b"HTTP/1.1 200 OK"
        assert [one.target for one in site.asked] == ["/p?q=1", "/"]
        for host in (b"localhost", b"127.0.0.1", b"alight.example", b"alight.alight.internal", b"x.alight.localhost"):
            said = await world.said(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
            assert said[:12] in {b"HTTP/1.1 404", b"HTTP/1.1 421"}, (host, said)
        assert len(site.asked) == 2

    run(work)


def test_code_in_containers_does_not_reach_it(tmp_path):
    """Containers come by a socket of their own and may say any host."""

    async def work(world, site):
        path = str(tmp_path / "web.sock")
        server = await world.loop.create_unix_server(world.gateway.client, path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await answer(reader))[0] == b"HTTP/1.1 404 Not Found"
        assert not site.asked
        writer.close()
        server.close()

    run(work)


def test_an_answer_in_pieces_and_then_the_next_request():
    async def work(world, site):
        async with world.client(b"GET /stream/short HTTP/1.1\r\n" + HOST + b"\r\n") as (reader, writer):
            assert (await answer(reader))[2] == b"onetwo"
            writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            assert (await answer(reader))[0] == b"HTTP/1.1 200 OK"

    run(work)


def test_a_fault_in_the_middle_cuts_the_answer_off_and_one_before_it_is_a_500():
    async def work(world, site):
        cut = await world.said(b"GET /stream/fault HTTP/1.1\r\n" + HOST + b"\r\n")
        assert b"one" in cut
        assert not cut.endswith(b"0\r\n\r\n"), "it must not look whole"
        for path in (b"/fault", b"/bad"):
            async with world.client(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n") as (reader, _):
                first, fields, _ = await answer(reader)
                assert first == b"HTTP/1.1 500 Internal Server Error"
                assert b"set-cookie" not in fields

    run(work)


def test_who_leaves_ends_the_stream_and_who_reads_slowly_holds_it():
    async def work(world, site):
        async with world.client(b"GET /stream/endless HTTP/1.1\r\n" + HOST + b"\r\n") as (reader, _):
            await asyncio.wait_for(site.begun.wait(), 5)
            for _ in range(200):
                await asyncio.sleep(0)
            # Nobody reads: what is ahead of the client is bounded by buffers, not by what there is to send.
            while True:
                before = site.sent
                await asyncio.sleep(0.2)
                if site.sent == before:
                    break
            assert site.sent < 64 << 20
            await asyncio.wait_for(reader.readexactly(8 << 20), 10)
            await asyncio.sleep(0.1)
            assert site.sent > before, "it goes on once there is room"
            assert not site.closed.is_set()
        await asyncio.wait_for(site.closed.wait(), 5)

    run(work)


def test_who_leaves_while_nothing_comes_ends_the_stream_too():
    async def work(world, site):
        async with world.client(b"GET /stream/quiet HTTP/1.1\r\n" + HOST + b"\r\n") as (reader, _):
            await asyncio.wait_for(reader.readuntil(b"one"), 5)
        await asyncio.wait_for(site.closed.wait(), 5)

    run(work)


def test_a_body_that_is_too_large_is_refused():
    async def work(world, site):
        said = await world.said(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2000000\r\n\r\n" + b"x" * 1100000)
        assert said.startswith(b"HTTP/1.1 413")
        assert not site.asked

    run(work)


WEBSOCKET = (
    HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(kind, payload):
    frame = bytearray(websocket.encode(kind, payload))
    frame[1] |= 128
    head = 2 if len(payload) < 126 else 4
    return bytes(frame[:head]) + b"\0\0\0\0" + payload


def test_a_websocket_speaks_and_ends_with_its_client():
    async def work(world, site):
        async with world.client(b"GET /echo HTTP/1.1\r\n" + WEBSOCKET) as (reader, writer):
            assert b"101" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert site.sockets[0].headers["upgrade"] == "websocket", "whoever answers has to know"
            writer.write(masked(websocket.TEXT, b"hello") + masked(websocket.BINARY, b"\x00\xff"))
            assert await reader.readexactly(7) == websocket.encode(websocket.TEXT, b"hello")
            assert await reader.readexactly(4) == websocket.encode(websocket.BINARY, b"\x00\xff")
        await asyncio.wait_for(site.closed.wait(), 5)

    run(work)


@pytest.mark.parametrize(("path", "status"), [(b"/other", b"403"), (b"/echo", b"400")])
def test_a_websocket_that_is_not_taken_is_answered(path, status):
    async def work(world, site):
        head = WEBSOCKET if status == b"403" else WEBSOCKET.replace(b"Version: 13", b"Version: 8")
        assert (await world.said(b"GET " + path + b" HTTP/1.1\r\n" + head)).startswith(b"HTTP/1.1 " + status)

    run(work)
