"""WebSockets and programs of the user's own, through a live gateway."""

from __future__ import annotations

import asyncio
import struct

from alight.gateway import websocket
from alight.wire import web
from tests.unit.gateway.program import Program
from tests.unit.gateway.test_requests import live
from tests.unit.gateway.test_websocket import frame
from tests.unit.gateway.world import GET, POST, World, answer

ASK = (
    b"GET /ws HTTP/1.1\r\nHost: hello.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ACCEPT = web.pack(0, [b"chat", b"x-a", b"1"])


async def opened(world, reader):
    got = await world.request()
    assert got.flags & web.WEBSOCKET
    got.send(web.ACCEPT, ACCEPT)
    said = await reader.readuntil(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in said
    assert b"sec-websocket-protocol: chat" in said
    assert b"x-a: 1" in said
    return got


async def received(reader) -> tuple[int, bytes]:
    first, size = await reader.readexactly(2)
    if size == 126:
        size = struct.unpack("!H", await reader.readexactly(2))[0]
    elif size == 127:
        size = struct.unpack("!Q", await reader.readexactly(8))[0]
    return first & 15, await reader.readexactly(size)


@live
async def test_messages_go_both_ways_and_pings_are_answered_here():
    async with World() as world, world.client(ASK + frame(0x81, b"early")) as (reader, writer):
        got = await opened(world, reader)
        await got.until(lambda: got.messages == [(web.TEXT, b"early")])
        writer.write(frame(0x89, b"are you there") + frame(0x82, b"bytes"))
        assert await received(reader) == (websocket.PONG, b"are you there")
        await got.until(lambda: len(got.messages) == 2)
        assert got.messages[1] == (0, b"bytes")
        got.send(web.MESSAGE, bytes((web.TEXT,)), b"text")
        got.send(web.MESSAGE, b"\0", bytes(70_000))
        assert await received(reader) == (websocket.TEXT, b"text")
        assert await received(reader) == (websocket.BINARY, bytes(70_000))
        await got.until(lambda: got.credit >= 70_000)


@live
async def test_either_side_may_close():
    async with World() as world:
        async with world.client(ASK) as (reader, writer):
            got = await opened(world, reader)
            writer.write(frame(0x88, struct.pack("!H", 4001) + b"bye"))
            assert (await received(reader))[0] == websocket.CLOSE
            await got.until(lambda: got.closed == (4001, b"bye"))
            assert await reader.read() == b""
        async with world.client(ASK) as (reader, _):
            got = await opened(world, reader)
            got.send(web.CLOSE, b"", struct.pack("!H", 3000) + b"enough")
            assert await received(reader) == (websocket.CLOSE, struct.pack("!H", 3000) + b"enough")


@live
async def test_a_client_that_vanishes_and_one_that_breaks_the_protocol_are_told_to_the_application():
    async with World(message_bytes=100) as world:
        async with world.client(ASK) as (reader, _):
            got = await opened(world, reader)
        await got.until(lambda: got.closed == (1006, b""))
        async with world.client(ASK) as (reader, writer):
            got = await opened(world, reader)
            writer.write(frame(0x82, bytes(101)))
            kind, payload = await received(reader)
            assert (kind, payload[:2]) == (websocket.CLOSE, struct.pack("!H", 1009))
            await got.until(lambda: got.closed is not None and got.closed[0] == 1009)


@live
async def test_an_application_may_deny_it_and_a_wrong_request_never_gets_there():
    async with World() as world:
        async with world.client(ASK) as (reader, _):
            (await world.request()).respond(b"no", status=403)
            assert (await answer(reader))[0].split()[1] == b"403"
        said = await world.said(
            ASK.replace(b"Version: 13", b"Version: 8").replace(b"Upgrade\r\n", b"Upgrade, close\r\n")
        )
        assert said.startswith(b"HTTP/1.1 426 ")
        assert world.arrived.empty()


@live
async def test_a_socket_whose_client_says_nothing_is_asked_and_then_closed():
    async with World(ping_seconds=0.5) as world, world.client(ASK) as (reader, _):
        got = await opened(world, reader)
        assert await received(reader) == (websocket.PING, b"")
        assert await reader.read() == b""
        await got.until(lambda: got.closed == (1006, b""))


@live
async def test_an_application_that_does_not_read_stops_the_clients_messages():
    async with World() as world, world.client(ASK) as (reader, writer):
        got = await opened(world, reader)
        message = frame(0x82, bytes(100_000))
        for _ in range(200):
            writer.write(message)
        await asyncio.sleep(0.3)
        assert len(got.messages) == 2, "more than the window"
        got.send(web.CREDIT, b"", (200_000).to_bytes(4, "big"))
        await got.until(lambda: len(got.messages) == 4)


# programs


@live
async def test_a_programs_connection_is_kept_and_used_again():
    async with World() as world:
        program = Program(
            world,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            b"HTTP/1.1 103 Early Hints\r\n\r\n"
            b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nuntil the end",
        )
        async with world.client(GET) as (reader, writer):
            assert (await answer(reader))[2] == b"hi"
            writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n")
            assert (await answer(reader))[2] == b"abc"
            writer.write(GET)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 304 ")
            writer.write(GET)
            assert (await answer(reader))[2] == b"until the end"
        assert program.connections == 1
        assert program.asked[0][0].startswith(b"GET /x?y=1 HTTP/1.1\r\nhost: hello.localhost\r\n")
        assert program.asked[1][1] == b"2\r\nxy\r\n0\r\n\r\n"


@live
async def test_an_upgrade_joins_both_sides():
    async with World() as world:
        Program(
            world, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: 1\r\n\r\n"
        )
        async with world.client(ASK) as (reader, writer):
            said = await reader.readuntil(b"\r\n\r\n")
            assert said.startswith(b"HTTP/1.1 101 ")
            assert b"X-A: 1" in said
            writer.write(b"anything")
            assert await reader.readexactly(8) == b"ANYTHING"


@live
async def test_a_program_that_answers_nonsense_or_hangs_up_is_a_502():
    async with World() as world:
        for said in (b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"):
            Program(world, said)
            async with world.client(GET) as (reader, _):
                assert (await answer(reader))[0].split()[1] == b"502"
        Program(world, b"close", b"close", b"close")
        async with world.client(POST + b"Content-Length: 1\r\n\r\nx") as (reader, _):
            assert (await answer(reader))[0].split()[1] == b"502"
