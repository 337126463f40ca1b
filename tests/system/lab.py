"""An engine on an event loop that outlives single tests, and containers in it; two fixtures to import."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from alight.node import output
from alight.node.engine.base import ContainerPlan
from alight.node.engine.oci import OciEngine

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
MIB = 1 << 20
SOURCE = str(Path(sys.modules["alight"].__file__).parents[1])


class Lab:
    """One engine on an event loop that outlives single tests, and containers in it."""

    def __init__(self, layers: tuple[str, ...], home: Path, runtime: str = "runc", **more) -> None:
        self.layers = layers
        self.home = home
        self.loop = asyncio.new_event_loop()
        self.engine = OciEngine(home, str(home), runtime=runtime, **more)
        try:
            self.run(self.engine.open())
        except BaseException:
            self.loop.close()
            raise
        self._count = 0

    def run(self, work):
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    def plan(self, *argv: str, **more) -> ContainerPlan:
        self._count += 1
        return ContainerPlan(f"c{self._count}", self.layers, argv, {**ENV, **more.pop("env", {})}, **more)

    def python(self, code: str, **more) -> ContainerPlan:
        return self.plan("python3", "-c", textwrap.dedent(code), **more)

    def ask(self, plan: ContainerPlan) -> str:
        """Everything that a container prints before it ends, with how it ended on the last line."""
        self.run(self.engine.start(plan))
        state = self.run(self.engine.wait(plan.id))
        text = self.printed(plan.id)
        self.run(self.engine.remove(plan.id))
        return f"{text}[{state.exit_code}]"

    def printed(self, container_id: str) -> str:
        path = self.engine.directory(container_id) / "output.log"
        return b"".join(one.data for one in output.read(path)).decode(errors="replace")

    def started(self, plan: ContainerPlan, word: str = "up"):
        """A running container that has said the word."""

        async def main():
            state = await self.engine.start(plan)
            while word not in self.printed(plan.id):
                assert (await self.engine.list())[-1].status == "running", self.printed(plan.id)
                await asyncio.sleep(0.01)
            return state

        return self.run(main())

    def until(self, condition) -> None:
        """Wait until it holds, a minute at most."""

        async def main():
            while not condition():  # noqa: ASYNC110 what is waited for is in other processes
                await asyncio.sleep(0.01)

        self.run(main())

    def close(self) -> None:
        self.run(self.engine.shutdown())
        self.loop.close()


@pytest.fixture
def short_home():
    home = Path(tempfile.mkdtemp(prefix="alight-"))
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def lab(base_layers):
    home = Path(tempfile.mkdtemp(prefix="alight-"))
    lab = Lab(base_layers, home)
    yield lab
    lab.close()
    shutil.rmtree(home)


CONNECT = """
import socket, sys
def reach(address, port, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(3)
        try:
            one.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                one.send(b"x"); one.send(b"x"); print("sent", one.recv(10))
            else:
                print("reached")
        except OSError as error:
            print(type(error).__name__, error.strerror)
"""


def serving(lab) -> tuple[str, str]:
    """A container that serves port 8000 on every address, and its address."""
    plan = lab.python(
        """
        import socket
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.connect(("192.0.2.1", 9))
        listener = socket.create_server(("0.0.0.0", 8000))
        print("up", probe.getsockname()[0], flush=True)
        while True:
            listener.accept()[0].send(b"hi")
        """
    )
    lab.started(plan)
    return plan.id, lab.printed(plan.id).split()[1]
