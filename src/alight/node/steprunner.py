"""Build steps in containers of this node's engine: the builder's ``StepRunner``.

A step runs in the same isolation as a function and never reaches the server: it gets no socket of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from alight.builder import StepRun
from alight.node import output
from alight.node.engine.base import Bind, ContainerPlan, Engine, Limits
from alight.node.logs import Inotify
from alight.node.naming import Dns
from alight.wire import ids

#: Ids of build containers, so that an agent that starts again knows them from functions' containers.
PREFIX = "bu"


class StepRunner:
    """See ``builder.steps.StepRunner``."""

    def __init__(self, engine: Engine, notices: Inotify, dns: Dns) -> None:
        self._engine = engine
        self._notices = notices
        self._dns = dns

    async def run(self, step: StepRun, on_output: Callable[[bytes], None]) -> int:
        container = ids.new_id(PREFIX)
        plan = ContainerPlan(
            id=container,
            layers=step.layers,
            argv=step.argv,
            env=step.env,
            cwd=step.cwd,
            hostname="build",
            binds=tuple(Bind(source, target, readonly) for source, target, readonly in step.binds),
            limits=Limits(cpu_shares=1.0),
            network="full" if step.network else "none",
            upper=step.upper,
        )
        try:
            await self._engine.start(plan)
            if step.network:
                await self._dns.serve(container)
            return await self._follow(container, on_output)
        finally:
            await self._dns.stop(container)
            # A cancelled build leaves no process and no mount, even when the cancellation comes twice.
            await asyncio.shield(self._engine.remove(container))

    async def _follow(self, container: str, on_output: Callable[[bytes], None]) -> int:
        path = self._engine.directory(container) / "output.log"
        more = asyncio.Event()
        watch = self._notices.watch(path, more.set)
        reader = _Reader(path)
        ended = asyncio.ensure_future(self._engine.wait(container))
        ended.add_done_callback(lambda _: more.set())
        try:
            while not ended.done():
                more.clear()
                reader.take(on_output)
                if not ended.done():
                    await more.wait()
            state = await ended
            reader.take(on_output)
        finally:
            ended.cancel()
            self._notices.forget(watch)
            reader.close()
        if state.error:
            on_output(f"{state.error}\n".encode())
        if state.oom_killed:
            on_output(b"[alight] the step was killed: the machine's memory was not enough\n")
        if state.signal is not None:
            return -state.signal
        return state.exit_code if state.exit_code is not None else 1


class _Reader:
    """Reads on in a file of output records."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._rest = b""

    def take(self, on_output: Callable[[bytes], None]) -> None:
        while True:
            data = self._file.read(1 << 20)
            if not data:
                return
            records, used = output.parse(self._rest + data)
            self._rest = (self._rest + data)[used:]
            for record in records:
                on_output(record.data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
