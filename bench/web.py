#!/usr/bin/env python3
"""Measure web functions beside a bare uvicorn that serves the same line of FastAPI, in the same minutes.

    sudo .venv/bin/python bench/web.py                 # needs wrk, and fastapi, uvicorn and websockets in this Python
    sudo .venv/bin/python bench/web.py --write         # and put the table into docs/performance.md

Rounds alternate between the ways, so that all of them meet the same neighbours. Asserts nothing: wrk, the gateway and
the application share the cores, as wrk and uvicorn do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))

import machine as facts
from measured import Bench, Reading
from run import row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- bench/web.py writes from here -->", "<!-- bench/web.py writes to here -->"
BARE_PORT = 9471
CONNECTIONS = 32
BLOCK, BLOCKS = 100, 15  # requests or messages in a row, and how often
IDLE = 1000


def main() -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("/var/tmp/alight-bench"), help="state directory of the run")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=4, help="of each round of wrk")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    bench = Bench.start(options.home)
    try:
        with bare(bench):
            bench.alight("deploy", "web_app.py")
            readings = measure(bench, options.rounds, options.seconds)
            bench.alight("app", "stop", "bench-web", "--yes")
    finally:
        bench.close()
    lines = [*(f"- {line}" for line in facts.describe()), ""]
    lines += ["| what | p50 | p90 | n | budget | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    text = "\n".join([*lines, *(row(one) for one in readings)])
    print(text)
    if options.write:
        before, rest = DOCUMENT.read_text().split(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")
    return 0


def measure(bench: Bench, rounds: int, seconds: int) -> list[Reading]:
    """Every row."""
    port = (bench.home / "server" / "web.port").read_text().strip()
    ways = {
        "bare uvicorn": f"http://127.0.0.1:{BARE_PORT}/",
        "ASGI function": f"http://127.0.0.1:{port}/_/main/bench-web/frames/",
        "web_server function": f"http://127.0.0.1:{port}/_/main/bench-web/port/",
    }
    for url in ways.values():
        get(url)
        wrk(url, 1)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    middles: dict[str, list[float]] = {name: [] for name in ways}
    tails: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        bench.say(f"requests, round {number + 1} of {rounds}")
        for name, url in ways.items():
            rate, p50, p99 = wrk(url, seconds)
            rates[name].append(rate)
            middles[name].append(p50)
            tails[name].append(p99)
    plain = statistics.median(rates["bare uvicorn"])
    readings = []
    for name in ways:
        budget = None if name == "bare uvicorn" else 0.85 * plain
        what = f"requests of {CONNECTIONS} connections, {name}"
        readings.append(Reading(what, rates[name], "1/s", budget, more_is_better=True))
    for name in list(ways)[1:]:
        note = "p50 at that load, less that of bare uvicorn"
        readings.append(Reading(f"added to a request, {name}", less(middles, name), "ms", None, note=note))
        note = "p99, likewise"
        readings.append(Reading(f"added to a slow one, {name}", less(tails, name), "ms", None, note=note))
    for what, took in (("request alone on its connection", one_by_one), ("WebSocket's echo", echoes)):
        bench.say(what)
        single = asyncio.run(in_turn(ways, took))
        readings += [Reading(f"added to a {what}, {name}", less(single, name), "ms", 0.1) for name in list(ways)[1:]]
    readings.append(first_requests(bench, f"http://127.0.0.1:{port}/_/main/bench-web/cold/"))
    readings += asyncio.run(crowd(ways["ASGI function"], bench))
    return readings


def less(figures: dict[str, list[float]], name: str) -> list[float]:
    """A way's figures less the bare one's of the same round."""
    return [ours - bare_ for ours, bare_ in zip(figures[name], figures["bare uvicorn"])]


@contextlib.contextmanager
def bare(bench: Bench):
    """The same application under uvicorn, without any of Alight."""
    words = ["-m", "uvicorn", "--factory", "web_site:site", "--port", str(BARE_PORT), "--no-access-log"]
    process = subprocess.Popen([sys.executable, *words], cwd=bench.folder, stderr=subprocess.DEVNULL)
    try:
        get(f"http://127.0.0.1:{BARE_PORT}/")
        yield
    finally:
        process.terminate()
        process.wait()


def get(url: str) -> float:
    """One request on a connection of its own, in ms; waits for a server that is only just coming up."""
    until = time.monotonic() + 60
    while True:
        began = time.perf_counter()
        try:
            urllib.request.urlopen(url, timeout=60).read()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return 1000 * (time.perf_counter() - began)


def wrk(url: str, seconds: int) -> tuple[float, float, float]:
    """Requests a second; and p50 and p99 in ms."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency", url]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1))
    return rate, percentile(said, "50%"), percentile(said, "99%")


def percentile(said: str, which: str) -> float:
    """A line of wrk's latencies, in ms."""
    value, unit = re.search(rf"{re.escape(which)}\s+([\d.]+)(us|ms|s)", said).groups()
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


async def in_turn(ways: dict[str, str], took: Callable[[str], Awaitable[float]]) -> dict[str, list[float]]:
    """Medians of blocks, one of each way after the other."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(BLOCKS + 1):
        for name, url in ways.items():
            middle = await took(url)
            if number:
                found[name].append(middle)
    return found


async def one_by_one(url: str) -> float:
    """The median of requests on one connection, each after the answer to the one before, in ms."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    request = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    took = []
    for _ in range(BLOCK):
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head).group(1)))
        took.append(1000 * (time.perf_counter() - began))
    writer.close()
    return statistics.median(took)


async def echoes(url: str) -> float:
    """The median of messages to a WebSocket and back, in ms."""
    from websockets.asyncio.client import connect

    took = []
    async with connect(f"{url.replace('http', 'ws', 1)}echo", compression=None) as socket:
        for _ in range(BLOCK):
            began = time.perf_counter()
            await socket.send("hello")
            await socket.recv()
            took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def first_requests(bench: Bench, url: str) -> Reading:
    """Requests that wake a function from zero."""
    took = []
    for number in range(8):
        bench.say(f"from zero, {number + 1} of 8")
        if number:
            time.sleep(5)  # its containers end two seconds after the last request
        took.append(get(url))
    return Reading("first request from zero, with a template", took[1:], "ms", 50)


async def crowd(url: str, bench: Bench) -> list[Reading]:
    """p99 of requests, and the server's memory, while many connections are open and idle and WebSockets talk."""
    from measured import processes_of, resident_mb
    from websockets.asyncio.client import connect

    server = next(pid for pid, name in processes_of(bench.home).items() if name == "alight.server")
    bench.say(f"{IDLE} idle connections and 200 WebSockets")
    before = resident_mb(server)
    host = url.removeprefix("http://").partition("/")[0]
    name, _, port = host.partition(":")
    idle = [await asyncio.open_connection(name, int(port)) for _ in range(IDLE)]
    socket_url = f"{url.replace('http', 'ws', 1)}echo"
    sockets = [await connect(socket_url, compression=None) for _ in range(200)]
    took = []
    for _ in range(5):
        for one in sockets:
            await one.send("hello")
            await one.recv()
        took.append((await asyncio.to_thread(wrk, url, 3))[2])
    grown = resident_mb(server) - before
    for one in sockets:
        await one.close()
    for _, writer in idle:
        writer.close()
    what = f"p99 of {CONNECTIONS} connections beside {IDLE} idle ones and 200 WebSockets"
    return [Reading(what, took, "ms"), Reading("memory that those take of the server", [grown], "MB")]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1] / "src"))
    sys.exit(main())
