"""A fake machine: it speaks the node's protocol in this process and runs plain Python callables, in no container.

It says that it is fake wherever it shows (engine "fake", hostname "fake-…"). For tests of the server and for trying
schedules; it isolates nothing and must never run code that a user did not hand to it in this process.
"""

from __future__ import annotations

import asyncio
import inspect
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from alight.link.dial import Answers, dial_unix
from alight.link.peer import Peer, Stream
from alight.wire import chunk, errors, ids, payload
from alight.wire.commands import (
    BuildImage,
    Command,
    GpuInfo,
    HeldContainer,
    ImageBuilt,
    NodeHello,
    Output,
    Report,
    Run,
    StartContainer,
    VolumeWork,
)
from alight.wire.failure import Failure
from alight.wire.messages import AppEvent, Hello
from alight.wire.record import replace
from alight.wire.snapshots import VolumeVersion
from alight.wire.states import ResultStatus
from alight.wire.stored import VolumeFile, VolumeFiles
from alight.wire.version import WIRE_VERSION, __version__

_RECORD = struct.Struct("!dBI")
_UNACKNOWLEDGED = 4 << 20  # bytes of items that a runtime sends before it waits


@dataclass
class FakeContainer:
    """What the fake keeps of a container."""

    start: StartContainer
    is_ready: bool = False
    offset: int = 0
    serial: int = 0
    seen: set[tuple[str, int, int]] = field(default_factory=set)  # call, position, attempt: each is taken once
    queued: deque[tuple[chunk.Inputs, int, bytes]] = field(default_factory=deque)
    running: dict[tuple[str, int], asyncio.Task[None]] = field(default_factory=dict)
    attempts: dict[tuple[str, int], int] = field(default_factory=dict)  # of what runs
    unacknowledged: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)  # frames by serial


def _answered(head: bytes) -> list[Run]:
    """The inputs that a frame answers."""
    if chunk.is_chunk(head):
        said = chunk.Outputs.decode(head)
        positions = () if said.is_items else said.positions
        return [Run(said.call_id, position, position + 1, said.attempt) for position in positions]
    output = msgspec.json.decode(head, type=Report).output
    return [] if output is None else [Run(output.call_id, output.position, output.position + 1, output.attempt)]


