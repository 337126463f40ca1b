"""A fake engine that can fork from templates: it starts nothing, and says that it is fake. For tests of who decides.

A template of it dials its link in this process and answers as ``answer`` says. Everything that was asked for is kept
in ``told``, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from alight.node.engine.base import ContainerPlan, ContainerState, EngineError, Stats
from alight.node.engine.forks import TEMPLATE, shape
from alight.wire.codec import FrameReader, Kind, encode_frame
from alight.wire.commands import LinkHello, LinkReady, LinkStart
from alight.wire.version import WIRE_VERSION, __version__

Answer = Callable[[LinkStart], LinkReady | None]


class FakeEngine:
    """What the agent's keeper uses of ``Engine``, and ``forks`` as ``engine.forks.Forks``."""

    name = "fake"
    isolates = True

    def __init__(self, home: Path) -> None:
        self.home = home
        self.told: list[tuple[str, str]] = []
        self.states: dict[str, ContainerState] = {}
        self.plans: dict[str, ContainerPlan] = {}
        self.memory: dict[str, int] = {}
        self.forks: FakeForks | None = FakeForks(self)
        self._ends: dict[str, asyncio.Event] = {}

    def directory(self, container_id: str) -> Path:
        return self.home / container_id

    def prepare(self, container_id: str) -> Path:
        self.directory(container_id).mkdir(parents=True, exist_ok=True)
        return self.directory(container_id)

    async def start(self, plan: ContainerPlan) -> ContainerState:
        self.told.append(("plain", plan.id))
        return self.came(plan, "plain")

    def came(self, plan: ContainerPlan, how: str) -> ContainerState:
        """It runs."""
        self.plans[plan.id] = plan
        self._ends[plan.id] = asyncio.Event()
        state = self.states[plan.id] = ContainerState(plan.id, "running", os.getpid(), time.time(), how=how)
        return state

    def end(self, container_id: str) -> None:
        """As a crash would."""
        if container_id in self._ends:
            self.states[container_id] = replace(self.states[container_id], status="exited", signal=9)
            self._ends[container_id].set()

    async def wait(self, container_id: str) -> ContainerState:
        if container_id not in self._ends:
            raise EngineError(f"there is no container {container_id}")
        await self._ends[container_id].wait()
        return self.states[container_id]

    async def list(self) -> Sequence[ContainerState]:
        return [*self.states.values()]

    async def stats(self, container_id: str) -> Stats:
        return Stats(memory_bytes=self.memory.get(container_id, 0))

    async def inside(self, container_id: str) -> set[int]:
        del container_id
        return {os.getpid()}

    async def connect(self, gang: str, container_ids: Sequence[str]) -> tuple[str, ...]:
        self.told.append(("connect", gang))
        return tuple(f"192.0.2.{rank + 1}" for rank in range(len(container_ids)))

    async def disconnect(self, gang: str) -> None:
        self.told.append(("disconnect", gang))

    async def dns_sockets(self, container_id: str) -> None:
        self.told.append(("dns", container_id))


class FakeForks:
    """See the module. ``answer`` is what a template says when it was told what to bring up; None: it ends instead."""

    def __init__(self, engine: FakeEngine) -> None:
        self.answer: Answer = lambda _: LinkReady()
        self.starts: list[LinkStart] = []
        self.broken: str = ""
        """What every fork fails with."""
        self.upper = True
        self._engine = engine
        self._parked: dict[str, dict[str, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open_template(self, plan: ContainerPlan, image: str) -> ContainerState:
        assert plan.id.startswith(TEMPLATE)
        assert image
        self._engine.told.append(("template", plan.id))
        state = self._engine.came(plan, "plain")
        self._parked[plan.id] = {}
        task = asyncio.get_running_loop().create_task(self._bring_up(plan.id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return state

    async def _bring_up(self, template_id: str) -> None:
        path = self._engine.directory(template_id) / "sock" / "link.sock"
        reader, writer = await asyncio.open_unix_connection(str(path))
        with contextlib.closing(writer):
            hello = LinkHello(WIRE_VERSION, __version__, os.getpid(), "3.11")
            writer.writelines(encode_frame(Kind.HELLO, 0, msgspec.json.encode(hello)))
            frames = FrameReader()
            while True:
                data = await reader.read(65536)
                if not data:
                    return
                for frame in frames.feed(data):
                    if frame.kind == Kind.LINK_START:
                        start = msgspec.json.decode(frame.head, type=LinkStart)
                        self.starts.append(start)
                        ready = self.answer(start)
                        if ready is None:
                            self._engine.end(template_id)
                            return
                        writer.writelines(encode_frame(Kind.LINK_READY, 0, msgspec.json.encode(ready)))

    async def arm(self, template_id: str) -> str:
        self._engine.told.append(("arm", template_id))
        upper = self._engine.directory(template_id) / "upper"
        upper.mkdir()
        if self.upper:
            (upper / "written").touch()
        return str(upper)

    async def park(self, template_id: str, plan: ContainerPlan) -> None:
        if self.broken:
            raise EngineError(self.broken)
        own = str(self._engine.directory(plan.id))
        assert all(Path(one.source).exists() for one in plan.binds if one.source.startswith(own))
        self._engine.told.append(("park", template_id))
        form = shape(plan, own)
        parked = self._parked[template_id]
        parked[form] = parked.get(form, 0) + 1

    async def start_fork(
        self, template_id: str, plan: ContainerPlan, link: socket.socket | None = None
    ) -> ContainerState:
        del link  # nobody is there to get it
        if self.broken:
            raise EngineError(self.broken)
        form = shape(plan, str(self._engine.directory(plan.id)))
        parked = self._parked[template_id]
        how = "forked"
        if parked.get(form):
            parked[form] -= 1
            how = "parked"
        self._engine.told.append((how, plan.id))
        return self._engine.came(plan, how)

    def parked(self, template_id: str) -> dict[str, int]:
        return {form: count for form, count in self._parked.get(template_id, {}).items() if count}

    async def unpark(self, template_id: str, shape: str, keep: int = 0) -> None:
        self._engine.told.append(("unpark", template_id))
        self._parked[template_id][shape] = keep

    async def close_template(self, template_id: str) -> None:
        self._engine.told.append(("close", template_id))
        self._parked.pop(template_id, None)
        self._engine.end(template_id)
        shutil.rmtree(self._engine.directory(template_id), ignore_errors=True)
