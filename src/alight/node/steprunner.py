"""Build steps in containers of this node's engine: the builder's ``StepRunner``.

A step runs in the same isolation as a function and never reaches the server: it gets no socket of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from alight.builder import StepRun
from alight.node import output
from alight.node.engine.base import Bind, ContainerPlan, Engine, Limits
from alight.node.gpus import GpuProvider, Injection
from alight.node.logs import Inotify
from alight.node.naming import Dns
from alight.node.volumes import Volumes
from alight.wire import errors, ids
from alight.wire.gpus import read

#: Ids of build containers, so that an agent that starts again knows them from functions' containers.
PREFIX = "bu"


class StepRunner:
    """See ``builder.steps.StepRunner``."""

    def __init__(
        self,
        engine: Engine,
        notices: Inotify,
        dns: Dns,
        volumes: Volumes | None = None,
        gpus: GpuProvider | None = None,
    ) -> None:
        self._engine = engine
        self._notices = notices
        self._dns = dns
        self._volumes = volumes
        self._gpus = gpus

    async def run(self, step: StepRun, on_output: Callable[[bytes], None]) -> int:
        container = ids.new_id(PREFIX)
        needs = step.needs
        injected = await asyncio.to_thread(self._inject, needs.gpus)
        if self._volumes is None and needs.volumes:
            raise errors.InvalidError("this machine mounts no volumes in build steps")
        with contextlib.ExitStack() as held:
            for volume, _, read_only, _ in needs.volumes:
                if self._volumes is not None:
                    self._volumes.hold(volume, container, writes=not read_only)
                    held.callback(self._volumes.release, volume, container, writes=not read_only)
            return await self._run(container, step, injected, on_output)

    async def _run(self, container: str, step: StepRun, injected: Injection, on_output: Callable[[bytes], None]) -> int:
        needs = step.needs
        mounted = [await asyncio.to_thread(self._mount, *one) for one in needs.volumes]
        plan = ContainerPlan(
            id=container,
            layers=step.layers,
            argv=step.argv,
            env=_joined(step.env, injected.env),
            cwd=step.cwd,
            hostname="build",
            binds=(
                *(Bind(source, target, readonly) for source, target, readonly in step.binds),
                *injected.binds,
                *mounted,
            ),
            limits=Limits(cpu_shares=needs.cpu or 1.0),
            network="full" if step.network else "none",
            devices=injected.devices,
            upper=step.upper,
            # What it writes is kept, with the owners that it has on disk.
            users="host",
        )
        try:
            await self._engine.start(plan)
            if step.network:
                await self._dns.serve(container)
            try:
                status = await asyncio.wait_for(self._follow(container, on_output), needs.timeout)
            except asyncio.TimeoutError:
                on_output(f"[alight] the step took longer than its timeout of {needs.timeout:g} s\n".encode())
                return 124
            for volume, _, read_only, _ in needs.volumes:
                if self._volumes is not None and not read_only:
                    await self._volumes.commit_by(volume, "exit", container)
            return status
        finally:
            await self._dns.stop(container)
            # A cancelled build leaves no process and no mount, even when the cancellation comes twice.
            await asyncio.shield(self._engine.remove(container))

    def _mount(self, volume: str, path: str, read_only: bool, sub_path: str) -> Bind:
        if self._volumes is None:
            raise errors.InvalidError("this machine mounts no volumes in build steps")
        return Bind(self._volumes.mount(volume, sub_path or None), path, read_only)

    def _inject(self, wanted: tuple[str, ...]) -> Injection:
        """The first GPUs of this machine, whoever else uses them: a step is short, and the scheduler knows of none."""
        if not wanted:
            return Injection()
        count = min(read(one).count for one in wanted)  # who asks for a part of one gets one
        broken = self._gpus.health() if self._gpus is not None else {}
        found = [one for one in self._gpus.gpus() if one.uuid not in broken] if self._gpus is not None else []
        if len(found) < count:
            raise errors.ImageBuildError(
                f"an image step asks for gpu={wanted[0]!r} and this machine has {len(found)} GPUs",
                hint="build on a machine with a GPU, or leave gpu= out of the step",
            )
        assert self._gpus is not None
        return self._gpus.inject(tuple(one.uuid for one in found[:count]))

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


def _joined(env: Mapping[str, str], gpus: Mapping[str, str]) -> Mapping[str, str]:
    """The step's environment with what GPUs need; paths are joined."""
    merged = {**env}
    for name, value in gpus.items():
        merged[name] = f"{value}:{env[name]}" if name == "LD_LIBRARY_PATH" and env.get(name) else value
    return merged


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
