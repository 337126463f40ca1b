"""A node as a process of its own beside a fake server, as tests of the agent drive it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from alight.link.run import run
from alight.testing.fake_server import FakeServer
from alight.wire import chunk, ids, payload
from alight.wire.commands import StartContainer
from alight.wire.spec import FileEntry, FilesAt, FunctionSpec, encode_tree

BARE = ("--engine", "process", "--lenient")

CODE = """
import os, sys, time

def add(a, b):
    print("adding", a, b)
    return a + b

def slow(seconds, path=None):
    time.sleep(seconds)
    if path:
        open(path, "a").write("x")
    return "slept"

def loud(lines):
    for n in range(lines):
        print("line", n)
    return lines

def big(size):
    return b"y" * size

def length(data):
    return len(data)

def fail():
    raise ValueError("on purpose")

def crash():
    os.kill(os.getpid(), 11)

def env(name):
    return os.environ.get(name)

def pid():
    return os.getpid()
"""


class Node:
    """An agent in a process of its own, which can be killed."""

    def __init__(self, home: Path, server: FakeServer, *options: str) -> None:
        self.home = home
        self.server = server
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "ALIGHT_LOGLEVEL": "DEBUG"}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "alight.node",
                "--home",
                str(self.home),
                "--server",
                f"unix:{self.server.path}",
                *self.options,
            ],
            env=environment,
            stdout=subprocess.PIPE,
        )

    async def wait_ready(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), 20)
        assert line == b"READY\n"

    def end(self, number: int = signal.SIGUSR1) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code


def scenario(home: Path, play, *options: str) -> None:
    """Run ``play(server, node)`` beside a node with these options."""

    async def main() -> None:
        server = FakeServer(home / "s.sock")
        await server.open()
        node = Node(home, server, *options)
        node.start()
        try:
            await node.wait_ready()
            await play(server, node)
        except BaseException:
            for log in sorted((home / "log").glob("*.log")):
                sys.stderr.write(f"--- {log.name}\n{log.read_text()}")
            raise
        finally:
            if node.process is not None:
                node.end()
            await server.close()

    run(main())


def start_of(server: FakeServer, name: str, code: str = CODE, **changes) -> StartContainer:
    content = code.encode()
    tree = encode_tree([FileEntry("script.py", 0o644, len(content), server.keep(content))])
    function = FunctionSpec(
        name=name,
        module="script",
        qualname=name,
        source_path="/root/script.py",
        files=(FilesAt(server.keep(tree), "/root"),),
        **changes,
    )
    return StartContainer(
        container_id=ids.new_id(ids.CONTAINER),
        app_id=ids.new_id(ids.APP),
        app_name="test",
        environment="main",
        function_id=ids.new_id(ids.FUNCTION),
        function=function,
        image_id="im-test",
    )


def give_of(start: StartContainer, *args) -> tuple[chunk.Inputs, bytes]:
    """One input of a call of its own."""
    return many_of(start, [args])


def many_of(start: StartContainer, inputs, call_id: str = "", at: int = 0) -> tuple[chunk.Inputs, bytes]:
    """Inputs of one call from position ``at`` on: the arguments of each."""
    bodies = [payload.dumps_bytes((tuple(args), {})) for args in inputs]
    sizes = tuple(len(body) for body in bodies)
    give = chunk.Inputs(call_id or ids.new_id(ids.CALL), at, sizes, container=start.container_id)
    return give, b"".join(bodies)


def large_of(start: StartContainer, blob: str, size: int) -> tuple[chunk.Inputs, bytes]:
    """One input whose arguments are a blob of the server."""
    body = chunk.reference(blob, size)
    call_id = ids.new_id(ids.CALL)
    return chunk.Inputs(call_id, 0, (len(body),), container=start.container_id, flags=chunk.REFERENCE), body


async def until(condition, seconds: float = 5.0) -> None:
    """Return when it holds."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come about")


async def started(server: FakeServer, start: StartContainer) -> StartContainer:
    await server.start(start)
    await server.wait_report("ready", start.container_id)
    return start
