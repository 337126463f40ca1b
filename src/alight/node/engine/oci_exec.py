"""Programs that join a running container, by the OCI engine: the agent's half. See ``execs.Exec``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

from alight.node.engine import oci_config
from alight.node.engine.base import EngineError
from alight.node.engine.execs import ExecPlan, ProgramError
from alight.node.engine.oci_client import SpawnerClient, SpawnerGone

if TYPE_CHECKING:
    from collections.abc import Callable

#: What OCI runtimes say of programs that cannot be started, as opposed to what goes wrong around them.
_NO_PROGRAM = ("executable file", "no such file or directory", "permission denied", "exec format", "not a directory")


class OciExecs:
    """The programs of one engine."""

    def __init__(self, spawner: Callable[[], SpawnerClient], machine: oci_config.Machine) -> None:
        self._spawner = spawner
        self._machine = machine
        self._running: dict[str, OciExec] = {}

    async def exec(self, container_id: str, plan: ExecPlan) -> OciExec:
        """See ``Engine.exec``."""
        client = self._spawner()
        one = OciExec(os.urandom(8).hex(), client, self._forget)
        self._running[one.id] = one  # its end may be told before the answer is looked at
        starting = asyncio.get_running_loop().create_task(self._start(client, one, container_id, plan))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Half a start cannot be taken back: let it come, then let it go.
            starting.add_done_callback(one.abandon)
            raise
        except BaseException:
            self._forget(one)
            raise
        return one

    def on_event(self, message: dict[str, Any]) -> None:
        """One of them ended."""
        one = self._running.get(str(message["exec"]))
        if one is not None:
            one.on_end(int(message["status"]))

    def on_lost(self) -> None:
        """The spawner ended, and with it all of them."""
        for one in list(self._running.values()):
            one.on_end(-signal.SIGKILL)

    async def _start(self, client: SpawnerClient, one: OciExec, container_id: str, plan: ExecPlan) -> None:
        process = oci_config.process(plan.argv, plan.env, plan.cwd, self._machine, terminal=plan.terminal)
        try:
            one.take(await client.ask_descriptors("exec", id=container_id, exec=one.id, process=process))
        except SpawnerGone:
            raise
        except EngineError as error:
            if any(words in error.message.lower() for words in _NO_PROGRAM):
                raise ProgramError(error.message, hint=error.hint) from error
            raise

    def _forget(self, one: OciExec) -> None:
        self._running.pop(one.id, None)


class OciExec:
    """See ``execs.Exec``."""

    def __init__(self, exec_id: str, client: SpawnerClient, forget: Callable[[OciExec], None]) -> None:
        self.id = exec_id
        self.stdin = self.stdout = self.stderr = -1
        self._client = client
        self._forget = forget
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def take(self, descriptors: list[int]) -> None:
        """It runs, and these are ours: three pipes, or the master of its terminal."""
        if len(descriptors) == 1:
            self.stdin, self.stdout = os.dup(descriptors[0]), descriptors[0]
        else:
            self.stdin, self.stdout, self.stderr = descriptors
        for one in (self.stdin, self.stdout, self.stderr):
            if one >= 0:
                os.set_blocking(one, False)

    def on_end(self, status: int) -> None:
        """Said once by the spawner."""
        self._forget(self)
        if not self._end.done():
            self._end.set_result(status)

    def abandon(self, starting: asyncio.Task[None]) -> None:
        """Whoever asked for it is gone; its start is over."""
        if starting.cancelled() or starting.exception() is not None:
            self._forget(self)
        else:
            self._closing = asyncio.get_running_loop().create_task(self.close())

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    async def signal(self, signum: int) -> None:
        if not self._end.done():
            with contextlib.suppress(SpawnerGone):
                await self._client.ask("exec_signal", exec=self.id, signal=int(signum))

    def close_stdin(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    async def close(self) -> None:
        self.close_stdin()
        for one in (self.stdout, self.stderr):
            if one >= 0:
                os.close(one)
        self.stdout = self.stderr = -1
        await self.signal(signal.SIGKILL)
