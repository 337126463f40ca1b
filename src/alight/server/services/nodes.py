"""Machines: which are connected, what each held when it came, what they are told.

A node that loses its connection keeps its containers; it has ``grace`` seconds to come back with them. Commands go out
in order; when the connection is slow they wait here, never in the loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from alight.link.peer import Peer, Stream
from alight.scheduler import events
from alight.server import faults
from alight.server.services.containers import Record
from alight.server.services.node_reports import Around, Reports, scheduled
from alight.server.services.node_session import Session
from alight.wire import errors
from alight.wire.codec import Buffer
from alight.wire.commands import Command, NodeHello, Run
from alight.wire.messages import AppEvent, NodeSummary
from alight.wire.states import ContainerState

log = logging.getLogger(__name__)
_REPLAY = 0.5  # seconds in which a machine that came back says its kept outputs again


class Nodes:
    """All machines. ``on_join`` hears that one came, ``on_leave`` which lost its connection."""

    def __init__(self, around: Around, grace: float) -> None:
        self._around = around
        self._grace = grace
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.sessions: dict[str, Session] = {}
        self._nobody = asyncio.Event()
        self.reports = Reports(around)
        self._acks: dict[str, tuple[list[int], list[Run]]] = {}
        self._expected: set[str] = set()
        self.on_leave: Callable[[str], None] = lambda node_id: None
        self.on_join: Callable[[], None] = lambda: None
        around.calls.recording.acknowledge = self.acknowledge
        around.calls.recording.answered = self.acknowledge_answer
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
                scheduled(hello.gpus),
                held,
            )
        )
        for call_id in over:  # it ended while its machine was away
            self._around.inbox.put(events.CallCancelled(call_id))
        mine = {one.container_id for one in held}
        for record in list(self._around.containers.alive.values()):
            if record.node_id == hello.node_id and record.container_id not in mine:
                self._tell_again(record)
                self.reports.running.lost(record.container_id)
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
                self.reports.running.lost(record.container_id)
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
