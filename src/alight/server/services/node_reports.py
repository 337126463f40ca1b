"""What machines report, and what is done about it: answers, output, measurements, starts and ends of containers."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from alight.link.stream import decode
from alight.scheduler import events
from alight.scheduler.state import Gpu
from alight.server.events import Inbox
from alight.server.logs import Logs
from alight.server.services.calls import Calls
from alight.server.services.containers import Containers, Record
from alight.server.services.hub import Hub
from alight.server.services.log_running import Running
from alight.server.services.node_session import Session
from alight.store.base import Store
from alight.wire import chunk, errors
from alight.wire.commands import Command, GpuInfo, Output, Report
from alight.wire.messages import AppEvent
from alight.wire.record import replace
from alight.wire.snapshots import VolumeVersion
from alight.wire.states import ContainerState, ResultStatus

log = logging.getLogger(__name__)
_AGAIN = 1.0  # seconds until output that found no room is asked for again
_NOT_FINAL = {"internal_failure", "internal", "service", "connection"}


@dataclass
class Around:
    """What a node's reports touch."""

    store: Store
    inbox: Inbox
    containers: Containers
    calls: Calls
    logs: Logs
    hub: Hub


class Reports:
    """Takes in what machines say. Reports about containers that are not a machine's own are dropped."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unkept: set[str] = set()  # containers whose output found no room on the disk
        self.running = Running(around.logs, around.calls.book)
        self.on_committed: Callable[[VolumeVersion], None] = lambda version: None
        #: Hear (container, unix time, usage) of each measurement; the last one of a container has ``final`` in it, and
        #: may come twice. See ``docs/metrics.md`` for its keys.
        self.on_usage: list[Callable[[str, float, dict[str, float]], None]] = []
        self.on_machine: list[Callable[[Session, float], None]] = []

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
            self._around.inbox.put(events.GpusChanged(session.hello.node_id, scheduled(report.found)))
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

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def scheduled(gpus: Iterable[GpuInfo]) -> tuple[Gpu, ...]:
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
