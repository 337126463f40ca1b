#!/usr/bin/env python3
"""Measure web functions beside a bare uvicorn that serves the same line of FastAPI, in the same minutes.

    sudo .venv/bin/python bench/web.py                 # needs wrk, and fastapi, uvicorn and websockets in this Python
    sudo .venv/bin/python bench/web.py --ray           # and Ray Serve, installed into the state directory
    sudo .venv/bin/python bench/web.py --write         # and put the table into docs/performance.md

Rounds alternate between the ways, so that all of them meet the same neighbours. Asserts nothing: wrk, the gateway and
the application share the cores, as wrk and uvicorn do. Budgets are against the very process that serves the
``web_server`` function, asked inside its container's network.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import document
import machine as facts
import web_clients
import web_ways
from measured import Bench, Reading
from run import row
from web_ways import Way

MARKS = ("<!-- bench/web.py writes from here -->", "<!-- bench/web.py writes to here -->")
CONNECTIONS = 32
COLD = 7
BEYOND_A_COLD_START = 20  # ms that the first request may take longer than a call that starts the same container
FRAMES, PORT = "ASGI function", "web_server function"


def main() -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("/var/tmp/alight-bench"), help="state directory of the run")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=2, help="of each round of wrk")
    parser.add_argument("--ray", action="store_true", help="Ray Serve, too, from PyPI when it is not there")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    about = facts.describe()
    readings = warm(options)
    for how in ("on", "off"):
        readings += from_zero(options.home, how)
    lines = [*(f"- {line}" for line in about), ""]
    lines += ["| what | p50 | p90 | n | budget | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    text = "\n".join([*lines, *(row(one) for one in readings)])
    print(text)
    if options.write:
        document.put(MARKS, text)
    return 0


def warm(options: argparse.Namespace) -> list[Reading]:
    """What functions that are awake do."""
    bench = Bench.start(options.home)
    with contextlib.ExitStack() as stack:
        stack.callback(bench.close)
        bench.alight("deploy", "web_app.py")
        stack.callback(bench.alight, "app", "stop", "bench-web", "--yes")
        ours = [Way(FRAMES, url_of(bench, "frames")), Way(PORT, url_of(bench, "port"))]
        for one in ours:
            one.get()
        base = web_ways.in_container(bench)
        ways = [base, *ours, stack.enter_context(web_ways.bare(bench))]
        readings = [
            *requests(bench, ways, options.rounds, options.seconds),
            *asyncio.run(one_at_a_time(bench, [base, *ours])),
        ]
        with web_ways.relay(bench) as least:  # what one process more takes, on this machine and in this minute
            readings += asyncio.run(one_at_a_time(bench, [ways[-1], least]))
        readings += asyncio.run(crowds(bench, ways))
        if options.ray:  # last, and in turn with the same uvicorn: its processes are never idle
            peer = [base, stack.enter_context(web_ways.ray_serve(bench))]
            readings += requests(bench, peer, options.rounds, options.seconds)[1:]
            readings += asyncio.run(one_at_a_time(bench, peer))
        return readings


def url_of(bench: Bench, function: str) -> str:
    """Where a function of web_app.py answers."""
    address = json.loads((bench.home / "run" / "server.json").read_text())["web"]
    return f"http://{address}/_/main/bench-web/{function}/"


def requests(bench: Bench, ways: list[Way], rounds: int, seconds: int) -> list[Reading]:
    """How many, and what they take, at 32 connections."""
    found: dict[str, list[tuple[float, float, float]]] = {way.name: [] for way in ways}
    for number in range(rounds + 1):
        bench.say(f"requests, round {number} of {rounds}")
        for way in ways:
            took = way.wrk(CONNECTIONS, seconds if number else 1)
            if number:
                found[way.name].append(took)
    base, *others = [way.name for way in ways]
    readings = []
    for name in (base, *others):
        note = f"p50 {statistics.median(one[1] for one in found[name]):.2f} ms, "
        note += f"p99 {statistics.median(one[2] for one in found[name]):.1f}"
        rates = [one[0] for one in found[name]]
        what = f"requests of {CONNECTIONS} connections, {name}"
        readings.append(Reading(what, rates, "1/s", more_is_better=True, note=note))
    for name in others:
        pairs = list(zip(found[name], found[base]))
        is_ours = name in {FRAMES, PORT}
        shares = [100 * ours[0] / theirs[0] for ours, theirs in pairs]
        readings.append(Reading(f"{name}, of that in the container", shares, "%", 85 if is_ours else None, True))
        if is_ours:
            for which, what, budget in ((1, "a request's p50", 0.1), (2, "its p99", 1.0)):
                more = [ours[which] - theirs[which] for ours, theirs in pairs]
                readings.append(Reading(f"{name}, added to {what} at that load", more, "ms", budget))
    return readings


async def one_at_a_time(bench: Bench, ways: list[Way]) -> list[Reading]:
    """What is added to one request, one message, one first piece of a stream."""
    readings = []
    for what, took, budget in (
        ("a request alone on its connection", web_clients.one_by_one, 0.1),
        ("a WebSocket's echo", web_clients.echoes, 0.1),
        ("the first piece of a stream", web_clients.first_pieces, None),
    ):
        bench.say(what)
        found = await web_clients.in_turn(ways, took)
        base, *others = [way.name for way in ways]
        middle = f"{statistics.median(found[base]):.3g} ms without"
        for name in others:
            more = [mine - bare for mine, bare in zip(found[name], found[base])]
            kept = budget if name in {FRAMES, PORT} else None
            readings.append(Reading(f"{name}, added to {what}", more, "ms", kept, note=middle))
    return readings


async def crowds(bench: Bench, ways: list[Way]) -> list[Reading]:
    """What connections that are open, and WebSockets that talk, do to others; and what they take of the server."""
    bench.say(f"{web_clients.IDLE} idle connections and {web_clients.SOCKETS} WebSockets")
    frames = next(way for way in ways if way.name == FRAMES)
    bare = ways[-1]
    found, grown = await web_clients.crowd(bench, (frames, bare), CONNECTIONS)
    beside = f"beside {web_clients.IDLE} idle connections and {web_clients.SOCKETS} WebSockets"
    readings = []
    for way in (frames, bare):
        alone, crowded = found[way.name]
        note = f"{statistics.median(alone):.1f} ms without them, in turn"
        readings.append(Reading(f"p99 {beside}, {way.name}", crowded, "ms", note=note))
    return [*readings, Reading("memory that those take of the server", grown[:1], "MB")]


def from_zero(home: Path, templates: str) -> list[Reading]:
    """Requests that wake a function, and calls that wake one, with templates ("on") or without ("off").

    What a cold start is to a request, is that of an async function: both need an event loop. One of a plain function
    does without, and stands beside it.
    """
    bench = Bench.start(home, ALIGHT_TEMPLATES=templates)
    try:
        bench.alight("deploy", "web_app.py")
        bench.say(f"from zero, templates {templates}, {COLD} times")
        found = bench.python("web_cold.py", url_of(bench, "cold"), str(COLD))
        bench.alight("app", "stop", "bench-web", "--yes")
    finally:
        bench.close()
    how = "from a template" if templates == "on" else "plainly"
    calls, awaited = statistics.median(found["calls"]), statistics.median(found["awaited"])
    budget = 50 if templates == "on" else awaited + BEYOND_A_COLD_START
    note = f"a call, in turn: {awaited:.1f} ms to an async function, {calls:.1f} to a plain one"
    return [Reading(f"first request from zero, {how}", found["requests"], "ms", budget, note=note)]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1] / "src"))
    sys.exit(main())
