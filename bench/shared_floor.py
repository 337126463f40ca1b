"""The least that a put can take on a machine: its system calls and thread switches, and nothing else.

A row of shared.py, which starts this file as a program of its own. Like the server it waits in an event loop, has a
thread write two pages with their headers to the end of a log and wait for the disk, and answers from the loop.

    shared_floor.py SOCKET LOG
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUEST, ANSWER, PAGE, FRAME_HEAD = bytes(220), bytes(60), bytes(4096), bytes(24)
LOG = 4 << 20  # bytes that are there and written over: as of a write-ahead log that was used before


def taken(folder: Path, count: int) -> list[float]:
    """Round trips one after another, in ms."""
    with _server(folder) as one:
        found = []
        for _ in range(count):
            began = time.perf_counter()
            one.sendall(REQUEST)
            one.recv(4096)
            found.append(1000 * (time.perf_counter() - began))
        return found


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[socket.socket]:
    path = folder / "floor.sock"
    process = subprocess.Popen([sys.executable, __file__, str(path), str(folder / "floor.log")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(path))
            yield one
    finally:
        process.terminate()
        process.wait()


class Answering(asyncio.Protocol):
    """One client."""

    def __init__(self, jobs: queue.SimpleQueue[asyncio.Transport]) -> None:
        self._jobs = jobs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        self._jobs.put(self._transport)


def _write(loop: asyncio.AbstractEventLoop, jobs: queue.SimpleQueue[asyncio.Transport], log: int) -> None:
    at = 0
    while True:
        transport = jobs.get()
        for _ in range(2):
            os.pwrite(log, FRAME_HEAD, at)
            os.pwrite(log, PAGE, at + len(FRAME_HEAD))
            at = (at + len(FRAME_HEAD) + len(PAGE)) % (LOG - 2 * len(PAGE))
        os.fdatasync(log)
        loop.call_soon_threadsafe(transport.write, ANSWER)


async def _serve(path: str, log: int) -> None:
    loop, jobs = asyncio.get_running_loop(), queue.SimpleQueue()
    threading.Thread(target=_write, args=(loop, jobs, log), daemon=True).start()
    server = await loop.create_unix_server(lambda: Answering(jobs), path)
    print("ready", flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until ended."""
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    log = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT, 0o600)
    os.write(log, bytes(LOG))
    os.fsync(log)
    asyncio.run(_serve(sys.argv[1], log))


if __name__ == "__main__":
    main()
