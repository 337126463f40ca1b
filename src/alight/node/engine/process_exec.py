"""More programs beside a container that is a bare process: for the engine that isolates nothing. See ``execs.Exec``."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

from alight.node.engine.execs import ExecPlan, ProgramError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class ProcessExec:
    """One program, with a session of its own."""

    def __init__(self, plan: ExecPlan, cwd: str, over: Callable[[], Awaitable[object]]) -> None:
        """``over`` returns when the container ends, and this with it. Raises ``ProgramError``."""
        self.stdin = self.stdout = self.stderr = -1
        theirs = self._open(plan)
        try:
            self._popen = subprocess.Popen(
                plan.argv,
                cwd=cwd,
                env=dict(plan.env),
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                start_new_session=True,
                # Nothing but a system call: nothing that another thread may hold is touched.
                preexec_fn=_take_terminal if plan.terminal is not None else None,  # noqa: PLW1509
            )
        except OSError as error:
            self._close_ours()
            raise ProgramError(f"{plan.argv[0]}: {error.strerror}") from error
        finally:
            for one in set(theirs):
                os.close(one)
        loop = asyncio.get_running_loop()
        self._end: asyncio.Future[int] = loop.create_future()
        self._waiting = loop.create_task(self._wait())
        self._over = loop.create_task(self._until(over))

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    async def signal(self, signum: int) -> None:
        if not self._end.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signum)

    def close_stdin(self) -> None:
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    async def close(self) -> None:
        self._close_ours()
        self._over.cancel()
        await self.signal(signal.SIGKILL)

    def _open(self, plan: ExecPlan) -> tuple[int, int, int]:
        if plan.terminal is not None:
            self.stdout, slave = os.openpty()
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *plan.terminal, 0, 0))
            self.stdin = os.dup(self.stdout)
            theirs = (slave, slave, slave)
        else:
            stdin, self.stdin = os.pipe2(os.O_CLOEXEC)
            self.stdout, stdout = os.pipe2(os.O_CLOEXEC)
            self.stderr, stderr = os.pipe2(os.O_CLOEXEC)
            theirs = (stdin, stdout, stderr)
        for one in (self.stdin, self.stdout, self.stderr):
            if one >= 0:
                os.set_blocking(one, False)
        return theirs

    def _close_ours(self) -> None:
        for one in (self.stdin, self.stdout, self.stderr):
            if one >= 0:
                os.close(one)
        self.stdin = self.stdout = self.stderr = -1

    async def _wait(self) -> None:
        status = await asyncio.to_thread(self._popen.wait)
        self._over.cancel()
        if not self._end.done():
            self._end.set_result(status)

    async def _until(self, over: Callable[[], Awaitable[object]]) -> None:
        await over()
        await self.signal(signal.SIGKILL)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
