"""A fake machine: it speaks the node's protocol in this process and runs plain Python callables, in no container.

It says that it is fake wherever it shows (engine "fake", hostname "fake-…"). For tests of the server and for trying
schedules; it isolates nothing and must never run code that a user did not hand to it in this process.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alight.link.dial import Answers, dial_unix
from alight.link.peer import Peer, Stream
from alight.wire import errors, ids, payload
from alight.wire.commands import (
    BuildImage,
    Command,
    GpuInfo,
    HeldContainer,
    ImageBuilt,
    NodeHello,
    Output,
    Report,
    StartContainer,
    VolumeWork,
)
from alight.wire.failure import Failure
from alight.wire.messages import AppEvent, Hello, VolumeFile, VolumeFiles
from alight.wire.states import ResultStatus
from alight.wire.version import WIRE_VERSION, __version__

_RECORD = struct.Struct("!dBI")


@dataclass
class FakeContainer:
    """What the fake keeps of a container."""

    start: StartContainer
    offset: int = 0
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    unacknowledged: dict[str, tuple[Output, bytes]] = field(default_factory=dict)
    records: list[tuple[int, bytes]] = field(default_factory=list)


class FakeNode:
    """A machine that runs ``functions`` (by name; plain or async callables) as if in containers.

    ``print_`` of a running function goes through ``write``. ``hold`` keeps new containers from getting ready.
    """

    def __init__(
        self,
        functions: dict[str, Callable[..., Any]],
        *,
        cpus: float = 4,
        memory: int = 4096,
        gpus: tuple[GpuInfo, ...] = (),
    ) -> None:
        self.functions = functions
        self.node_id = ids.new_id(ids.NODE)
        self.cpus, self.memory, self.gpus = cpus, memory, gpus
        self.containers: dict[str, FakeContainer] = {}
        self.builds: list[str] = []
        self.cached: set[str] = set()
        self.given: list[str] = []
        self.files: dict[str, dict[str, bytes]] = {}
        self.hold = False
        self.build_error: errors.Error | None = None
        self.watched: set[str] = set()
        self.peer: Peer | None = None
        self._stream: Stream | None = None
        self._reader: asyncio.Task[None] | None = None

    async def connect(self, socket_path: str) -> None:
        """Dial a server and say what is held; what it has not acknowledged is said again."""
        hello = Hello(WIRE_VERSION, __version__, "node")
        self.peer = await dial_unix(socket_path, hello, Answers(on_stream=self._on_stream))
        held = tuple(
            HeldContainer(
                name,
                one.start.function_id,
                one.start.app_id,
                True,
                tuple(one.running),
            )
            for name, one in self.containers.items()
        )
        facts = NodeHello(
            self.node_id, "fake-host", __version__, "fake", self.cpus, self.memory, self.gpus, held, "fake"
        )
        self._stream = await self.peer.open("node.session", facts)
        for name, one in self.containers.items():
            for output, body in list(one.unacknowledged.values()):
                self._report(Report("output", container=name, output=output), body)
        self._reader = asyncio.get_running_loop().create_task(self._read(self._stream))

    async def disconnect(self) -> None:
        """Lose the connection; containers run on."""
        if self.peer is not None:
            self.peer.close()
            await self.peer.wait_closed()
        self._stream = None

    def kill_container(self, container_id: str, *, oom: bool = False) -> None:
        """End a container as a crash or the memory limit would."""
        one = self.containers.pop(container_id)
        for task in one.running.values():
            task.cancel()
        text = "killed for memory: limit 128 MiB, peak 128 MiB" if oom else ""
        self._report(Report("ended", container=container_id, signal=9, oom_killed=oom, text=text))

    def write(self, container_id: str, text: str, fd: int = 1) -> int:
        """Output of a container; returns where its log ends."""
        one = self.containers[container_id]
        data = text.encode()
        record = _RECORD.pack(time.time(), fd, len(data)) + data
        self._report(Report("log", container=container_id, offset=one.offset), record)
        one.offset += len(record)
        return one.offset

    def fail_start(self, container_id: str, failure: Failure, body: bytes = b"") -> None:
        """Importing the user's code raised."""
        self.containers.pop(container_id)
        self._report(Report("ended", container=container_id, exit_code=1, failure=failure), body)

    def ready(self, container_id: str) -> None:
        """A held container takes inputs now."""
        self._report(Report("ready", container=container_id))

    async def ask(self, container_id: str, method: str, args: Any, body: bytes = b"") -> Stream:
        """A request as code inside a container would make it."""
        assert self.peer is not None
        return await self.peer.open(method, args, body, container=container_id, end=True)

    def report(self, report: Report, body: bytes = b"") -> None:
        """Say anything, true or not."""
        self._report(report, body)

    def _report(self, report: Report, body: bytes = b"") -> None:
        if self._stream is not None and not self._stream.broken:
            self._stream.send_nowait(report, body)

    async def _read(self, stream: Stream) -> None:
        try:
            async for head, body in stream:
                self._on_command(stream.decode(Command, head), body)
        except errors.Error:
            return

    def _on_command(self, command: Command, body: bytes) -> None:
        if command.kind == "start" and command.start is not None:
            self.containers[command.container] = FakeContainer(command.start)
            if not self.hold:
                self.ready(command.container)
        elif command.kind == "give" and command.give is not None:
            one = self.containers.get(command.container)
            known = one is None or command.give.input_id in one.running or command.give.input_id in one.unacknowledged
            if one is not None and not known:
                work = self._run(command, one, body)
                self.given.append(command.give.input_id)
                one.running[command.give.input_id] = asyncio.get_running_loop().create_task(work)
        elif command.kind == "cancel":
            one = self.containers.get(command.container)
            task = one.running.get(command.input_id) if one is not None else None
            if task is not None:
                task.cancel()
        elif command.kind == "stop":
            one = self.containers.pop(command.container, None)
            for task in one.running.values() if one is not None else ():
                task.cancel()
            self._report(Report("ended", container=command.container, exit_code=0))
        elif command.kind == "ack":
            one = self.containers.get(command.container)
            for input_id in command.input_ids:
                if one is not None:
                    one.unacknowledged.pop(input_id, None)
        elif command.kind == "watch":
            (self.watched.add if command.on else self.watched.discard)(command.app_id)
        elif command.kind == "shutdown" and self.peer is not None:
            self.containers.clear()
            self.peer.close()

    async def _run(self, command: Command, one: FakeContainer, body: bytes) -> None:
        give = command.give
        assert give is not None
        status, failure, value = ResultStatus.SUCCESS, None, b""
        begun = time.time()
        try:
            args, kwargs = payload.loads(body) if body else ((), {})
            result = self.functions[one.start.function.name](*args, **kwargs)
            if asyncio.iscoroutine(result):
                result = await result
            value = payload.dumps_bytes(result)
        except asyncio.CancelledError:
            if command.container not in self.containers:
                return
            status = ResultStatus.CANCELLED
        except TimeoutError as error:
            status, failure = ResultStatus.TIMEOUT, Failure("builtins.TimeoutError", str(error))
        except Exception as error:  # noqa: BLE001  a fake of the runtime's loop, which brings any exception home
            status, failure = ResultStatus.EXCEPTION, Failure(f"builtins.{type(error).__name__}", str(error))
        output = Output(
            give.input_id,
            give.attempt,
            status,
            command.container,
            failure=failure,
            log_offset=one.offset,
            started_at=begun,
            ended_at=time.time(),
        )
        one.running.pop(give.input_id, None)
        one.unacknowledged[give.input_id] = (output, value)
        self._report(Report("output", container=command.container, output=output), value)

    async def _on_stream(self, peer: Peer, stream: Stream) -> None:
        if stream.method == "node.build":
            asked = stream.arguments(BuildImage)
            if self.build_error is not None:
                raise self.build_error
            if asked.image_id in self.cached:
                await stream.send(ImageBuilt(asked.image_id))
                return
            if asked.only_cached:
                await stream.send(ImageBuilt(""))
                return
            self.builds.append(asked.image_id)
            await stream.send(AppEvent("build", image_id=asked.image_id, state="started", text="a fake build"))
            self.cached.add(asked.image_id)
            await stream.send(ImageBuilt(asked.image_id, built=True, seconds=0.01))
        elif stream.method == "node.volume":
            await self._volume(stream)
        else:
            raise errors.UnimplementedError(f"the fake machine does not do {stream.method}")

    async def _volume(self, stream: Stream) -> None:
        work = stream.arguments(VolumeWork)
        files = self.files.setdefault(work.at.volume_id, {})
        if work.verb == "write":
            content = stream.opened_body
            async for _head, body in stream:
                content += body
            files[work.at.path] = content
            await stream.send(VolumeFile(work.at.path, "file", len(content)))
        elif work.verb == "read":
            await stream.send(None, files[work.at.path])
        elif work.verb == "files":
            await stream.send(VolumeFiles(tuple(VolumeFile(path, "file", len(data)) for path, data in files.items())))
        else:
            if work.verb == "remove":
                files.pop(work.at.path, None)
            await stream.send({})
