"""Programs that people run in running containers: from the server's request to the program's end, and its bytes.

A program lives as long as the stream that it was asked for on. What it reads and writes passes through here as it is,
at the pace of whoever reads it; nothing of it is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import struct
import termios
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from alight.link.stream import Stream, decode
from alight.node.engine.base import Engine
from alight.node.engine.execs import Exec, ExecPlan, ProgramError
from alight.wire import errors
from alight.wire.execs import ExecStart, ExecWord, NodeExec

if TYPE_CHECKING:
    from alight.node.container import Container
    from alight.node.prepare import Prepared

log = logging.getLogger(__name__)

_FILE = "exec.json"
_READ = 64 << 10
#: How long a program that lost its user may take to end.
_LEAVING = 2.0
#: How long after a program that was killed the end of its container may come to be known.
_TOGETHER = 0.5
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_END_OF_INPUT = b"\x04"
_STDERR = msgspec.json.encode(ExecWord("stderr"))


class _Surroundings(msgspec.Struct):
    """What the container's first program started with, for those that join it later."""

    env: dict[str, str] = {}
    reserved: list[str] = []
    cwd: str = "/"


def remember(folder: Path, prepared: Prepared) -> None:
    """Write down what later programs of this container need; another agent may be asked for them."""
    plan = prepared.plan
    said = msgspec.json.encode(_Surroundings(dict(plan.env), list(prepared.env), plan.cwd))
    descriptor = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(said)


class Execs:
    """Serves ``node.exec``. ``containers`` are this node's."""

    def __init__(self, engine: Engine, containers: Mapping[str, Container]) -> None:
        self._engine = engine
        self._containers = containers

    async def serve(self, stream: Stream) -> None:
        """One program, to its end. Raises NotFoundError, EngineError."""
        asked = stream.arguments(NodeExec)
        container_id = asked.start.container_id
        container = self._containers.get(container_id)
        if container is None or not container.running:
            raise errors.NotFoundError(f"the container {container_id} does not run")
        plan = await self._plan(asked.start, asked.env)
        try:
            program = await self._engine.exec(container_id, plan)
        except ProgramError as error:
            missing = "not found" in error.message or "no such file" in error.message.lower()
            await stream.send(ExecWord("ended", _NOT_FOUND if missing else _NOT_EXECUTABLE, error.message))
            return
        try:
            status = await _Session(stream, program).run()
            text = await self._end_of(container_id) if status == -signal.SIGKILL else ""
            await stream.send(ExecWord("ended", status if status >= 0 else 128 - status, text))
        except errors.ConnectionError:
            await _end(program)  # whoever started it is gone
            raise
        finally:
            await program.close()

    async def _plan(self, start: ExecStart, given: Mapping[str, str]) -> ExecPlan:
        around = await self._around(start.container_id)
        reserved = set(around.reserved)
        env = {**around.env, **{name: value for name, value in given.items() if name not in reserved}}
        if start.terminal and start.term:
            env["TERM"] = start.term
        size = (start.rows or 24, start.columns or 80) if start.terminal else None
        return ExecPlan(start.argv, {**env, **start.env}, start.cwd or around.cwd, size)

    async def _around(self, container_id: str) -> _Surroundings:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode((self._engine.directory(container_id) / _FILE).read_bytes(), type=_Surroundings)
        # It has not come as far as to be told what it is for.
        for state in await self._engine.list():
            if state.id == container_id and state.pid is not None:
                with contextlib.suppress(OSError):
                    pairs = Path(f"/proc/{state.pid}/environ").read_bytes().decode(errors="surrogateescape").split("\0")
                    return _Surroundings({name: value for name, is_one, value in map(_pair, pairs) if is_one})
        return _Surroundings()

    async def _end_of(self, container_id: str) -> str:
        """That the container ended, in words, when a program was killed because of that."""
        try:
            state = await asyncio.wait_for(self._engine.wait(container_id), _TOGETHER)
        except (asyncio.TimeoutError, errors.Error):
            return ""
        return f"the container {container_id} {'ran out of memory' if state.oom_killed else 'ended'}"


def _pair(text: str) -> tuple[str, str, str]:
    return text.partition("=")