class FakeNode:
    """A machine that runs ``functions`` (by name; plain or async callables, generators too) as if in containers.

    A plain callable answers all inputs of a chunk at once, in one frame, an async one each when it is done. ``given``
    are the ids of the inputs that came. ``write`` is what a running function would print. ``hold`` keeps new containers
    from getting ready.
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
                one.is_ready,
                tuple(
                    Run(call_id, position, position + 1, one.attempts[call_id, position])
                    for call_id, position in one.running
                )
                + tuple(Run(said.call_id, position, position + 1, said.attempt) for said, position, _ in one.queued),
                tuple(run for head, _ in one.unacknowledged.values() for run in _answered(head)),
            )
            for name, one in self.containers.items()
        )
        facts = NodeHello(
            self.node_id, "fake-host", __version__, "fake", self.cpus, self.memory, self.gpus, held, "fake"
        )
        self._stream = await self.peer.open("node.session", facts)
        for one in self.containers.values():
            for head, body in list(one.unacknowledged.values()):
                self._send(head, body)
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
        self.containers[container_id].is_ready = True
        self._report(Report("ready", container=container_id))

    async def ask(self, container_id: str, method: str, args: Any, body: bytes = b"") -> Stream:
        """A request as code inside a container would make it."""
        assert self.peer is not None
        return await self.peer.open(method, args, body, container=container_id, end=True)

    def report(self, report: Report, body: bytes = b"") -> None:
        """Say anything, true or not."""
        self._report(report, body)

    def answer(self, container_id: str, head: chunk.Outputs | Output, body: bytes) -> int:
        """A frame of outputs of a container, true or not; returns its serial."""
        one = self.containers[container_id]
        one.serial += 1
        if isinstance(head, Output):
            report = Report("output", container=container_id, output=replace(head, serial=one.serial))
            encoded = msgspec.json.encode(report)
        else:
            head.serial = one.serial
            encoded = head.encode()
        one.unacknowledged[one.serial] = (encoded, body)
        self._send(encoded, body)
        return one.serial

    def _report(self, report: Report, body: bytes = b"") -> None:
        self._send(msgspec.json.encode(report), body)

    def _send(self, head: bytes, body: bytes) -> None:
        stream = self._stream
        if stream is not None and not stream.broken:
            stream.peer.connection.send(stream.id, head, body)
            stream.peer.flush_soon()

    async def _read(self, stream: Stream) -> None:
        try:
            async for head, body in stream:
                if chunk.is_chunk(head):
                    self._on_inputs(chunk.Inputs.decode(head), body)
                else:
                    self._on_command(stream.decode(Command, head))
        except errors.Error:
            return

    def _on_inputs(self, said: chunk.Inputs, body: bytes) -> None:
        one = self.containers.get(said.container)
        if one is None:
            return
        pieces = {
            position: bytes(piece)
            for position, piece in zip(range(said.start, said.stop), chunk.cut(said.sizes, body))
            if (said.call_id, position, said.attempt) not in one.seen  # said again after a reconnect
        }
        one.seen.update((said.call_id, position, said.attempt) for position in pieces)
        self.given += [ids.input_id(said.call_id, position) for position in pieces]
        function = self.functions[said.method or one.start.function.name]
        plain = not (inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function))
        if plain and len(pieces) > 1:
            self._run_chunk(said, function, pieces, one)
            return
        slots = max(1, one.start.function.autoscaling.max_concurrent_inputs)
        one.queued.extend((said, position, piece) for position, piece in pieces.items())
        self._begin(one, slots)

    def _begin(self, one: FakeContainer, slots: int) -> None:
        while one.queued and len(one.running) < slots:
            said, position, body = one.queued.popleft()
            one.attempts[said.call_id, position] = said.attempt
            work = self._run(said, position, body, one, slots)
            one.running[said.call_id, position] = asyncio.get_running_loop().create_task(work)

    def _run_chunk(
        self, said: chunk.Inputs, function: Callable[..., Any], pieces: dict[int, bytes], one: FakeContainer
    ) -> None:
        begun, values = time.time(), []
        for position, piece in pieces.items():
            args, kwargs = payload.loads(piece) if piece else ((), {})
            try:
                values.append((position, payload.dumps_bytes(function(*args, **kwargs))))
            except Exception as error:  # noqa: BLE001  a fake of the runtime's loop, which brings any exception home
                failure = Failure(f"builtins.{type(error).__name__}", str(error))
                status = ResultStatus.EXCEPTION
                output = Output(said.call_id, position, said.attempt, status, said.container, failure=failure)
                self.answer(said.container, output, b"")
        if values:
            self._values(said, values, begun, one)

    def _values(self, said: chunk.Inputs, values: list[tuple[int, bytes]], begun: float, one: FakeContainer) -> None:
        positions: range | tuple[int, ...] = tuple(position for position, _ in values)
        if positions[-1] - positions[0] + 1 == len(positions):
            positions = range(positions[0], positions[-1] + 1)
        now = time.time()
        head = chunk.Outputs(
            said.call_id,
            positions,
            [len(value) for _, value in values],
            attempt=said.attempt,
            busy=now - begun,
            ended=now,
            log_offset=one.offset,
            container=said.container,
        )
        self.answer(said.container, head, b"".join(value for _, value in values))

    def _on_command(self, command: Command) -> None:
        if command.kind == "start" and command.start is not None:
            self.containers[command.container] = FakeContainer(command.start)
            if not self.hold:
                self.ready(command.container)
        elif command.kind == "cancel":
            one = self.containers.get(command.container)
            if one is not None:
                self._cancel(one, command)
        elif command.kind == "recall":
            one = self.containers.get(command.container)
            if one is not None:
                runs = tuple(Run(said.call_id, at, at + 1, said.attempt) for said, at, _ in one.queued)
                one.queued.clear()
                one.seen.difference_update((run.call_id, run.start, run.attempt) for run in runs)
                self._report(Report("returned", container=command.container, runs=runs))
        elif command.kind == "stop":
            one = self.containers.pop(command.container, None)
            for task in one.running.values() if one is not None else ():
                task.cancel()
            self._report(Report("ended", container=command.container, exit_code=0))
        elif command.kind == "ack":
            one = self.containers.get(command.container)
            for serial in command.serials:
                if one is not None:
                    one.unacknowledged.pop(serial, None)
        elif command.kind == "watch":
            (self.watched.add if command.on else self.watched.discard)(command.app_id)
        elif command.kind == "shutdown" and self.peer is not None:
            self.containers.clear()
            self.peer.close()

    def _cancel(self, one: FakeContainer, command: Command) -> None:
        def meant(call_id: str, position: int) -> bool:
            return call_id == command.call_id and command.position in (-1, position)

        for said, position, body in list(one.queued):
            if meant(said.call_id, position):
                one.queued.remove((said, position, body))
                status = ResultStatus.CANCELLED
                self.answer(said.container, Output(said.call_id, position, said.attempt, status, said.container), b"")
        for (call_id, position), task in list(one.running.items()):
            if meant(call_id, position):
                task.cancel()

    async def _run(self, said: chunk.Inputs, position: int, body: bytes, one: FakeContainer, slots: int) -> None:
        status, failure, value = ResultStatus.SUCCESS, None, b""
        begun, items = time.time(), -1
        try:
            args, kwargs = payload.loads(body) if body else ((), {})
            result = self.functions[said.method or one.start.function.name](*args, **kwargs)
            if inspect.iscoroutine(result):
                result = await result
            if inspect.isgenerator(result):
                items = await self._yield(said, position, result, one)
            else:
                value = payload.dumps_bytes(result)
        except asyncio.CancelledError:
            if said.container not in self.containers:
                return
            status = ResultStatus.CANCELLED
        except TimeoutError as error:
            status, failure = ResultStatus.TIMEOUT, Failure("builtins.TimeoutError", str(error))
        except Exception as error:  # noqa: BLE001  a fake of the runtime's loop, which brings any exception home
            status, failure = ResultStatus.EXCEPTION, Failure(f"builtins.{type(error).__name__}", str(error))
        one.running.pop((said.call_id, position), None)
        one.attempts.pop((said.call_id, position), None)
        if said.container not in self.containers:
            return
        if status == ResultStatus.SUCCESS and items < 0:
            self._values(said, [(position, value)], begun, one)
        else:
            output = Output(
                said.call_id,
                position,
                said.attempt,
                status,
                said.container,
                failure=failure,
                log_offset=one.offset,
                started_at=begun,
                ended_at=time.time(),
                items=max(0, items),
            )
            self.answer(said.container, output, b"")
        self._begin(one, slots)

    async def _yield(self, said: chunk.Inputs, position: int, items: Any, one: FakeContainer) -> int:
        """What a generator gives, item by item, while not too much of it is unacknowledged."""
        count = 0
        for item in items:
            while sum(len(body) for _, body in one.unacknowledged.values()) > _UNACKNOWLEDGED:  # noqa: ASYNC110  acks are many
                await asyncio.sleep(0.001)
            value = payload.dumps_bytes(item)
            head = chunk.Outputs(
                said.call_id,
                range(count, count + 1),
                [len(value)],
                attempt=said.attempt,
                container=said.container,
                flags=chunk.ITEMS,
                position=position,
            )
            self.answer(said.container, head, value)
            count += 1
            await asyncio.sleep(0)
        return count

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
        elif work.verb == "sync":
            await stream.send(VolumeVersion(work.at.volume_id))  # it does not look: something changed each time
        else:
            if work.verb == "remove":
                files.pop(work.at.path, None)
            await stream.send({})
