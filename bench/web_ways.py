"""The ways to one line of FastAPI that bench/web.py compares, and how each is reached."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measured import Bench

BARE_PORT, RAY_PORT, RELAY_PORT = 9471, 9472, 9473
PEER = Path(__file__).resolve().with_name("peer_ray_serve.py")
_NETWORK = 0x40000000  # CLONE_NEWNET
_PATIENCE = 120.0  # seconds for a server to come up


@dataclass(frozen=True)
class Way:
    """Where the application answers. ``inside``: a process whose network it is in, 0: this one's."""

    name: str
    url: str
    inside: int = 0

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://").partition("/")[0]

    @property
    def path(self) -> str:
        return "/" + self.url.removeprefix("http://").partition("/")[2]

    def wrk(self, connections: int, seconds: int) -> tuple[float, float, float]:
        """Requests a second; and p50 and p99 in ms."""
        words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", self.url]
        if self.inside:
            words = ["nsenter", "-n", "-t", str(self.inside), *words]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in said or "Socket errors" in said:
            raise RuntimeError(said)
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1))
        return rate, _percentile(said, "50%"), _percentile(said, "99%")

    async def connected(self) -> socket.socket:
        """A socket that leads there."""
        made = await asyncio.to_thread(_socket_in, self.inside)
        name, _, port = self.host.partition(":")
        await asyncio.get_running_loop().sock_connect(made, (name, int(port)))
        return made

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        return await asyncio.open_connection(sock=await self.connected())

    def get(self, path: str = "") -> float:
        """One request on a connection of its own, in ms; waits for a server that is only just coming up."""
        until = time.monotonic() + _PATIENCE
        while True:
            began = time.perf_counter()
            try:
                urllib.request.urlopen(self.url + path, timeout=60).read()
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return 1000 * (time.perf_counter() - began)


def _percentile(said: str, which: str) -> float:
    """A line of wrk's latencies, in ms."""
    value, unit = re.search(rf"\n +{re.escape(which)}\s+([\d.]+)(us|ms|s)", said).groups()
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def _socket_in(process: int) -> socket.socket:
    """A socket of a process's network. Runs in a thread, which comes back to where it was."""
    if not process:
        made = socket.socket()
    else:
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net", "rb") as here, open(f"/proc/{process}/ns/net", "rb") as there:
            if libc.setns(there.fileno(), _NETWORK):
                raise OSError(ctypes.get_errno(), "setns")
            try:
                made = socket.socket()
            finally:
                if libc.setns(here.fileno(), _NETWORK):
                    os._exit(70)  # this thread would go on in another network
    made.setblocking(False)
    return made


@contextlib.contextmanager
def bare(bench: Bench) -> Iterator[Way]:
    """The application under uvicorn, without any of Alight."""
    words = [sys.executable, "-m", "uvicorn", "--factory", "web_site:site", "--port", str(BARE_PORT), "--no-access-log"]
    with _running(words, bench) as way:
        yield Way("bare uvicorn on the host", way.url)


@contextlib.contextmanager
def relay(bench: Bench) -> Iterator[Way]:
    """A process that passes bytes on to ``bare`` and does nothing else: the least that a gateway can add."""
    words = [sys.executable, str(bench.folder / "web_relay.py"), str(RELAY_PORT), str(BARE_PORT)]
    with _running(words, bench, RELAY_PORT) as way:
        yield Way("a relay of bytes on the host", way.url)


@contextlib.contextmanager
def ray_serve(bench: Bench) -> Iterator[Way]:
    """The application under Ray Serve, in a virtual environment of its own."""
    folder = bench.home / "ray"
    python = folder / "bin" / "python"
    if not (folder / "bin" / "serve").exists():
        bench.say("installing Ray Serve")
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "ray[serve]"], check=True)
    with _running([str(python), str(PEER), str(RAY_PORT)], bench, RAY_PORT) as way:
        yield Way("Ray Serve", way.url)


@contextlib.contextmanager
def _running(words: list[str], bench: Bench, port: int = BARE_PORT) -> Iterator[Way]:
    with (bench.folder / f"server-{port}").open("w") as said:
        process = subprocess.Popen(
            words,
            cwd=bench.folder,
            env={**os.environ, "PYTHONPATH": str(bench.folder)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    way = Way("", f"http://127.0.0.1:{port}/")
    try:
        way.get()
        yield way
    finally:
        process.terminate()
        process.wait()


def in_container(bench: Bench) -> Way:
    """The uvicorn that a ``web_server`` function has started, reached in its container's network: the same process."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and b"uvicorn\0--factory\0web_site:site" in (entry / "cmdline").read_bytes():
                container = re.search(rb"ALIGHT_TASK_ID=([\w-]+)", (entry / "environ").read_bytes())
                if container and (bench.home / "node" / "containers" / container[1].decode()).exists():
                    return Way("bare uvicorn in the container", "http://127.0.0.1:8000/", int(entry.name))
    raise RuntimeError("the container of the web_server function was not found")