async def _end(program: Exec) -> None:
    """Politely, and then not."""
    for signum in (signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):
        await program.signal(signum)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(program.wait(), _LEAVING)


class _Session:
    """The bytes of one program."""

    def __init__(self, stream: Stream, program: Exec) -> None:
        self._stream = stream
        self._program = program
        self._outlets = [_Outlet(program.stdout, b"")]
        if program.stderr >= 0:
            self._outlets.append(_Outlet(program.stderr, _STDERR))

    async def run(self) -> int:
        """Carry until the program ended and its words are said. Raises when its user is gone."""
        loop = asyncio.get_running_loop()
        out = [loop.create_task(one.carry(self._stream)) for one in self._outlets]
        typed = loop.create_task(self._carry_in())
        ended = loop.create_task(self._program.wait())
        try:
            await self._stream.send(ExecWord("started"))
            await self._until(ended, [typed, *out])
            for one in self._outlets:
                one.finish()
            await asyncio.gather(*out)
            return await ended
        finally:
            for task in (typed, ended, *out):
                task.cancel()
            await asyncio.gather(typed, ended, *out, return_exceptions=True)

    async def _until(self, ended: asyncio.Task[int], carrying: list[asyncio.Task[None]]) -> None:
        under_way: set[asyncio.Task[None]] = set(carrying)
        while not ended.done():
            done, _ = await asyncio.wait({ended, *under_way}, return_when=asyncio.FIRST_COMPLETED)
            for one in under_way & done:
                one.result()
            under_way -= done

    async def _carry_in(self) -> None:
        """What its user says: bytes, the end of them, sizes and signals. Raises when the user is gone."""
        program = self._program
        async for head, body in self._stream:
            if head:
                await self._word(decode(ExecWord, head))
            if body and not await _write(program.stdin, body):
                program.close_stdin()  # it reads no more; what comes is dropped
        raise errors.ConnectionError("the client is gone")  # it has no reason to say that it will say nothing more

    async def _word(self, word: ExecWord) -> None:
        if word.kind == "signal" and word.signal in {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}:
            await self._program.signal(word.signal)
        elif word.kind == "eof" and self._program.stderr < 0:
            await _write(self._program.stdin, _END_OF_INPUT)
        elif word.kind == "eof":
            self._program.close_stdin()
        elif word.kind == "size" and self._program.stderr < 0 and word.rows and word.columns:
            size = struct.pack("HHHH", min(word.rows, 0xFFFF), min(word.columns, 0xFFFF), 0, 0)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._program.stdout, termios.TIOCSWINSZ, size)


class _Outlet:
    """One descriptor of a program, read to its end."""

    def __init__(self, descriptor: int, head: bytes) -> None:
        self._descriptor = descriptor
        self._head = head
        self._finishing = False
        self._more: asyncio.Future[None] | None = None

    async def carry(self, stream: Stream) -> None:
        """Send what comes, until nothing can or, after ``finish``, nothing is there."""
        while data := await self._read():
            await stream.send_raw(self._head, data)

    def finish(self) -> None:
        """The program ended: what it wrote is there already; what it left running may keep this open for ever."""
        self._finishing = True
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, _READ)
            except BlockingIOError:
                if self._finishing:
                    return b""
            except OSError:  # of a terminal: nobody has it any more
                return b""
            self._more = _ready(asyncio.get_running_loop().add_reader, self._descriptor)
            try:
                await self._more
            finally:
                asyncio.get_running_loop().remove_reader(self._descriptor)


async def _write(descriptor: int, data: bytes) -> bool:
    """Write all. False when nobody reads it."""
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view and descriptor >= 0:
        try:
            view = view[os.write(descriptor, view) :]
            continue
        except BlockingIOError:
            pass
        except OSError:
            return False
        more = _ready(loop.add_writer, descriptor)
        try:
            await more
        finally:
            loop.remove_writer(descriptor)
    return descriptor >= 0


def _ready(watch: Callable[..., object], descriptor: int) -> asyncio.Future[None]:
    more: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_ready() -> None:
        if not more.done():
            more.set_result(None)

    watch(descriptor, on_ready)
    return more
