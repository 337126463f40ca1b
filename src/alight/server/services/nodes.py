"""Machines: the session with each, what they report, what they are told.

A node that loses its connection keeps its containers; it has ``grace`` seconds to come back with them. Commands go out
in order; when the connection is slow they wait here, never in the loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from alight.link.peer import Peer, Stream
from alight.link.stream import decode
from alight.scheduler import events
from alight.scheduler.state import Gpu
from alight.server import faults
from alight.server.events import Inbox
from alight.server.logs import Logs
from alight.server.services.calls import Calls
from alight.server.services.containers import Containers, Record
from alight.server.services.hub import Hub
from alight.server.services.log_running import Running
from alight.server.services.readers import send_now
from alight.store.base import Store
from alight.wire import chunk, errors
from alight.wire.codec import Buffer
from alight.wire.commands import Command, GpuInfo, GpuUse, NodeHello, Output, Report, Run
from alight.wire.messages import AppEvent, NodeSummary
from alight.wire.record import replace
from alight.wire.snapshots import VolumeVersion
from alight.wire.states import ContainerState, ResultStatus

log = logging.getLogger(__name__)
_AGAIN = 1.0  # seconds until output that found no room is asked for again
_REPLAY = 0.5  # seconds in which a machine that came back says its kept outputs again
_encode = msgspec.json.encode
_NOT_FINAL = {"internal_failure", "internal", "service", "connection"}


@dataclass
class Session:
    """A connected node."""

    hello: NodeHello
    peer: Peer
    stream: Stream
    outbox: deque[tuple[bytes, Buffer]] = field(default_factory=deque)
    pump: asyncio.Task[None] | None = None
    usage: dict[str, dict[str, float]] = field(default_factory=dict)
    machine: dict[str, float] = field(default_factory=dict)
    gpus: dict[str, GpuUse] = field(default_factory=dict)

    def send(self, command: Command) -> None:
        """Say it now, or as soon as the node has taken what was said before."""
        self.send_raw(_encode(command), b"")

    def send_raw(self, head: bytes, body: Buffer) -> None:
        """``send`` for a head that is encoded already."""
        if not self.outbox and self.stream.may_send:
            send_now(self.stream, head, body)
            return
        self.outbox.append((head, body))
        if self.pump is None:
            self.pump = asyncio.get_running_loop().create_task(self._pump())

    async def _pump(self) -> None:
        try:
            while self.outbox:
                head, body = self.outbox[0]
                await self.stream.send_raw(head, body)
                self.outbox.popleft()
        except errors.Error:
            self.outbox.clear()  # the node is gone; what it holds is settled when it comes back
        finally:
            self.pump = None


@dataclass
class Around:
    """What a node's reports touch."""

    store: Store
    inbox: Inbox
    containers: Containers
    calls: Calls
    logs: Logs
    hub: Hub


