"""What bench/web.py's clients do: requests one by one, echoes, streams, and a crowd of connections."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from typing import TYPE_CHECKING

from measured import processes_of, resident_mb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from measured import Bench
    from web_ways import Way

BLOCK, BLOCKS = 100, 15  # requests or messages in a row, and how often
STREAMS = 10  # in a row
IDLE, SOCKETS = 1000, 200
CROWDED, SECONDS = 5, 2  # rounds of wrk, and how long each is


async def in_turn(ways: Sequence[Way], took: Callable[[Way], Awaitable[float]]) -> dict[str, list[float]]:
    """Medians of blocks, one of each way after the other."""
    found: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(BLOCKS + 1):
        for way in ways:
            middle = await took(way)
            if number:
                found[way.name].append(middle)
    return found


async def one_by_one(way: Way) -> float:
    """The median of requests on one connection, each after the answer to the one before, in ms."""
    reader, writer = await way.streams()
    request = f"GET {way.path} HTTP/1.1\r\nHost: {way.host}\r\n\r\n".encode()
    took = []
    for _ in range(BLOCK):
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head).group(1)))
        took.append(1000 * (time.perf_counter() - began))
    writer.close()
    return statistics.median(took)


async def first_pieces(way: Way) -> float:
    """The median from a request to the first piece of a stream whose second comes 50 ms later, in ms."""
    reader, writer = await way.streams()
    request = f"GET {way.path}stream HTTP/1.1\r\nHost: {way.host}\r\n\r\n".encode()
    took = []
    for _ in range(STREAMS):
        began = time.perf_counter()
        writer.write(request)
        await reader.readuntil(b"first")
        took.append(1000 * (time.perf_counter() - began))
        await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    return statistics.median(took)


async def echoes(way: Way) -> float:
    """The median of messages to a WebSocket and back, in ms."""
    took = []
    async with await opened(way) as socket:
        for _ in range(BLOCK):
            began = time.perf_counter()
            await socket.send("hello")
            await socket.recv()
            took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


async def opened(way: Way):
    """A WebSocket that echoes."""
    from websockets.asyncio.client import connect

    url = f"ws://{way.host}{way.path}echo"
    return await connect(url, sock=await way.connected(), compression=None, ping_interval=None)


async def crowd(
    bench: Bench, ways: Sequence[Way], connections: int
) -> tuple[dict[str, tuple[list[float], list[float]]], list[float]]:
    """p99 of requests in ms, first without and then with a crowd at both ways; and MB that it takes of the server."""
    server = next(pid for pid, name in processes_of(bench.home).items() if name == "alight.server")
    found: dict[str, tuple[list[float], list[float]]] = {way.name: ([], []) for way in ways}
    grown: list[float] = []
    for _ in range(CROWDED):
        for way in ways:
            found[way.name][0].append((await asyncio.to_thread(way.wrk, connections, SECONDS))[2])
        before = resident_mb(server)
        idle = [await way.streams() for way in ways for _ in range(IDLE)]
        sockets = [await opened(way) for way in ways for _ in range(SOCKETS)]
        for way in ways:
            for one in sockets:
                await one.send("hello")
                await one.recv()
            found[way.name][1].append((await asyncio.to_thread(way.wrk, connections, SECONDS))[2])
        grown.append(resident_mb(server) - before)
        for one in sockets:
            await one.close()
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
    return found, grown
