"""One container, from the server's word "start" to its acknowledged end.

Holds what the server must hear sooner or later: inputs under way, outputs, the log, the end. Each is said when it happens and
said again after every reconnect until it is acknowledged. Nothing here decides what a container's end means for its calls:
the server does, from the facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from alight.node import channel, endings, paths
from alight.node.engine.base import ContainerState
from alight.node.gpus import GpuLocks
from alight.node.ledger import Held, Ledger
from alight.node.logs import Inotify, OutputTail
from alight.node.naming import Dns
from alight.node.outbox import Kept, Outbox
from alight.node.prepare import Prepared, Workshop, prepare
from alight.node.session import Session
from alight.node.volumes import same_directory
from alight.wire import errors, ids
from alight.wire.codec import MAX_INLINE, Kind
from alight.wire.commands import (
    GiveInput,
    HeldContainer,
    LinkHello,
    LinkInput,
    LinkOutput,
    LinkReady,
    LinkStart,
    LinkStop,
    Output,
    Report,
    StartContainer,
)
from alight.wire.messages import Payload
from alight.wire.states import ResultStatus

log = logging.getLogger(__name__)

_START_FILE = "start.json"
_LEDGER_FILE = "ledger"
#: How soon output is carried to the server: while somebody watches, and else.
_PROMPT = 0.004
_UNHURRIED = 0.25
#: How long a runtime that failed to import the user's code, or was told to stop, may take to leave.
_LEAVING = 2.0
#: How long a runtime that came back may take to send the outputs that it kept.
_RESEND = 1.0


@dataclass(frozen=True)
class Surroundings:
    """What a container needs of the node it runs on."""

    shop: Workshop
    session: Session
    notices: Inotify
    dns: Dns
    gpu_locks: GpuLocks
    watched: set[str]
    """Ids of the apps whose output somebody looks at."""
    forget: Callable[[Container], None]
    """The container is gone and acknowledged."""


class Container:
    """See the module. Everything runs in the agent's loop."""

    def __init__(self, start: StartContainer, around: Surroundings) -> None:
        self.id = start.container_id
        self.ready = False
        self._start = start
        self._around = around
        self._engine = around.shop.engine
        self._session = around.session
        self._folder = self._engine.directory(self.id)
        self._outbox = Outbox(self._folder / "outputs")
        self._tail = OutputTail(self.id, self._folder / "output.log", self._session.report)
        self._ledger: Ledger | None = None
        self._prepared: Prepared | None = None
        self._link: channel.RuntimeLink | None = None
        self._servers: list[asyncio.AbstractServer | channel.SdkSocket] = []
        self._undelivered: dict[str, tuple[LinkInput, bytes]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._out_turn = asyncio.Lock()
        self._watch = -1
        self._life: asyncio.Task[None] | None = None
        self._begun = False
        self._runs = asyncio.Event()
        self._begun_at = time.time()
        self._stopping = ""
        self._start_error: errors.Error | None = None
        self._init_failure: tuple[LinkReady, bytes] | None = None
        self._end: tuple[Report, bytes] | None = None
        self._end_acked = False

    # what the server says

    def begin(self) -> None:
        """Start it."""
        self._life = asyncio.get_running_loop().create_task(self._live(), name=f"container {self.id}")

    def adopt(self, state: ContainerState) -> None:
        """Take up a container that an earlier agent started."""
        self._begun = True
        self._runs.set()
        self._ledger = ledger = Ledger(self._folder / _LEDGER_FILE)
        self._outbox.load()
        self._tail.acked = self._tail.sent = ledger.log_acked
        self.ready = ledger.ready and state.status == "running"
        self._life = asyncio.get_running_loop().create_task(self._live_on(state), name=f"container {self.id}")

    def give(self, give: GiveInput, body: bytes) -> None:
        """Hand an input to the runtime. One that is here already is not given twice."""
        ledger = self._ledger
        if ledger is None or self._end is not None or not ids.is_id(give.input_id):
            return  # its end was, or will be, reported: the server sees what became of the input
        held = ledger.inputs.get(give.input_id)
        if held is not None and held.attempt == give.attempt:
            return
        now = time.time()
        ledger.add(Held(give.input_id, give.call_id, give.attempt, now, now + give.timeout if give.timeout else 0.0))
        if give.timeout:
            self._arm(give.input_id, give.timeout, give.timeout)
        message = LinkInput(give.input_id, give.call_id, give.attempt, give.method)
        if give.payload.blob:
            self._soon(self._fetch_and_deliver(message, give.payload))
        else:
            self._deliver(message, body)

    def cancel(self, input_id: str) -> None:
        """Ask the runtime to cancel an input; its output says how that went."""
        if self._link is not None:
            self._link.send(Kind.LINK_CANCEL, LinkStop(input_id))

    def stop(self, grace: float, reason: str) -> None:
        """End it within ``grace`` seconds."""
        self._stopping = self._stopping or reason or "it was stopped"
        if not self._begun:
            if self._life is not None:
                self._life.cancel()
            return
        if self._end is None:
            self._soon(self._stop(grace))

    def on_outputs_acked(self, input_ids: tuple[str, ...]) -> None:
        """The server keeps these."""
        for input_id in input_ids:
            if self._outbox.forget(input_id):
                self._forget_input(input_id)
        self._finish_if_done()

    def on_log_acked(self, offset: int) -> None:
        """The server keeps the log up to there."""
        self._tail.on_ack(offset)
        if self._ledger is not None:
            self._ledger.log_acked = self._tail.acked
            self._ledger.note()
        self._finish_if_done()

    def on_end_acked(self) -> None:
        """The server knows that it is gone."""
        if self._end is not None:
            self._end_acked = True
            self._finish_if_done()

    def on_connected(self) -> None:
        """Say again what was not acknowledged."""
        self._soon(self._replay())

    def on_disconnected(self) -> None:
        """Nothing said since the last acknowledgement can be relied on."""
        self._tail.on_disconnected()
        self._write_down()

    def on_watched(self) -> None:
        """Somebody looks at the output from now on."""
        self._tail.notice(0)

    def held(self) -> HeldContainer:
        """What the server hears of it after a reconnect."""
        inputs = self._ledger.inputs if self._ledger is not None else {}
        unanswered = tuple(input_id for input_id in inputs if input_id not in self._outbox)
        return HeldContainer(self.id, self._start.function_id, self._start.app_id, self.ready, unanswered)

    @property
    def app_id(self) -> str:
        return self._start.app_id

    @property
    def gpus(self) -> tuple[str, ...]:
        return self._start.gpus

    @property
    def linked(self) -> bool:
        """Whether its runtime is connected, or never will be."""
        return self._link is not None or not self.ready

    @property
    def running(self) -> bool:
        return self._begun and self._end is None

    def let_go(self) -> None:
        """The agent leaves; the container runs on."""
        for task in (*self._tasks, *([self._life] if self._life is not None else [])):
            task.cancel()
        self._close_sockets()
        self._tail.close()

    # its life

    async def _live(self) -> None:
        try:
            await self._begin()
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            await self._never_started(errors.ServiceError(f"the container did not start: {self._stopping}"))
            return
        except errors.Error as error:
            await self._never_started(error)
            return
        except OSError as error:
            await self._never_started(
                errors.ResourceExhaustedError(
                    f"the container of {self._start.function.name} could not be prepared: {error}",
                    hint="`alight doctor` looks at the disk and at what the machine allows",
                )
            )
            return
        await self._until_end()

    async def _begin(self) -> None:
        start, around = self._start, self._around
        self._prepared = prepared = await prepare(start, around.shop)
        around.gpu_locks.take(self.id, start.gpus)
        self._ledger = Ledger(self._folder / _LEDGER_FILE)
        (self._folder / _START_FILE).write_bytes(msgspec.json.encode(_without_secrets(start)))
        await self._open_sockets()
        self._hold_volumes()
        state = await self._engine.start(prepared.plan)
        self._begun, self._begun_at = True, state.started_at
        self._runs.set()
        for target, source in prepared.mounts:
            if state.pid is not None and not await asyncio.to_thread(same_directory, state.pid, target, source):
                await self._engine.kill(self.id)
                raise errors.InvalidError(
                    f"a directory of the volume at {target} was exchanged for a link while it was mounted"
                )
        await self._attend(start.function.block_network)
        limit = start.function.startup_timeout or start.function.timeout
        if limit:
            self._timers[""] = asyncio.get_running_loop().call_later(limit, self._startup_expired, limit)
        self._start_runtime()

    async def _live_on(self, state: ContainerState) -> None:
        assert self._ledger is not None
        if state.status == "running":
            try:
                self._around.gpu_locks.take(self.id, self._start.gpus)
                self._hold_volumes()
                await self._open_sockets()
                await self._attend(self._start.function.block_network)
            except (errors.Error, OSError) as error:
                log.warning("container %s could not be taken up: %s", self.id, error)
                self.ready = False
            if self.ready:
                for held in list(self._ledger.inputs.values()):
                    if held.deadline and held.input_id not in self._outbox:
                        self._arm(held.input_id, max(0.0, held.deadline - time.time()), held.deadline - held.given_at)
            else:
                # Its secrets were in the killed agent's memory alone; the server starts another.
                self._start_error = errors.InternalFailure("the node was restarted while this container started")
                await self._engine.kill(self.id)
        await self._until_end()

    async def _until_end(self) -> None:
        try:
            state = await self._engine.wait(self.id)
        except errors.Error as error:
            state = ContainerState(self.id, "exited", None, self._begun_at, signal=signal.SIGKILL, error=str(error))
        await self._ended(state)

    async def _ended(self, state: ContainerState) -> None:
        """Everything that it said is on its way before its end is."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self.ready = False
        self._close_sockets()
        async with self._out_turn:
            if self._session.connected:
                await self._tail.ship(self._tail.size())
        if len(self._outbox):
            self._write_down()
        stats = await endings.last_stats(self._engine, self.id)
        await self._release()
        report = endings.report(state, self._start.function, stats, self._begun_at)
        body = b""
        if self._init_failure is not None:
            ready, body = self._init_failure
            report = replace(report, failure=ready.failure, error=ready.error)
        elif self._start_error is not None:
            report = replace(report, error=errors.to_wire(self._start_error))
        elif self._ledger is None or not self._ledger.ready:
            report = replace(report, error=errors.to_wire(endings.before_ready(report, self._start.function.name)))
        if self._stopping and not report.oom_killed:
            report = replace(report, text=self._stopping)
        self._end = (report, body)
        await self._session.report(report, body)
        self._finish_if_done()

    async def _never_started(self, error: errors.Error) -> None:
        log.info("container %s did not start: %s", self.id, error)
        self._close_sockets()
        with contextlib.suppress(errors.Error):
            await self._engine.remove(self.id)
        await self._release()
        self._end = (Report("ended", self.id, text=str(error), error=errors.to_wire(error)), b"")
        await self._session.report(*self._end)

    async def _release(self) -> None:
        self._around.gpu_locks.release(self.id)
        await self._around.dns.stop(self.id)
        for mount in self._start.function.volumes:
            if not mount.read_only and self._held_volumes:
                try:
                    await self._around.shop.volumes.sync(mount.volume_id)
                except (errors.Error, OSError) as error:
                    log.warning("the volume %s was not synced after %s: %s", mount.volume_id, self.id, error)
                self._around.shop.volumes.release(mount.volume_id)
        self._held_volumes = False

    _held_volumes = False

    def _hold_volumes(self) -> None:
        self._held_volumes = True
        for mount in self._start.function.volumes:
            if not mount.read_only:
                self._around.shop.volumes.hold(mount.volume_id)

    async def _stop(self, grace: float) -> None:
        link = self._link
        if grace > 0 and link is not None and self.ready:
            link.send(Kind.LINK_STOP, LinkStop(grace=grace))
            last = min(_LEAVING, grace / 4)
            if not await self._wait_life(grace - last):
                await self._engine.signal(self.id, signal.SIGTERM)
                await self._wait_life(last)
        if self._end is None:
            await self._kill()

    async def _wait_life(self, seconds: float) -> bool:
        if self._life is None:
            return True
        done, _ = await asyncio.wait({self._life}, timeout=seconds)
        return bool(done)

    async def _kill(self) -> None:
        try:
            await self._engine.kill(self.id)
        except errors.Error as error:
            log.warning("container %s could not be ended: %s", self.id, error)

    def _finish_if_done(self) -> None:
        if not self._end_acked or len(self._outbox) or self._tail.acked < self._tail.size():
            return
        self._end_acked = False  # once
        self._tail.close()
        if self._watch >= 0:
            self._around.notices.forget(self._watch)
        if self._ledger is not None:
            self._ledger.close()
        self._soon(self._remove())

    async def _remove(self) -> None:
        try:
            await self._engine.remove(self.id)
        except errors.Error as error:
            log.warning("container %s could not be removed: %s", self.id, error)
        self._around.forget(self)

    # its sockets

    async def _open_sockets(self) -> None:
        folder = self._folder / "sock"

        async def inside() -> set[int]:
            await self._runs.wait()  # the runtime may be here before the engine has said that it runs
            return await self._engine.inside(self.id)

        self._servers.append(await channel.serve_link(folder, self, inside))
        if not self._start.function.restrict_access:
            self._servers.append(await channel.serve_sdk(folder, self.id, inside, self._session))

    def _close_sockets(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._link is not None:
            self._link.close()

    async def _attend(self, block_network: bool) -> None:
        """Follow its output and answer its questions about names."""
        if not block_network:
            await self._around.dns.serve(self.id)
        with contextlib.suppress(FileNotFoundError):
            self._watch = self._around.notices.watch(self._folder / "output.log", self._output_grew)
        self._output_grew()

    def _output_grew(self) -> None:
        self._tail.notice(_PROMPT if self._watched else _UNHURRIED)

    @property
    def _watched(self) -> bool:
        return self._start.app_id in self._around.watched

    # what the runtime says

    def may_link(self, pid: int) -> bool:
        """See ``channel.LinkOwner``."""
        ledger = self._ledger
        return ledger is not None and self._link is None and ledger.link_pid in (0, pid)

    def on_link(self, link: channel.RuntimeLink, hello: LinkHello) -> None:
        assert self._ledger is not None
        self._link = link
        self._ledger.link_pid = link.pid
        self._ledger.note()
        if hello.ready:
            for message, body in list(self._undelivered.values()):
                self._deliver(message, body)
            known = {*hello.running, *self._outbox_ids()}
            asyncio.get_running_loop().call_later(_RESEND, self._miss, set(self._ledger.inputs) - known)
        else:
            self._start_runtime()

    def on_link_ready(self, ready: LinkReady, body: bytes) -> None:
        startup = self._timers.pop("", None)
        if startup is not None:
            startup.cancel()
        if ready.failure is not None or ready.error is not None:
            self._init_failure = (ready, body)
            asyncio.get_running_loop().call_later(_LEAVING, self._kill_soon)
            return
        assert self._ledger is not None
        self.ready = self._ledger.ready = True
        self._ledger.note()
        self._session.report_soon(Report("ready", self.id))

    def on_link_output(self, output: LinkOutput, body: bytes) -> None:
        assert self._ledger is not None
        held = self._ledger.inputs.get(output.input_id)
        if held is None or held.attempt != output.attempt:
            # Answered and acknowledged already, or never given to this container: nobody may answer for another.
            self._acknowledge(output.input_id)
            return
        if output.input_id in self._outbox:
            return  # said again after a reconnect, or overtaken by its timeout
        self._disarm(output.input_id)
        kept = Kept(
            Output(
                output.input_id,
                output.attempt,
                output.status,
                self.id,
                Payload(),
                output.failure,
                output.error,
                0,
                output.started_at,
                output.ended_at,
            ),
            body,
        )
        if output.spool:
            kept = self._take_spooled(kept, output)
        self._keep(kept)

    def on_link_waiting(self, waiting: bool) -> None:
        self._session.report_soon(Report("waiting", self.id, on=waiting))

    def on_link_lost(self, link: channel.RuntimeLink) -> None:
        if self._link is link:
            self._link = None

    def _start_runtime(self) -> None:
        """Tell the runtime what it is for, once both it and we are ready for that."""
        link, prepared, start = self._link, self._prepared, self._start
        if link is None or prepared is None or not self._begun:
            return
        reserved = dict(prepared.env)
        given = {**start.secrets, **start.function.env}
        env = {name: value for name, value in given.items() if name not in reserved}
        function = replace(prepared.function, env={})
        message = LinkStart(
            self.id,
            start.app_id,
            start.app_name,
            start.environment,
            start.function_id,
            start.image_id,
            function,
            {**env, **reserved},
            prepared.spool,
        )
        link.send(Kind.LINK_START, message, prepared.serialized)
        # From here on nobody needs the secrets.
        self._prepared = None
        self._start = replace(start, secrets={})

    def _startup_expired(self, limit: float) -> None:
        name = self._start.function.name
        self._start_error = errors.FunctionTimeoutError(
            f"{name} was not ready within {limit:g} s of its container's start",
            hint="importing its code takes longer than that: raise startup_timeout (or timeout)",
        )
        self._kill_soon()

    def _kill_soon(self) -> None:
        if self._end is None:
            self._soon(self._kill())

    # inputs and outputs

    def _deliver(self, message: LinkInput, body: bytes) -> None:
        link = self._link
        if link is None:
            self._undelivered[message.input_id] = (message, body)
            return
        self._undelivered.pop(message.input_id, None)
        link.send(Kind.LINK_INPUT, message, body)

    async def _fetch_and_deliver(self, message: LinkInput, payload: Payload) -> None:
        """A large argument comes as a file in the spool directory."""
        name = f"in-{message.input_id}"
        try:
            root = paths.open_root(self._folder / "spool")
            try:
                fd = paths.create_file(root, name, 0o600)
            finally:
                os.close(root)
            try:
                await self._around.shop.blobs.fetch(payload.blob, fd)
            finally:
                os.close(fd)
        except (errors.Error, OSError) as error:
            self._answer(message.input_id, ResultStatus.INTERNAL, errors.InternalFailure(f"an argument was lost: {error}"))
            return
        self._deliver(replace(message, spool=name), b"")

    def _take_spooled(self, kept: Kept, output: LinkOutput) -> Kept:
        """Move a large result out of the container's reach."""
        try:
            root = paths.open_root(self._folder / "spool")
            try:
                os.close(paths.open_file(root, paths.split(paths.relative(output.spool))[1]))
                target = self._outbox.folder() / f"{output.input_id}.body"
                os.rename(paths.relative(output.spool), target, src_dir_fd=root)
            finally:
                os.close(root)
            size = target.lstat().st_size
        except (errors.Error, OSError) as error:
            problem = errors.RemoteError(f"the result of {self._start.function.name} could not be taken: {error}")
            failed = replace(kept.output, status=ResultStatus.TERMINATED, failure=None, error=errors.to_wire(problem))
            return Kept(failed)
        return Kept(replace(kept.output, payload=Payload(size=size)), b"", target)

    def _answer(self, input_id: str, status: str, error: errors.Error) -> None:
        """Answer for the runtime: it cannot, or has not in time."""
        held = self._ledger.inputs.get(input_id) if self._ledger is not None else None
        if held is None or input_id in self._outbox:
            return
        self._disarm(input_id)
        now = time.time()
        self._keep(
            Kept(
                Output(
                    input_id,
                    held.attempt,
                    status,
                    self.id,
                    error=errors.to_wire(error),
                    started_at=held.given_at,
                    ended_at=now,
                )
            )
        )

    def _keep(self, kept: Kept) -> None:
        self._outbox.add(kept)
        if not self._session.connected:
            self._write_down()
        elif kept.file is None and not self._watched and not self._out_turn.locked():
            self._session.report_soon(Report("output", self.id, kept.output), kept.body)
        else:
            self._soon(self._send_output(kept))

    async def _send_output(self, kept: Kept) -> None:
        """The log before the result, where somebody sees both; large bodies as blobs."""
        async with self._out_turn:
            if kept.output.input_id not in self._outbox:
                return
            output = kept.output
            if self._watched and self._end is None:
                try:
                    offset = await self._engine.drain(self.id)
                    await self._tail.ship(offset)
                    output = replace(output, log_offset=offset)
                except errors.Error as error:
                    log.warning("the output of %s could not be brought up to date: %s", self.id, error)
            if kept.file is not None:
                try:
                    output = replace(output, payload=await self._upload(kept))
                except (errors.Error, OSError) as error:
                    if self._session.connected:
                        log.warning("a result of %s could not be sent: %s", self.id, error)
                        problem = errors.InternalFailure(f"a result could not be sent to the server: {error}")
                        output = replace(output, status=ResultStatus.INTERNAL, payload=Payload(), error=errors.to_wire(problem))
                    else:
                        return  # the replay after the reconnect sends it
                self._outbox.update(output)
            await self._session.report(Report("output", self.id, output), kept.body)

    async def _upload(self, kept: Kept) -> Payload:
        assert kept.file is not None
        fd = os.open(kept.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size <= MAX_INLINE // 2:
                log.debug("a small result of %s came as a file", self.id)
            return Payload(await self._around.shop.blobs.put(fd, size), size)
        finally:
            os.close(fd)

    async def _replay(self) -> None:
        for kept in self._outbox.waiting():
            await self._send_output(kept)
        if self._end is None:
            if self.ready:
                self._session.report_soon(Report("ready", self.id))
            self._tail.notice(0)
            return
        async with self._out_turn:
            await self._tail.ship(self._tail.size())
        await self._session.report(*self._end)

    def _write_down(self) -> None:
        """Put unacknowledged outputs on disk, then let the runtime forget them."""
        if not len(self._outbox):
            return
        try:
            written = self._outbox.write_down()
        except OSError as error:
            log.warning("results of %s stay in memory until the server is back: %s", self.id, error)
            return
        for input_id in written:
            self._acknowledge(input_id)

    def _acknowledge(self, input_id: str) -> None:
        if self._link is not None:
            self._link.send(Kind.LINK_ACK, LinkStop(input_id))

    def _forget_input(self, input_id: str) -> None:
        if self._ledger is not None:
            self._ledger.drop(input_id)
        self._acknowledge(input_id)
        with contextlib.suppress(OSError):
            (self._folder / "spool" / f"in-{input_id}").unlink()

    def _outbox_ids(self) -> set[str]:
        return {kept.output.input_id for kept in self._outbox.waiting()}

    def _miss(self, missing: set[str]) -> None:
        """Inputs that the runtime never got, because the agent was killed between hearing and passing on."""
        for input_id in missing - set(self._undelivered):
            self._answer(input_id, ResultStatus.INTERNAL, errors.InternalFailure("the node was restarted; it runs again"))

    def _arm(self, input_id: str, seconds: float, limit: float) -> None:
        self._timers[input_id] = asyncio.get_running_loop().call_later(seconds, self._expired, input_id, limit)

    def _disarm(self, input_id: str) -> None:
        timer = self._timers.pop(input_id, None)
        if timer is not None:
            timer.cancel()

    def _expired(self, input_id: str, limit: float) -> None:
        name = self._start.function.name
        error = errors.FunctionTimeoutError(
            f"{name} ran longer than its timeout of {limit:g} s", hint="give it more time with timeout=…"
        )
        self._answer(input_id, ResultStatus.TIMEOUT, error)
        self._stopping = self._stopping or f"an input ran longer than {limit:g} s"
        self._kill_soon()

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def remembered(raw: bytes) -> StartContainer | None:
    """The start that an earlier agent wrote down."""
    try:
        return msgspec.json.decode(raw, type=StartContainer)
    except msgspec.MsgspecError:
        return None


def _without_secrets(start: StartContainer) -> StartContainer:
    return replace(start, secrets={}, function=replace(start.function, env={}))
