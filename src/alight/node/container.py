"""One container, from the server's word "start" to its acknowledged end.

Holds what the server must hear sooner or later: inputs under way, outputs, the log, the end. Each is said when it
happens and said again after every reconnect until it is acknowledged. Nothing here decides what a container's end means
for its calls: the server does, from the facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from alight.node import channel, endings, execs, held_buckets, starts, stopping
from alight.node.doors import Doors
from alight.node.ends import Ends
from alight.node.engine.base import ContainerState
from alight.node.exchange import Exchange
from alight.node.gangs import Member
from alight.node.held_volumes import HeldVolumes
from alight.node.last_words import LastWords
from alight.node.ledger import Ledger
from alight.node.meter import Meter
from alight.node.prepare import Prepared, prepare
from alight.node.shown import Shown
from alight.node.stages import Stages
from alight.node.stopping import Stopping
from alight.node.surroundings import Surroundings
from alight.node.volumes import same_directory
from alight.wire import chunk, errors
from alight.wire.codec import Kind
from alight.wire.commands import HeldContainer, LinkHello, LinkReady, Output, Report, Run, StartContainer

log = logging.getLogger(__name__)

_START_FILE = "start.json"
_LEDGER_FILE = "ledger"
#: Where its start went is said with the first answer, or so long after it was ready.
_START_SAID = 2.0


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
        self._shown = Shown(self.id, start.app_id, self._folder, around)
        self.exchange: Exchange | None = None
        self._prepared: Prepared | None = None
        self._doors = Doors(self._folder, self, self._inside)
        self._startup: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.life: asyncio.Task[None] | None = None
        self._volumes = HeldVolumes(around.shop.volumes, start.function.volumes)
        found = start.function.buckets
        self._gate = held_buckets.Gate(self._engine, self.id, found) if found else None
        self._stopper = Stopping(self, self._engine)
        self._member = Member(start.container_id, start.cluster, around.gangs)
        self._starting = False
        self._begun = False
        self._level = 0  # of the template that it was forked from
        self._runs = asyncio.Event()
        self._pid = 0  # of its first process, once it runs
        self._begun_at = time.time()
        self._stages = Stages()
        self._waiting = 0
        self.meter = Meter(self._folder, self._begun_at)
        self._stopping = ""
        self._start_error: errors.Error | None = None
        self._interrupted = False  # the node was restarted while it started
        self._init_failure: tuple[LinkReady, bytes] | None = None
        self._last = LastWords(self.id, self._session, self._stages)

    # what the server says

    def begin(self) -> None:
        """Start it. What goes wrong is reported as its end."""
        self.life = asyncio.get_running_loop().create_task(self._guarded(self._live()))

    def adopt(self, state: ContainerState) -> None:
        """Take up a container that an earlier agent started."""
        self._begun = True
        self._around.keeper.adopt(self.id)
        self._stages.adopted()
        self._runs.set()
        exchange = self._open_exchange()
        exchange.take_up()
        self.meter.take_up()
        self._shown.tail.acked = self._shown.tail.sent = exchange.ledger.log_acked
        self.ready = exchange.ledger.ready and state.status == "running"
        self._member.adopt()
        self.life = asyncio.get_running_loop().create_task(self._guarded(self._live_on(state)))

    def give(self, inputs: chunk.Inputs, head: bytes, body: bytes) -> None:
        """Hand inputs to the runtime."""
        if self._stages.awaits_input:
            self._stages.given()
        if self.exchange is not None:
            self.exchange.give(inputs, head, body)

    def cancel(self, call_id: str, position: int) -> None:
        """Cancel one input of a call, or all (-1); their outputs say how that went."""
        if self.exchange is not None:
            self.exchange.cancel(call_id, position)

    def recall(self) -> None:
        """Have back what has not begun; it is reported as returned."""
        if self.exchange is not None:
            self.exchange.recall()

    def stop(self, grace: float, reason: str) -> None:
        """End it within ``grace`` seconds."""
        self._stopping = self._stopping or reason or "it was stopped"
        if self._starting:
            return  # the engine cannot be interrupted; it is ended as soon as it runs
        if not self._begun:
            if self.life is not None:
                self.life.cancel()
            return
        if not self._last.have_come:
            self.soon(self._stopper.stop(grace))

    def on_outputs_acked(self, serials: tuple[int, ...], answered: tuple[Run, ...]) -> None:
        """The server keeps these."""
        if self.exchange is not None:
            self.exchange.on_acked(serials, answered)
        self._finish_if_done()

    def on_log_acked(self, offset: int) -> None:
        """The server keeps the log up to there."""
        self._shown.tail.on_ack(offset)
        if self.exchange is not None:
            self.exchange.ledger.log_acked = self._shown.tail.acked
            self.exchange.ledger.note()
        self._finish_if_done()

    def on_log_unkept(self) -> None:
        self._shown.tail.begin_again()

    def on_end_acked(self) -> None:
        """The server knows that it is gone."""
        self._last.on_acked()
        self._finish_if_done()

    def on_connected(self) -> None:
        """Say again what was not acknowledged."""
        if self.exchange is not None:
            self.exchange.replay()  # now: what comes in the meantime comes after
        self.soon(self._replay())

    def on_disconnected(self) -> None:
        """Nothing said since the last acknowledgement can be relied on."""
        self._shown.tail.on_disconnected()
        if self.exchange is not None:
            self.exchange.write_down()

    def on_watched(self) -> None:
        """Somebody looks at the output from now on."""
        self._shown.tail.notice(0)

    def held(self) -> HeldContainer:
        """What the server hears of it after a reconnect."""
        held = (self.exchange.unanswered, self.exchange.answered) if self.exchange is not None else ()
        runs, answered = held or ((), ())
        start = self._start
        return HeldContainer(
            self.id, start.function_id, start.app_id, self.ready, runs, answered, start.gpus, start.memory
        )

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
    def has_ended(self) -> bool:
        return self._last.have_come

    @property
    def running(self) -> bool:
        return self._begun and not self._last.have_come

    async def end_with_uploads(self, seconds: float) -> None:
        """The machine is to end: end this container if it writes to buckets, and wait so long for what it wrote."""
        if self._gate is None or self.life is None or not self._begun:
            return
        self._gate.hurry(seconds)
        await self._engine.signal(self.id, signal.SIGKILL)
        await asyncio.wait({self.life}, timeout=seconds + 1.0)

    def let_go(self) -> None:
        """The agent leaves; the container runs on."""
        for task in (*self._tasks, *([self.life] if self.life is not None else [])):
            task.cancel()
        if self.exchange is not None:
            self.exchange.let_go()
        self._close_sockets()
        self._shown.tail.close()
        if self._gate is not None:
            self._gate.let_go()

    # its life

    async def _guarded(self, life: Coroutine[Any, Any, None]) -> None:
        """One of the four loops: a fault of ours in one container ends that container alone, and is told."""
        try:
            await life
        except Exception:
            fault = os.urandom(4).hex()
            log.exception("fault %s in the container %s", fault, self.id)
            await self._never_started(
                errors.InternalError(
                    f"Alight failed at a container of {self._start.function.name} (fault {fault})",
                    hint="the node's log (log/node.log of the state directory) shows what happened",
                )
            )

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
            await self._never_started(endings.not_prepared(self._start.function.name, error))
            return
        await self._until_end()

    async def _begin(self) -> None:
        start, around = self._start, self._around
        self._volumes.hold(self.id)  # before they are looked at: from now on nobody deletes them
        given = await around.gpus.take(self.id, start.owner, start.gpus)
        for note in given.notes:
            self._session.report_soon(Report("note", self.id, text=note))
        self._stages.note(gpus=given.notes)
        self._prepared = prepared = await prepare(
            start, around.shop, self._stages, given.injection if start.gpus else None
        )
        exchange = self._open_exchange()
        (self._folder / _START_FILE).write_bytes(starts.encode(start))
        await self._open_sockets()
        self._stages.reached("mounts", "exec")
        self._starting = True
        try:
            started = await around.keeper.start(start, prepared, self._link_for_fork)
        finally:
            self._starting = False
        state, self._level = started.state, started.level
        self._stages.note(level=started.level, refused=started.refused)
        self._begun, self._begun_at = True, state.started_at
        self.meter.began(state.started_at)
        if self.gpus:
            self.soon(self.meter.hold(self._around.gpu_use, self.gpus))
        self._stages.started(state.how, state.stages)
        if started.level == 0:
            self._doors.take_back()
        elif self._doors.has_given:
            self._pid = exchange.ledger.link_pid = state.pid or 0
            self._was_told(prepared)
        self._runs.set()
        if self._stopping:
            await self._stopper.kill()
            return
        for target, source in prepared.mounts:
            if state.pid is not None and not await asyncio.to_thread(same_directory, state.pid, target, source):
                await self._engine.kill(self.id)
                raise errors.InvalidError(
                    f"a directory of the volume at {target} was exchanged for a link while it was mounted"
                )
        limit = start.function.startup_timeout or start.function.timeout
        if limit:
            self._startup = asyncio.get_running_loop().call_later(limit, self._startup_expired, limit)
        if self._member.must_wait:
            self.soon(self._meet())
        self._start_runtime()
        # The runtime waits for neither: questions about names wait in their socket, output in its file.
        await self._attend(start.function.block_network)

    async def _live_on(self, state: ContainerState) -> None:
        if state.status == "running":
            try:
                self._around.gpus.adopt(self.id, self._start.owner, self._start.gpus)
                self._volumes.hold(self.id)
                await self._open_sockets()
                await self._attend(self._start.function.block_network)
            except (errors.Error, OSError) as error:
                log.warning("container %s could not be taken up: %s", self.id, error)
                self.ready = False
            if not self.ready:
                # Its secrets were in the killed agent's memory alone; the server starts another.
                self._start_error = errors.InternalFailure("the node was restarted while this container started")
                self._interrupted = True
                await self._stopper.kill()
        await self._until_end()

    async def _until_end(self) -> None:
        try:
            state = await self._engine.wait(self.id)
        except errors.Error as error:
            state = ContainerState(self.id, "exited", None, self._begun_at, signal=signal.SIGKILL, error=str(error))
        await self._ended(state)

    async def _ended(self, state: ContainerState) -> None:
        """Everything that it said is on its way before its end is."""
        if self._startup is not None:
            self._startup.cancel()
        self.ready = False
        if self._gate is not None:
            await self._gate.end()
        exchange = self.exchange
        if exchange is not None:
            exchange.close()
        self._close_sockets()
        if exchange is not None:
            await exchange.settle()
            exchange.write_down()
        stats = await endings.last_stats(self._engine, self.id)
        gpus = list((await self._around.gpu_use.read_held(self.gpus)).values())
        self._last.note_used(self.meter.read(stats, state.ended_at or time.time(), gpus, final=True))
        await self._release()
        report = endings.report(state, self._start.function, stats, self._begun_at)
        body = b""
        if self._init_failure is not None:
            ready, body = self._init_failure
            report = replace(report, failure=ready.failure, error=ready.error)
        elif self._start_error is not None:
            report = replace(report, error=errors.to_wire(self._start_error), interrupted=self._interrupted)
        elif exchange is None or not exchange.ledger.ready:
            report = replace(report, error=errors.to_wire(endings.before_ready(report, self._start.function.name)))
        if self._stopping and not report.oom_killed:
            report = replace(report, text=self._stopping)
        await self._last.say(report, body)
        self._finish_if_done()

    async def _replay(self) -> None:
        if self._stages.said is not None:
            self._session.report_soon(self._stages.said)
        if not self._last.have_come:
            if self.ready:
                self._session.report_soon(Report("ready", self.id))
            if self._waiting:
                self._session.report_soon(Report("waiting", self.id, count=self._waiting))
            self._shown.tail.notice(0)
            return
        if self.exchange is not None:
            await self.exchange.settle()
        await self._last.say_again()

    async def _never_started(self, error: errors.Error) -> None:
        log.info("container %s did not start: %s", self.id, error)
        self._close_sockets()
        with contextlib.suppress(errors.Error):
            await self._engine.remove(self.id)
        await self._release()
        # An internal failure is a process of the machine that ended: that says nothing about the function.
        ours = isinstance(error, errors.InternalFailure)
        await self._last.say(Report("ended", self.id, text=str(error), error=errors.to_wire(error), interrupted=ours))

    async def _release(self) -> None:
        self._around.keeper.gone(self.id)
        self._member.leave()
        await self._around.gpus.release(self.id)
        await self._around.dns.stop(self.id)
        await self._volumes.release(self.id)

    def _finish_if_done(self) -> None:
        exchange = self.exchange
        if not self._last.acked or (exchange is not None and exchange.unacknowledged) or not self._shown.is_kept:
            return
        self._last.acked = False  # once
        self._shown.close()
        if exchange is not None:
            exchange.ledger.close()
        self.soon(self._remove())

    async def _remove(self) -> None:
        try:
            await self._engine.remove(self.id)
        except errors.Error as error:
            log.warning("container %s could not be removed: %s", self.id, error)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        self._around.forget(self)

    # its sockets

    def _open_exchange(self) -> Exchange:
        around = self._around
        ends = Ends(
            container_id=self.id,
            folder=self._folder,
            function=self._start.function,
            engine=self._engine,
            session=self._session,
            blobs=around.shop.blobs,
            tail=self._shown.tail,
            watched=lambda: self._shown.watched,
            give_up=self._give_up,
            rank=self._member.in_words,
        )
        self.exchange = Exchange(ends, Ledger(self._folder / _LEDGER_FILE))
        return self.exchange

    @property
    def _link(self) -> channel.RuntimeLink | None:
        return self.exchange.link if self.exchange is not None else None

    async def _inside(self) -> set[int]:
        await self._runs.wait()  # the runtime may be here before the engine has said that it runs
        return await self._engine.inside(self.id)

    async def _first_pid(self) -> int:
        await self._runs.wait()
        return self._pid

    async def _open_sockets(self) -> None:
        await self._doors.open(None if self._start.function.restrict_access else self._session)

    async def _link_for_fork(self, level: int) -> socket.socket | None:
        """The other end of a link with what a fork of a template of ``level`` has to know in it already. None: it is to
        dial, because something has to be looked at before it may begin."""
        prepared = self._prepared
        if prepared is None or prepared.mounts or self._member.must_wait:
            return None
        link, theirs = await self._doors.give(self._first_pid)
        link.send(Kind.LINK_START, starts.for_runtime(self._start, prepared, level), prepared.serialized)
        return theirs

    def _close_sockets(self) -> None:
        self._doors.close()
        link = self._link
        if link is not None:
            link.close()

    async def _attend(self, block_network: bool) -> None:
        """Follow its output and answer its questions about names."""
        if not block_network:
            await self._around.dns.serve(self.id)
        self._shown.follow()

    # what the runtime says

    def may_link(self, pid: int) -> bool:
        """See ``channel.LinkOwner``."""
        exchange = self.exchange
        return exchange is not None and exchange.link is None and exchange.ledger.link_pid in (0, pid)

    def on_link(self, link: channel.RuntimeLink, hello: LinkHello) -> None:
        exchange = self.exchange
        assert exchange is not None
        self._stages.reached("runtime", "import" if self._prepared is None else "other")
        exchange.link = link
        exchange.ledger.link_pid = link.pid
        exchange.ledger.note()
        if hello.ready:
            exchange.on_back(hello.running)
        else:
            self._start_runtime()

    def on_link_ready(self, ready: LinkReady, body: bytes) -> None:
        if self._startup is not None:
            self._startup.cancel()
        self._stages.loaded(ready)
        self._around.keeper.through(self.id)
        if ready.failure is not None or ready.error is not None:
            self._init_failure = (ready, body)
            asyncio.get_running_loop().call_later(stopping.LEAVING, self._stopper.kill_soon)
            return
        assert self.exchange is not None
        ledger = self.exchange.ledger
        self.ready = ledger.ready = True
        ledger.note()
        self._session.report_soon(Report("ready", self.id))
        asyncio.get_running_loop().call_later(_START_SAID, self._say_start)

    def on_link_values(self, values: chunk.Outputs, head: bytes, body: bytes) -> None:
        if self.exchange is not None and self._gate is not None:
            self._gate.pass_on(partial(self.exchange.on_values, values, head, body))
        elif self.exchange is not None:
            self.exchange.on_values(values, head, body)
        if self._stages.open:
            self._session.report_soon(self._stages.answered(self.id, values.ended - values.busy))

    def on_link_output(self, output: Output, body: bytes) -> None:
        if self.exchange is not None and self._gate is not None:
            self._gate.pass_on(partial(self.exchange.on_output, output, body))
        elif self.exchange is not None:
            self.exchange.on_output(output, body)
        if self._stages.open:
            self._session.report_soon(self._stages.answered(self.id, output.started_at))

    def _say_start(self) -> None:
        """The first input runs for long, or none came: whoever asks is to see the start until then."""
        if self._stages.open:
            self._session.report_soon(self._stages.so_far(self.id))

    def on_link_waiting(self, count: int) -> None:
        self._waiting = count
        self._session.report_soon(Report("waiting", self.id, count=count))

    def on_link_returned(self, runs: tuple[Run, ...]) -> None:
        if self.exchange is not None:
            self.exchange.on_returned(runs)
        self._stopper.returned()

    def on_link_lost(self, link: channel.RuntimeLink) -> None:
        if self.exchange is not None and self.exchange.link is link:
            self.exchange.link = None

    def _start_runtime(self) -> None:
        """Tell the runtime what it is for, once both it and we are ready for that."""
        link, prepared = self._link, self._prepared
        if link is None or prepared is None or not self._begun or self._member.must_wait:
            return
        message = starts.for_runtime(self._start, prepared, self._level)
        link.send(Kind.LINK_START, message, prepared.serialized)
        self._stages.reached("other", "import")
        self._was_told(prepared)

    async def _meet(self) -> None:
        try:
            self._start = replace(self._start, cluster=await self._member.meet())
            self._start_runtime()
        except errors.Error as error:
            self._start_error = error
            self._stopper.kill_soon()

    def _was_told(self, prepared: Prepared) -> None:
        execs.remember(self._folder, prepared)
        # From here on nobody needs the secrets.
        self._prepared = None
        self._start = replace(self._start, secrets={}, bucket_secrets={})

    def _startup_expired(self, limit: float) -> None:
        self._start_error = endings.not_in_time(self._start.function.name, limit)
        self._stopper.kill_soon()

    def _give_up(self, reason: str) -> None:
        self._stopping = self._stopping or reason
        self.soon(self._stopper.recall_and_kill())

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else, until the agent leaves."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
