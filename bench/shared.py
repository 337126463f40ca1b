#!/usr/bin/env python3
"""Dicts and queues: how fast values go in and come out, and how soon a waiting get is woken.

    .venv/bin/python bench/shared.py            # about a minute
    .venv/bin/python bench/shared.py --write    # and put the table into docs/performance.md

A server alone, without a machine, and programs beside it on its unix socket. Beside it, where it is installed, Redis
(`redis-server`) that writes each command to the disk before it answers (appendfsync always), and multiprocessing's
Manager, which keeps nothing. Compare rows of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import document
import machine as facts
import shared_floor
from measured import Reading
from run import row

from alight.sdk.client import Client, Target
from alight.sdk.dict import Dict
from alight.sdk.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARKS = ("<!-- bench/shared.py writes from here -->", "<!-- bench/shared.py writes to here -->")
MANY, ROUNDS = 5_000, 5
ONES = 400
PROGRAMS = 8
ENTRIES = 100_000


def main() -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    described = facts.describe()
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        readings = [flushes(folder)]
        with alight_server(folder / "home") as (path, process):
            readings += queues(path) + dicts(path, process)
        floor = shared_floor.taken(folder, ONES)
        readings.insert(1, Reading("a put's system calls and thread switches, and nothing else", floor, "ms"))
        with contextlib.ExitStack() as stack:
            if shutil.which("redis-server"):
                readings += redis(stack.enter_context(redis_server(folder)))
        readings += manager()
    finally:
        shutil.rmtree(folder)
    lines = [*(f"- {line}" for line in described), ""]
    lines += ["| what | p50 | p90 | n | budget | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    text = "\n".join([*lines, *(row(one) for one in readings)])
    print(text)
    if options.write:
        document.put(MARKS, text)
    return 0


def queues(path: str) -> list[Reading]:
    """Every row about queues."""
    q = queue_at(path)
    readings = [
        Reading("`Queue.put`, one by one, one program", timed(lambda: q.put("value"), ONES), "ms"),
        Reading("`Queue.get`, one by one, one program", timed(q.get, ONES), "ms"),
    ]
    rates: dict[str, list[float]] = {"put": [], "get": []}
    for _ in range(3):
        for verb, found in rates.items():
            found.append(together(path, verb))
    for verb, found in rates.items():
        what = f"`Queue.{verb}`, one by one, {PROGRAMS} programs at once"
        readings.append(Reading(what, found, "values/s", 2_000, more_is_better=True))
    put, got = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for at in range(0, MANY, 500):
            q.put_many(list(range(at, at + 500)))
        put.append(MANY / (time.perf_counter() - began))
        began, have = time.perf_counter(), 0
        while have < MANY:
            have += len(q.get_many(500))
        got.append(MANY / (time.perf_counter() - began))
    readings.append(Reading("`Queue.put_many`, 500 at a time", put, "values/s", 10_000, more_is_better=True))
    readings.append(Reading("`Queue.get_many`, 500 at a time", got, "values/s", 10_000, more_is_better=True))
    readings.append(Reading("a blocked `get` returns, after `put` was called", wakes(path), "ms", 5))
    return readings


def dicts(path: str, process: subprocess.Popen[bytes]) -> list[Reading]:
    """Every row about dicts."""
    d = Dict.from_name("bench", create_if_missing=True, client=client_at(path))
    d["key"] = "value"
    readings = [
        Reading("`Dict.put`, one by one, one program", timed(lambda: d.put("key", "value"), ONES), "ms"),
        Reading("`Dict.get`, one by one, one program", timed(lambda: d.get("key"), ONES), "ms"),
    ]
    began = time.perf_counter()
    d.update({number: str(number) for number in range(ENTRIES)})
    rate = ENTRIES / (time.perf_counter() - began)
    readings.append(Reading(f"`Dict.update` of {ENTRIES:,} entries", [rate], "entries/s", None, more_is_better=True))
    before = (resident(process.pid), resident(os.getpid()))
    began, count = time.perf_counter(), 0
    grown = 0.0
    for _ in d.items():
        count += 1
        if not count % 20_000:
            grown = max(grown, resident(os.getpid()) - before[1])
    rate = count / (time.perf_counter() - began)
    readings.append(Reading(f"`Dict.items` of {count:,} entries", [rate], "entries/s", None, more_is_better=True))
    readings.append(Reading("memory that this took of the program", [grown], "MB"))
    readings.append(Reading("and of the server", [resident(process.pid) - before[0]], "MB"))
    return readings


def flushes(folder: Path) -> Reading:
    """What the disk itself takes."""
    took = []
    with (folder / "page").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(1000 * (time.perf_counter() - began))
    return Reading("fdatasync of a page on that disk", took, "ms")


# ours


@contextlib.contextmanager
def alight_server(home: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server alone."""
    source = str(Path(__file__).resolve().parents[1] / "src")
    process = subprocess.Popen(
        [sys.executable, "-m", "alight.server", "--home", str(home), "--listen", "none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": source, "ALIGHT_WEB_LISTEN": "none"},
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield str(home / "run/server.sock"), process
    finally:
        process.terminate()
        process.wait()


def client_at(path: str) -> Client:
    return Client(Target(path=path))


def queue_at(path: str) -> Queue:
    q = Queue.from_name("bench", create_if_missing=True, client=client_at(path))
    q.hydrate()
    return q


def together(path: str, verb: str) -> float:
    """Values a second that programs put or get, all at once."""

    def work(begin: Any) -> None:
        q = queue_at(path)
        begin.wait()
        for number in range(ONES):
            q.put(number) if verb == "put" else q.get()
        begin.wait()

    return crowd(work)


def crowd(work: Callable[[Any], None]) -> float:
    """Things a second that programs do, which wait for one another before and behind ``ONES`` of them."""
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(PROGRAMS + 1)
    programs = [context.Process(target=work, args=(begin,)) for _ in range(PROGRAMS)]
    for one in programs:
        one.start()
    begin.wait()
    began = time.perf_counter()
    begin.wait()
    rate = PROGRAMS * ONES / (time.perf_counter() - began)
    for one in programs:
        one.join()
    return rate


def wakes(path: str) -> list[float]:
    """From the call of put in one program to the return of get in another, in ms."""

    def work(pipe: Any) -> None:
        q = queue_at(path)
        for _ in range(ONES // 2):
            q.get()
            pipe.send(time.perf_counter())

    return wakings(work, queue_at(path).put)


def wakings(work: Callable[[Any], None], put: Callable[[str], object]) -> list[float]:
    """``work`` waits in a program of its own and says when it was woken; both have one clock."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    program = context.Process(target=work, args=(theirs,))
    program.start()
    took = []
    for _ in range(ONES // 2):
        time.sleep(0.02)  # it waits by then
        began = time.perf_counter()
        put("value")
        took.append(1000 * (ours.recv() - began))
    program.join()
    return took


def timed(work: Callable[[], object], count: int) -> list[float]:
    """How long each took, in ms."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - began))
    return took


def resident(pid: int) -> float:
    """Memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


# peers


class Redis:
    """As much of Redis's protocol as three commands need."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._file = self._socket.makefile("rb")

    def do(self, *words: str) -> object:
        """One command and its answer."""
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self._socket.sendall(f"*{len(words)}\r\n{parts}".encode())
        return self._answer()

    def _answer(self) -> object:
        line = self._file.readline().rstrip()
        if line[:1] == b"*":
            return [self._answer() for _ in range(int(line[1:]))]
        if line[:1] == b"$":
            size = int(line[1:])
            return self._file.read(size + 2)[:-2] if size >= 0 else None
        if line[:1] == b"-":
            raise RuntimeError(line.decode())
        return line


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis that has each command on disk before it answers."""
    path = str(folder / "redis.sock")
    words = ["--port", "0", "--unixsocket", path, "--dir", str(folder)]
    words += ["--appendonly", "yes", "--appendfsync", "always"]
    process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
    try:
        while not Path(path).exists():
            time.sleep(0.02)
        yield path
    finally:
        process.terminate()
        process.wait()


def redis(path: str) -> list[Reading]:
    """The same with Redis."""
    one = Redis(path)

    def work(begin: Any) -> None:
        mine = Redis(path)
        begin.wait()
        for _ in range(ONES):
            mine.do("LPUSH", "bench", "value")
        begin.wait()

    def wait(pipe: Any) -> None:
        mine = Redis(path)
        for _ in range(ONES // 2):
            mine.do("BRPOP", "wake", "0")
            pipe.send(time.perf_counter())

    return [
        Reading("Redis LPUSH, one by one, one program", timed(lambda: one.do("LPUSH", "bench", "v"), ONES), "ms"),
        Reading("Redis RPOP, one by one, one program", timed(lambda: one.do("RPOP", "bench"), ONES), "ms"),
        Reading(f"Redis LPUSH, one by one, {PROGRAMS} programs at once", [crowd(work) for _ in range(3)], "values/s"),
        Reading("a blocked BRPOP returns, after LPUSH", wakings(wait, lambda v: one.do("LPUSH", "wake", v)), "ms"),
    ]


def manager() -> list[Reading]:
    """The same with multiprocessing, which keeps nothing."""
    with multiprocessing.get_context("fork").Manager() as made:
        q = made.Queue()

        def wait(pipe: Any) -> None:
            for _ in range(ONES // 2):
                q.get()
                pipe.send(time.perf_counter())

        return [
            Reading("multiprocessing.Manager put, one program", timed(lambda: q.put("value"), ONES), "ms"),
            Reading("multiprocessing.Manager get, one program", timed(q.get, ONES), "ms"),
            Reading("a blocked get of multiprocessing.Manager", wakings(wait, q.put), "ms"),
        ]


if __name__ == "__main__":
    sys.exit(main())