class Nodes:
    """All machines. ``on_gone`` hears of the end of a machine's grace."""

    def __init__(self, around: Around, grace: float) -> None:
        self._around = around
        self._grace = grace
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.sessions: dict[str, Session] = {}
        self._nobody = asyncio.Event()
        self._unkept: set[str] = set()  # containers whose output found no room on the disk
        self.running = Running(around.logs, around.calls.book)
        self._acks: dict[str, tuple[list[int], list[Run]]] = {}
        self._expected: set[str] = set()
        self.on_leave: Callable[[str], None] = lambda node_id: None
        self.on_join: Callable[[], None] = lambda: None
        self.on_committed: Callable[[VolumeVersion], None] = lambda version: None
        #: Hear (container, unix time, usage) of each measurement; the last one of a container has ``final`` in it, and
        #: may come twice. See ``docs/metrics.md`` for its keys.
        self.on_usage: list[Callable[[str, float, dict[str, float]], None]] = []
        self.on_machine: list[Callable[[Session, float], None]] = []
        around.calls.outcomes.acknowledge = self.acknowledge
        around.calls.outcomes.answered = self.acknowledge_answer
        around.calls.outcomes.follows = around.containers.follows
        around.hub.on_watched = self._tell_watched

    async def join(self, peer: Peer, stream: Stream, hello: NodeHello) -> Session:
        """A machine says hello, with what it holds."""
        # Its containers may ask for something while we still read: the machine takes its hello for heard.
        peer.info["node_id"] = hello.node_id
        # Before anything else is done, so that nothing can happen in between.
        over = await self._around.calls.giving.take_up(
            run.call_id for one in hello.containers for run in (*one.runs, *one.answered)
        )
        old = self.sessions.pop(hello.node_id, None)
        if old is not None:
            old.peer.close()  # it came back before its lost connection was noticed
        timer = self._timers.pop(hello.node_id, None)
        if timer is not None:
            timer.cancel()
        session = Session(hello, peer, stream)
        self.sessions[hello.node_id] = session
        self._nobody.clear()
        held = tuple(self._held(hello.node_id, one, over) for one in hello.containers)
        self._around.inbox.put(
            events.NodeJoined(
                hello.node_id,
                hello.hostname,
                hello.cpus,
                hello.memory,
                _scheduled(hello.gpus),
                held,
            )
        )
        for call_id in over:  # it ended while its machine was away
            self._around.inbox.put(events.CallCancelled(call_id))
        mine = {one.container_id for one in held}
        for record in list(self._around.containers.alive.values()):
            if record.node_id == hello.node_id and record.container_id not in mine:
                self._tell_again(record)
                self.running.lost(record.container_id)
                self._around.calls.book.emptied(record.container_id)
                self._start(
                    self._around.containers.ended(
                        record.container_id, "it was gone when its machine came back", time.time(), seen=False
                    )
                )
        # What it holds is known; outputs that it kept come within a moment.
        self._no_more_expected(hello.node_id, _REPLAY if hello.containers else 0.0)
        for app_id in self._around.hub.watched:
            session.send(Command("watch", app_id=app_id, on=True))
        row = {
            "node_id": hello.node_id,
            "hostname": hello.hostname,
            "version": hello.version,
            "hello": json.dumps(msgspec.to_builtins(hello)),
            "now": time.time(),
        }
        self._around.store.write_soon([("node_seen", row)])
        log.info("node %s (%s) joined with %d containers", hello.node_id, hello.hostname, len(hello.containers))
        self.on_join()
        return session

    def left(self, session: Session) -> None:
        """Its connection is lost."""
        node_id = session.hello.node_id
        if self.sessions.get(node_id) is not session:
            return
        del self.sessions[node_id]
        if not self.sessions:
            self._nobody.set()
        log.info("node %s (%s) is away", node_id, session.hello.hostname)
        self._around.inbox.put(events.NodeAway(node_id))
        self.on_leave(node_id)
        self._timers[node_id] = asyncio.get_running_loop().call_later(self._grace, self._gone, node_id)

    def expect(self, node_id: str) -> None:
        """A machine that an earlier server process knew: it has its grace to come back with its containers."""
        self._expected.add(node_id)
        self._timers[node_id] = asyncio.get_running_loop().call_later(self._grace, self._gone, node_id)

    async def wait_nobody(self, seconds: float) -> None:
        """Return when no machine is connected any more, or after so many seconds."""
        if self.sessions:
            await asyncio.wait([asyncio.ensure_future(self._nobody.wait())], timeout=seconds)

    def send(self, node_id: str, command: Command) -> bool:
        """Tell a machine; False when it is not connected."""
        session = self.sessions.get(node_id)
        if session is None:
            return False
        session.send(command)
        return True

    def give(self, node_id: str, parts: list[tuple[bytes, Buffer]]) -> None:
        """Inputs for a container of a machine; one that is not connected has lost them, or says that it holds them."""
        session = self.sessions.get(node_id)
        if session is not None:
            for head, body in parts:
                session.send_raw(head, body)
            faults.at("forwarded", session.peer.flush)

    def acknowledge(self, container_id: str, serial: int) -> None:
        """A frame of outputs is kept: the node may forget it. One command for all of one commit."""
        self._acks_of(container_id)[0].append(serial)

    def acknowledge_answer(self, container_id: str, run: Run) -> None:
        """The same for what a node answered for the runtime."""
        self._acks_of(container_id)[1].append(run)

    def state_of(self, container_id: str) -> str | None:
        """See ``container_views.Alive``."""
        record = self._around.containers.alive.get(container_id)
        return record.state if record is not None else None

    def usage_of(self, container_id: str) -> dict[str, float]:
        """See ``container_views.Alive``."""
        record = self._around.containers.alive.get(container_id)
        session = self.sessions.get(record.node_id) if record is not None else None
        return session.usage.get(container_id, {}) if session is not None else {}

    def known(self) -> set[str]:
        """The containers that have not ended."""
        return set(self._around.containers.alive)

    def any_session(self) -> Session:
        """A connected machine, for work that any can do. Raises ServiceError."""
        for session in self.sessions.values():
            return session
        raise errors.ServiceError(
            "no machine is connected to this server", hint="`alight server status` shows them; `alight doctor` helps"
        )

    def summaries(self) -> tuple[NodeSummary, ...]:
        """The machines as people see them."""
        counts: dict[str, int] = {}
        for record in self._around.containers.alive.values():
            counts[record.node_id] = counts.get(record.node_id, 0) + 1
        return tuple(
            NodeSummary(
                one.hello.node_id,
                one.hello.hostname,
                one.hello.engine,
                one.hello.cpus,
                one.hello.memory,
                tuple(gpu.name for gpu in one.hello.gpus),
                any(gpu.fake for gpu in one.hello.gpus),
                counts.get(one.hello.node_id, 0),
            )
            for one in self.sessions.values()
        )

    def on_message(self, session: Session, head: bytes, body: bytes) -> None:
        """Something that a node says: values of a container, or a report."""
        if not chunk.is_chunk(head):
            self.on_report(session, decode(Report, head), body)
            return
        said = chunk.Outputs.decode(head)
        record = self._around.containers.alive.get(said.container)
        if record is None:
            self._start(self._late_answer(session, said, head, body))
        elif record.node_id != session.hello.node_id:
            log.warning("node %s brings values of %s, which is not its own", session.hello.node_id, said.container)
        else:
            self.running.values(said)
            self._around.calls.outcomes.on_values(said, head, body, record.app_id, record.function_id)

    def on_report(self, session: Session, report: Report, body: bytes) -> None:
        """Something that a node saw. Reports about containers that are not this node's are dropped."""
        if report.kind in {"usage", "machine"}:
            self._on_usage(session, report)
            return
        if report.kind == "gpus":
            session.hello = replace(session.hello, gpus=report.found)  # who looks at this machine sees them as they are
            self._around.inbox.put(events.GpusChanged(session.hello.node_id, _scheduled(report.found)))
            return
        name = report.output.container if report.output is not None and not report.container else report.container
        record = self._around.containers.alive.get(name)
        if record is not None and record.node_id != session.hello.node_id:
            log.warning("node %s reports about %s, which is not its own", session.hello.node_id, name)
            return
        if report.kind == "output":
            self._on_output(session, report, body, record)
        elif report.kind == "log":
            self._on_log(session, report, body, record)
        elif report.kind == "committed" and report.volume is not None:
            self.on_committed(report.volume)
        elif report.kind == "ready":
            self._around.containers.ready(name)
            self._around.inbox.put(events.ContainerReady(name))
        elif report.kind == "waiting":
            self._around.inbox.put(events.InputsWaiting(name, report.count))
        elif report.kind == "note" and record is not None:
            self._around.hub.tell(record.app_id, AppEvent("system", container=name, text=report.text))
        elif report.kind == "started":
            self._around.containers.starts.said(name, report.start)
            if record is not None:
                self._around.hub.note(record.app_id, self.running.started(name, report.start), container=name,
                                      function=record.function_id)  # fmt: skip
        elif report.kind == "returned":
            self._on_returned(name, report)
        elif report.kind == "ended":
            self._on_ended(session, report, body, record)

    def _on_usage(self, session: Session, report: Report) -> None:
        usage = dict(report.usage)
        at = min(usage.get("at") or time.time(), time.time())  # a clock that is ahead must not make a future
        if report.kind == "machine":
            session.machine = usage
            session.gpus = {one.uuid: one for one in report.gpus}
            for heard in self.on_machine:
                heard(session, at)
            return
        record = self._around.containers.alive.get(report.container)
        if record is not None and record.node_id != session.hello.node_id:
            log.warning("node %s measures %s, which is not its own", session.hello.node_id, report.container)
            return
        if not usage.get("final"):
            session.usage[report.container] = usage
        for listener in self.on_usage:
            listener(report.container, at, usage)

    def _acks_of(self, container_id: str) -> tuple[list[int], list[Run]]:
        if not self._acks:
            asyncio.get_running_loop().call_soon(self._send_acks)
        found = self._acks.get(container_id)
        if found is None:
            found = self._acks[container_id] = ([], [])
        return found

    def _send_acks(self) -> None:
        acks, self._acks = self._acks, {}
        for container_id, (serials, answered) in acks.items():
            record = self._around.containers.alive.get(container_id)
            command = Command("ack", container=container_id, serials=tuple(serials), answered=tuple(answered))
            if record is not None:
                self.send(record.node_id, command)
                continue
            for session in self.sessions.values():  # its container is gone already; only its node knows the id
                session.send(command)

    def _on_returned(self, container_id: str, report: Report) -> None:
        for run in report.runs:
            self._around.calls.book.returned(container_id, run.call_id, run.start, run.stop)
        runs = tuple(events.Run(run.call_id, run.start, run.stop, run.attempt) for run in report.runs)
        self._around.inbox.put(events.InputsReturned(container_id, runs))

    def _on_output(self, session: Session, report: Report, body: bytes, record: Record | None) -> None:
        output = report.output
        if output is None:
            return
        if not output.container:
            output = dataclasses.replace(output, container=report.container)
        if record is None:
            self._start(self._late_answer(session, output, b"", body))
        else:
            self.running.answer(output)
            self._around.calls.outcomes.on_end(output, body, record.app_id, record.function_id)

    async def _late_answer(self, session: Session, said: Output | chunk.Outputs, head: bytes, body: bytes) -> None:
        """An answer of a container that has ended already: whose it was is in the store alone."""
        outcomes = self._around.calls.outcomes
        try:
            row = await self._around.store.one("container_by_id", container_id=said.container)
        except errors.Error as error:
            log.error("an answer of %s could not be looked up: %s", said.container, error)
            return  # not acknowledged: it comes again
        if row is None or row["node_id"] != session.hello.node_id:
            log.warning("node %s answers for %s, which nobody knows", session.hello.node_id, said.container)
            session.send(Command("ack", container=said.container, serials=(said.serial,) if said.serial else ()))
        elif row["rank"] and (not isinstance(said, Output) or said.status == ResultStatus.SUCCESS):
            # It was one of a cluster that followed: nobody waits for its values.
            session.send(Command("ack", container=said.container, serials=(said.serial,) if said.serial else ()))
        elif isinstance(said, Output):
            outcomes.on_end(said, body, row["app_id"], row["function_id"])
        else:
            outcomes.on_values(said, head, body, row["app_id"], row["function_id"])

    def _on_log(self, session: Session, report: Report, body: bytes, record: Record | None) -> None:
        name = report.container
        if name in self._unkept and report.offset > self._around.logs.end(name):
            return  # it follows what found no room, and comes again after that
        try:
            end = self._around.logs.append(name, report.offset, body)
        except errors.Error as error:
            if name not in self._unkept:
                log.error("output of %s could not be kept yet: %s", name, error)
            self._unkept.add(name)
            asyncio.get_running_loop().call_later(_AGAIN, session.send, Command("unkept", container=name))
            return
        self._unkept.discard(name)
        session.send(Command("ack", container=report.container, offset=end))
        if record is not None:
            self._around.hub.log_grew(record.app_id, report.container)
        else:
            self._start(self._late_log(report.container))

    async def _late_log(self, container_id: str) -> None:
        """Output of a container that has ended already; its app is in the store alone."""
        row = await self._around.store.one("container_by_id", container_id=container_id)
        self._around.hub.log_grew(str(row["app_id"]) if row is not None else "", container_id)

    def _on_ended(self, session: Session, report: Report, body: bytes, record: Record | None) -> None:
        container_id = report.container
        self.running.lost(container_id)
        self._around.calls.book.emptied(container_id)
        was_ready = record is not None and record.state == ContainerState.READY
        why = _why_ended(report)
        if record is not None and not was_ready and report.interrupted:
            self._around.inbox.put(events.ContainerEnded(container_id))  # no fault of the function's: it starts again
        elif record is not None and not was_ready and not record.stop_asked:
            error = report.error or {"code": "remote", "message": f"the function could not be loaded: {why}"}
            status, final = ResultStatus.TERMINATED, report.error is not None and error.get("code") not in _NOT_FINAL
            if report.failure is not None:
                self._around.calls.init_failures[record.function_id] = (report.failure, body)
                status, final = ResultStatus.INIT_FAILURE, True
            elif error.get("code") == "function_timeout":
                status = ResultStatus.TIMEOUT
            elif report.oom_killed:
                final = True
            self._around.inbox.put(events.StartFailed(container_id, status, error, final=final))
        else:
            error = report.error or {"code": "remote", "message": why}
            if report.oom_killed and "hint" not in error:
                error = {**error, "hint": "give it more: @app.function(memory=…), in MiB"}
            self._around.inbox.put(
                events.ContainerEnded(container_id, ResultStatus.TERMINATED, error, users_fault=report.oom_killed)
            )
        self._start(
            self._record_end(session, report, why if record is None or not record.stop_asked else record.stop_asked)
        )

    async def _record_end(self, session: Session, report: Report, why: str) -> None:
        container_id = report.container
        try:
            await self._around.containers.ended(container_id, why, time.time(), report.exit_code, report.signal)
        except errors.Error as error:
            log.error("the end of %s could not be recorded: %s", container_id, error)
            return
        session.send(Command("ack", container=container_id, ended=True))
        session.usage.pop(container_id, None)
        self._around.logs.forget(container_id)

    def _held(self, node_id: str, one: Any, over: set[str]) -> events.Held:
        """What a node holds, with what was recorded when it started; a record that was lost is made anew."""
        record = self._around.containers.alive.get(one.container_id)
        function = self._around.containers.functions.by_id.get(one.function_id)
        if record is None and function is not None and function.app_id == one.app_id:
            record = Record(one.container_id, one.app_id, one.function_id, node_id, memory=one.memory, gpus=one.gpus)
            self._around.containers.add(record, "", time.time())
        if record is not None and one.ready:
            self._around.containers.ready(one.container_id)
        giving = self._around.calls.giving
        # What it has answered, and nobody heard: the answers come in a moment, and no one else gets those inputs.
        heard = [run for run in one.answered if run.call_id not in over]
        answered = [left for run in heard for left in giving.unheard(run)]
        follows = record is not None and record.rank > 0  # what it holds counts for its leader
        if function is not None and not follows:
            for run in [*one.runs, *answered]:
                if run.call_id not in over:
                    giving.adopt(run, function, one.container_id)
        memory, gpus = (record.memory, record.gpus) if record is not None else (one.memory, one.gpus)
        # A rank may still run what another one's failure has ended.
        runs_on = [left for run in one.runs for left in giving.unheard(run)] if record and record.cluster else one.runs
        runs = tuple(events.Run(run.call_id, run.start, run.stop, run.attempt) for run in (*runs_on, *answered))
        started = record.function_version if record is not None else 0
        outdated = self._around.containers.functions.behind(one.function_id, started)
        of = (record.cluster, record.rank, record.cluster_size) if record is not None else ("", 0, 0)
        return events.Held(one.container_id, one.function_id, one.ready, runs, memory, gpus, outdated, *of)

    def _tell_again(self, record: Record) -> None:
        """After server and machine were both killed nobody knows which input the lost container ran: say it of all."""
        function = self._around.containers.functions.by_id.get(record.function_id)
        waiting = self._around.calls.line(record.function_id)[0] > 0
        if function is not None and waiting and record.state == ContainerState.READY:
            name = function.spec.name
            text = f"{name}() starts again: its container was gone when its machine came back"
            self._around.hub.tell(record.app_id, AppEvent("system", function=name, text=text))

    def _tell_watched(self, app_id: str, on: bool) -> None:
        for session in self.sessions.values():
            session.send(Command("watch", app_id=app_id, on=on))

    def _no_more_expected(self, node_id: str, seconds: float) -> None:
        if node_id in self._expected:
            self._expected.discard(node_id)
            if not self._expected:
                asyncio.get_running_loop().call_later(seconds, self._around.calls.release)

    def _gone(self, node_id: str) -> None:
        self._timers.pop(node_id, None)
        self._no_more_expected(node_id, 0.0)
        log.warning("node %s has been away for %g s: its containers count as lost", node_id, self._grace)
        self._around.inbox.put(events.NodeGone(node_id))
        for record in list(self._around.containers.alive.values()):
            if record.node_id == node_id:
                self.running.lost(record.container_id)
                self._around.calls.book.emptied(record.container_id)
                ended = self._around.containers.ended
                self._start(ended(record.container_id, "its machine is gone", time.time(), seen=False))

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Stop all clocks; sessions end with their connections."""
        for node_id in list(self._timers):
            self._timers.pop(node_id).cancel()


def _scheduled(gpus: Iterable[GpuInfo]) -> tuple[Gpu, ...]:
    """GPUs of a machine, as the scheduler knows them."""
    return tuple(
        Gpu(gpu.uuid, gpu.type, gpu.memory, gpu.name, gpu.fault, gpu.parent, gpu.parent_memory, gpu.links)
        for gpu in gpus
    )


def _why_ended(report: Report) -> str:
    if report.text:
        return report.text
    if report.oom_killed:
        return "the container was killed for memory"
    if report.signal:
        return f"the container was ended by signal {report.signal}"
    if report.exit_code is None:
        return "the container ended, and nobody knows how"
    return f"the container ended with exit code {report.exit_code}"
