"""A gateway on a real port with a pretended container behind it, which speaks the frames and does what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from alight.gateway.gateway import Gateway
from alight.gateway.limits import Limits
from alight.gateway.table import Table, Target
from alight.wire import web
from alight.wire.codec import HEADER, FrameReader


class Request:
    """A request as the container got it."""

    def __init__(self, container, number, head, body) -> None:
        self.container, self.number = container, number
        self.flags, fields = web.unpack(head)
        (self.id, self.method, self.scheme, self.version, self.path, self.query, self.root) = fields[:7]
        self.ends, self.endpoint = fields[7:11], fields[11]
        self.fields = dict(zip(fields[12::2], fields[13::2]))
        self.body, self.done = body, bool(self.flags & web.LAST)
        self.messages, self.closed, self.cancelled, self.credit = [], None, False, 0
        self.news = asyncio.Event()

    def send(self, kind, head=b"", body=b""):
        self.container.send(kind, self.number, head, body)

    def respond(self, body=b"", *fields, status=200, last=True):
        self.send(web.RESPONSE, web.pack(web.LAST if last else 0, [b"%d" % status, *fields]), body)

    def more(self, body, last=False):
        self.send(web.BODY, bytes((web.LAST if last else 0,)), body)

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()


class Container(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self, world, name) -> None:
        self.world, self.name = world, name
        self.reader, self.requests = FrameReader(), {}

    def connection_made(self, transport):
        self.transport = transport
        self.world.containers[self.name] = self

    def send(self, kind, number, head=b"", body=b""):
        self.transport.write(HEADER.pack(len(head) + len(body), number, len(head), kind) + head + body)

    def data_received(self, data):
        for kind, number, head, body in self.reader.feed(data):
            if kind == web.REQUEST:
                one = self.requests[number] = Request(self, number, head, body)
                self.world.arrived.put_nowait(one)
                continue
            one = self.requests[number]
            if kind == web.BODY:
                one.body += body
                one.done = bool(head[0] & web.LAST)
            elif kind == web.MESSAGE:
                one.messages.append((head[0], body))
            elif kind == web.CLOSE:
                one.closed = struct.unpack_from("!H", body)[0], body[2:]
            elif kind == web.CREDIT:
                one.credit += struct.unpack("!I", body)[0]
            elif kind == web.CANCEL:
                one.cancelled = True
            one.news.set()


class World:
    """The gateway, what the scheduler would do, and clients. ``gives`` False: leases wait until ``give``."""

    def __init__(self, **limits) -> None:
        self.limits = Limits(**limits)
        self.table = Table()
        self.target = Target("fu-1", "hello", slots=100)
        self.containers, self.arrived = {}, asyncio.Queue()
        self.leases, self.ended, self.timed_out, self.cancelled, self.gives = [], [], [], [], True
        self.programs = None
        self.talks: set[asyncio.Task] = set()

    async def __aenter__(self):
        self.loop = asyncio.get_running_loop()
        self.gateway = Gateway(self.table, self, self.dial, lambda key, secret, target: secret == "open", self.limits)
        self.serve(self.target)
        self.server = await self.loop.create_server(self.gateway.client, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *failure):
        self.gateway.close()
        self.server.close()
        for one in self.containers.values():
            one.transport.abort()
        for talk in self.talks:
            talk.cancel()
        await asyncio.gather(*self.talks, return_exceptions=True)
        await asyncio.sleep(0)

    def serve(self, target):
        self.target = target
        self.table.fill({"hello": target}, {("main", "app", "hello"): target}, {"api.example.com": target})

    # the scheduler

    def ask(self, function_id):
        self.leases.append(f"wl-{len(self.leases) + 1}")
        if self.gives:
            self.loop.call_soon(self.gateway.given, self.leases[-1], f"ta-{len(self.leases)}")
        return self.leases[-1]

    def end(self, lease_id, *, timed_out=False):
        (self.timed_out if timed_out else self.ended).append(lease_id)

    def cancel(self, lease_id):
        self.cancelled.append(lease_id)

    def broken(self, container_id, why):
        raise AssertionError(why)

    async def dial(self, container_id, port):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        if port:
            streams = await asyncio.open_connection(sock=theirs)
            self.talks.add(self.loop.create_task(self._talk(*streams)))
        else:
            await self.loop.create_unix_connection(lambda: Container(self, container_id), sock=theirs)
        return ours

    async def _talk(self, reader, writer):
        try:
            await self.programs(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    # clients

    async def request(self) -> Request:
        """The next request that reaches a container."""
        return await asyncio.wait_for(self.arrived.get(), 10)

    @contextlib.asynccontextmanager
    async def client(self, data: bytes = b""):
        """A connection that has said something."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            yield reader, writer
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def said(self, data: bytes) -> bytes:
        """All that the gateway answers before it closes."""
        async with self.client(data) as (reader, _):
            return await asyncio.wait_for(reader.read(), 10)


async def answer(reader) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """The status line, the fields and the body of an answer with a length or in chunks."""
    async with asyncio.timeout(10):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
        fields = {line.partition(b":")[0]: line.partition(b":")[2].strip() for line in lines}
        if b"content-length" in fields:
            return first, fields, await reader.readexactly(int(fields[b"content-length"]))
        body = b""
        while fields.get(b"transfer-encoding") == b"chunked":
            size = int(await reader.readline(), 16)
            body += (await reader.readexactly(size + 2))[:-2]
            if not size:
                break
        return first, fields, body


GET = b"GET /x?y=1 HTTP/1.1\r\nHost: hello.localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: hello.localhost\r\n"
