"""Programs on ports: what becomes of answers that come in pieces or are too long, and of connections that were kept."""

from __future__ import annotations

import asyncio

from tests.unit.gateway.program import Program
from tests.unit.gateway.test_requests import live
from tests.unit.gateway.world import GET, POST, World, answer

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
EMPTY_POST = POST + b"Content-Length: 0\r\n\r\n"
LONG = 3600.0


class Scripted:
    """A program that plays one part per connection: ``await part(reader, writer)``."""

    def __init__(self, world, *parts) -> None:
        Program(world)
        self.parts, self.connections = list(parts), 0
        world.programs = self

    async def __call__(self, reader, writer):
        part = self.parts[self.connections]
        self.connections += 1
        await part(reader, writer)


async def head_of(reader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def rest(reader) -> None:
    """Until the gateway ends the connection."""
    await reader.read()


async def until(condition) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come to that")


def age(world) -> None:
    """Make all kept connections old."""
    for server in world.gateway._servers.values():
        for connection in server._idle:
            connection.since -= LONG


@live
async def test_an_answer_in_single_bytes_is_the_same():
    said = b"HTTP/1.1 100 Continue\r\n\r\n"
    said += b"HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"

    async def drip(reader, writer):
        await head_of(reader)
        for at in range(len(said)):
            writer.write(said[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        await rest(reader)

    async with World() as world:
        Scripted(world, drip)
        async with world.client(GET) as (reader, _):
            first, fields, body = await answer(reader)
            assert (first, fields[b"X-A"], body) == (b"HTTP/1.1 200 OK", b"1", b"hi")


@live
async def test_the_head_leaves_before_its_body_comes():
    go_on = asyncio.Event()

    async def slow(reader, writer):
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        await go_on.wait()
        writer.write(b"data")
        await rest(reader)

    async with World() as world:
        Scripted(world, slow)
        async with world.client(GET) as (reader, _):
            assert b"content-length: 4" in await head_of(reader)
            go_on.set()
            assert await reader.readexactly(4) == b"data"


@live
async def test_what_a_program_says_beyond_its_answer_reaches_nobody_and_ends_its_connection():
    async def too_much(reader, writer):
        await head_of(reader)
        writer.write(HELLO + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nothers")
        assert await reader.read() == b"", "no second request comes here"

    async def decent(reader, writer):
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
        await rest(reader)

    async with World() as world:
        program = Scripted(world, too_much, decent)
        async with world.client(GET) as (reader, writer):
            assert (await answer(reader))[2] == b"hi"
            writer.write(GET)
            assert (await answer(reader))[2] == b"mine"
        assert program.connections == 2


@live
async def test_a_request_that_may_be_repeated_is_when_its_connection_was_kept_for_too_long():
    async def once(reader, writer):
        await head_of(reader)
        writer.write(HELLO)
        await head_of(reader)  # and ends the connection without an answer

    async def again(reader, writer):
        assert (await head_of(reader)).startswith(b"GET ")
        writer.write(HELLO)
        await rest(reader)

    async with World() as world:
        program = Scripted(world, once, again)
        async with world.client(GET) as (reader, writer):
            await answer(reader)
            writer.write(GET)
            assert (await answer(reader))[2] == b"hi"
        assert program.connections == 2


@live
async def test_a_request_that_may_not_be_repeated_is_sent_once():
    async def once(reader, writer):
        await head_of(reader)
        writer.write(HELLO)
        await head_of(reader)

    async with World() as world:
        program = Scripted(world, once)
        async with world.client(GET) as (reader, writer):
            await answer(reader)
            writer.write(EMPTY_POST)
            assert (await answer(reader))[0].split()[1] == b"502"
        assert program.connections == 1


@live
async def test_a_request_that_may_not_be_repeated_gets_no_connection_that_may_be_just_ending():
    async def once(reader, writer):
        await head_of(reader)
        writer.write(HELLO)
        assert not (await reader.read()).startswith(b"POST")

    async def other(reader, writer):
        assert (await head_of(reader)).startswith(b"POST ")
        writer.write(HELLO)
        await rest(reader)

    async with World() as world:
        program = Scripted(world, once, other)
        async with world.client(GET) as (reader, writer):
            await answer(reader)
            age(world)
            writer.write(EMPTY_POST)
            assert (await answer(reader))[2] == b"hi"
        assert program.connections == 2


@live
async def test_a_client_that_leaves_while_its_request_is_repeated_frees_its_place():
    left = asyncio.Event()

    async def once(reader, writer):
        await head_of(reader)
        writer.write(HELLO)
        await head_of(reader)

    async with World() as world:
        program = Scripted(world, once, rest)
        dial = world.gateway._dial

        async def held(container_id, port):
            if program.connections:
                await left.wait()
            return await dial(container_id, port)

        world.gateway._dial = held
        async with world.client(GET) as (reader, writer):
            await answer(reader)
            ports = next(iter(world.gateway._servers.values()))
            writer.write(GET)
            await until(lambda: ports._dialling)
        await until(lambda: not ports._dialling)
        left.set()
        lease = next(iter(next(iter(world.gateway._pools.values())).given.values()))
        assert lease.in_flight == 0
