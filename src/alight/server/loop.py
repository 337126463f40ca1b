"""Between the world and the scheduler: facts go in, decisions come out and are carried out.

One of the four loops that may meet any exception: a fault in one decision must not stop the others. Nothing waits in
here; what takes time becomes a task that reports back as a fact.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from alight.link.turn import turn_of
from alight.scheduler import decisions as decided
from alight.scheduler import events
from alight.scheduler.decisions import Decision
from alight.scheduler.state import Node, State
from alight.scheduler.step import next_wake, step
from alight.server.events import Inbox
from alight.server.services.apps import Apps
from alight.server.services.calls import Calls
from alight.server.services.containers import Containers, Record
from alight.server.services.functions import Functions
from alight.server.services.hub import Hub
from alight.server.services.images import Images
from alight.server.services.nodes import Nodes
from alight.server.services.published import Published, spoken_name
from alight.server.services.secrets import Secrets
from alight.server.web import Web, is_lease
from alight.wire import errors, gpus
from alight.wire.chunk import readdressed
from alight.wire.commands import Cluster, Command, Run, StartContainer
from alight.wire.messages import AppEvent
from alight.wire.states import ResultStatus

log = logging.getLogger(__name__)
_TRY_AGAIN = {"internal_failure", "internal", "service", "connection"}


@dataclass
class Hands:
    """Who carries decisions out."""

    apps: Apps
    functions: Functions
    calls: Calls
    containers: Containers
    nodes: Nodes
    images: Images
    secrets: Secrets
    hub: Hub
    web: Web


class Loop:
    """Runs the scheduler. ``state`` is changed by ``step`` alone."""

    def __init__(self, state: State, inbox: Inbox, hands: Hands) -> None:
        self.state = state
        self._inbox = inbox
        self._do = hands
        self._event_loop = asyncio.get_running_loop()
        self._turn = turn_of(self._event_loop)
        self._planned = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None  # unix time
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.accounts: Callable[[list[events.Event], float], None] | None = None  # who accounts for containers' time
        self.seen: Callable[[list[events.Event]], None] | None = None  # who looks at what the scheduler learns
        inbox.on_mail = self._plan

    def close(self) -> None:
        """Stop stepping, and let go of starts that are under way."""
        self._inbox.on_mail = None
        if self._timer is not None:
            self._timer.cancel()
        for task in [*self._starts.values(), *self._tasks]:
            task.cancel()

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            if self._turn.under_way:
                self._turn.then(self._run)
            else:
                self._event_loop.call_soon(self._run)

    def _wake(self) -> None:
        self._timer = self._timer_at = None
        self._plan()

    def _run(self) -> None:
        self._planned = False
        facts = self._inbox.take()
        try:
            decisions = step(self.state, facts, time.time())
        except Exception:  # the server's loop: see the module's docstring
            log.exception("fault %s in the scheduler, at %d facts", os.urandom(4).hex(), len(facts))
            decisions = []
            self._do.calls.outcomes.forget_pending()
        if self.accounts is not None:
            self.accounts(facts, time.time())
        for decision in decisions:
            try:
                self._carry_out(decision)
            except Exception:  # the server's loop: see the module's docstring
                log.exception("fault %s at %s", os.urandom(4).hex(), type(decision).__name__)
        self._do.calls.outcomes.stepped()
        self._do.web.after_step(facts, self.state)
        if self.seen is not None:
            self.seen(facts)
        if self.state.starved:
            self._do.containers.starts.look(self.state, time.time())
        when = next_wake(self.state)
        if when == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = when
        if when is not None:
            # The wall clock may jump; looking once a minute is enough for it.
            self._timer = self._event_loop.call_later(min(60.0, max(0.001, when - time.time())), self._wake)

    def _carry_out(self, decision: Decision) -> None:
        do = self._do
        if is_lease(getattr(decision, "call_id", "")):
            do.web.on_decision(decision)
        elif isinstance(decision, decided.Give):
            self._give(decision)
        elif isinstance(decision, decided.Finish):
            do.calls.outcomes.finish(decision.call_id, decision.positions, decision.container_id)
        elif isinstance(decision, decided.Aside):
            do.calls.outcomes.set_aside(decision.call_id, decision.container_id, keep=decision.keep)
        elif isinstance(decision, decided.Start):
            self._start(decision)
        elif isinstance(decision, decided.Stop):
            self._stop(decision)
        elif isinstance(decision, decided.Again):
            self._tell_again(decision)
            do.calls.outcomes.again(
                decision.call_id, decision.position, decision.attempt, decision.retries, decision.failures
            )
        elif isinstance(decision, decided.Fail):
            do.calls.outcomes.fail(decision.call_id, decision.positions, decision.status, decision.error)
        elif isinstance(decision, decided.Adopted):
            do.calls.giving.adopted(decision.call_id, decision.positions, decision.container_id)
        elif isinstance(decision, decided.TrialEnded):
            do.functions.trial_ended(decision.function_id, self._with_failure(decision), decision.said)
        elif isinstance(decision, decided.Recall):
            do.nodes.send(decision.node_id, Command("recall", container=decision.container_id))
        else:
            command = Command(
                "cancel", container=decision.container_id, call_id=decision.call_id, position=decision.position
            )
            do.nodes.send(decision.node_id, command)
            start, stop = (0, 1 << 62) if decision.position < 0 else (decision.position, decision.position + 1)
            do.calls.book.returned(decision.container_id, decision.call_id, start, stop)

    def _with_failure(self, decision: decided.TrialEnded) -> dict[str, Any] | None:
        """What kept a new version from coming up, with the exception of the user's code where there was one."""
        failed = self._do.calls.init_failures.get(decision.function_id)
        failure = failed[0] if failed is not None else None
        if decision.error is None or decision.status != ResultStatus.INIT_FAILURE or failure is None:
            return decision.error
        lines = [f"  {one.file}:{one.line} in {one.name}: {one.text}" for one in failure.frames if one.user]
        said = f"{failure.type.removeprefix('builtins.')}: {failure.message}"
        return {**decision.error, "message": "\n".join([said, *lines])}

    def _tell_again(self, decision: decided.Again) -> None:
        """Code that runs a second time without having been asked to is something that its owner must see."""
        call = self._do.calls.live.get(decision.call_id)
        function = self._do.functions.by_id.get(call.function_id) if call is not None else None
        if function is not None and decision.why:
            text = f"{function.spec.name}() starts again (attempt {decision.attempt}): {decision.why}"
            self._do.hub.tell(function.app_id, AppEvent("system", function=function.spec.name, text=text))

    def _give(self, decision: decided.Give) -> None:
        record = self._do.containers.alive.get(decision.container_id)
        if record is None:
            return
        parts = None
        if not self._do.calls.recording.is_choked:
            parts = self._do.calls.giving.give(
                decision.call_id, decision.start, decision.stop, decision.attempt, decision.container_id
            )
        if parts is None:
            self._background(self._give_later(decision))
        elif parts:
            for name in decision.others:  # before their leader: what it has, they have
                self._do.nodes.give(record.node_id, [(readdressed(head, name), body) for head, body in parts])
            self._do.nodes.give(record.node_id, parts)

    async def _give_later(self, decision: decided.Give) -> None:
        """Some of the bodies lie in the store, or what comes of them would find no room on its disk."""
        await self._do.calls.recording.wait_room()
        run = Run(decision.call_id, decision.start, decision.stop, decision.attempt)
        for start, stop in await self._do.calls.giving.fetch(run, decision.container_id):
            self._give(replace(decision, start=start, stop=stop))

    def _stop(self, decision: decided.Stop) -> None:
        start = self._starts.pop(decision.container_id, None)
        record = self._do.containers.alive.get(decision.container_id)
        if record is not None:
            record.stop_asked = decision.why
        if start is not None:
            start.cancel()  # its node has not heard of it
            self._inbox.put(events.ContainerEnded(decision.container_id))
            self._background(self._do.containers.ended(decision.container_id, decision.why, time.time()))
            return
        command = Command("stop", container=decision.container_id, grace=decision.grace, reason=decision.why)
        self._do.nodes.send(decision.node_id, command)

    def _start(self, decision: decided.Start) -> None:
        function = self._do.functions.by_id.get(decision.function_id)
        if function is None:
            self._inbox.put(events.ContainerEnded(decision.container_id))
            return
        record = Record(
            decision.container_id,
            function.app_id,
            function.function_id,
            decision.node_id,
            memory=decision.memory,
            gpus=decision.gpus,
            function_version=function.version,
            cluster=decision.gang,
            rank=decision.rank,
            cluster_size=len(decision.members),
        )
        now = time.time()
        self._do.containers.add(record, "", now)
        self._do.containers.starts.decided(decision.container_id, function.function_id, self.state, now)
        task = self._event_loop.create_task(self._prepare(decision, function))
        self._starts[decision.container_id] = task
        task.add_done_callback(lambda _: self._starts.pop(decision.container_id, None))

    async def _prepare(self, decision: decided.Start, function: Published) -> None:
        """Gather what a container needs and tell its machine to start it."""
        session = self._do.nodes.sessions.get(decision.node_id)
        try:
            command = await self._start_command(decision, function)
        except errors.Error as error:
            if session is None or self._do.nodes.sessions.get(decision.node_id) is not session:
                self._machine_lost(decision)
            else:
                self._start_failed(decision, error)
            return
        except asyncio.CancelledError:
            raise
        except Exception:  # the server's loop: see the module's docstring
            fault = os.urandom(4).hex()
            log.exception("fault %s at the start of %s", fault, decision.container_id)
            self._start_failed(decision, errors.InternalError(f"a container could not be started (fault {fault})"))
            return
        # From here on the machine knows of it: a stop goes there.
        self._starts.pop(decision.container_id, None)
        if not self._do.nodes.send(decision.node_id, command):
            self._machine_lost(decision)
        else:
            self._do.containers.starts.told(decision.container_id)
            self._note_start(command, function, self.state.nodes.get(decision.node_id))

    def _note_start(self, command: Command, function: Published, node: Node | None) -> None:
        """Say in the app's log what starts, where, of what, and why it had to wait."""
        start = command.start
        if start is None:
            return
        words = [f"image {start.image_id}"]
        kinds = {gpu.uuid: gpu.type for gpu in node.gpus} if node is not None else {}
        for grant in map(gpus.grant, start.gpus):
            part = f"{grant.percent} % of " if grant.percent else ""
            words.append(f"{part}{kinds.get(grant.uuid, 'GPU')} {grant.uuid}")
        waited = self._do.containers.starts.waited(start.container_id)
        words += [f"waited for {waited.removeprefix('waiting for ')}"] if waited else []
        where = f" on {node.hostname}" if node is not None else ""
        text = f"{start.container_id} starts for {spoken_name(function.key)}{where}: {'; '.join(words)}"
        self._do.hub.note(function.app_id, text, container=start.container_id, function=function.function_id)

    async def _start_command(self, decision: decided.Start, function: Published) -> Command:
        spec, do = function.spec, self._do
        whose = (function.app_id, function.environment)
        image_id = await do.images.image_id(spec.image, spec.python_version)
        if not do.images.is_built(decision.node_id, image_id):
            session = do.nodes.sessions.get(decision.node_id)
            if session is None:
                raise errors.ConnectionError("the connection to the machine was lost")

            async def tell(event: AppEvent) -> None:
                do.hub.tell(function.app_id, event)

            do.containers.starts.image_begins(decision.container_id)
            ready = await do.images.ensure(session, spec.image, spec.python_version, whose, tell)
            do.containers.starts.image_ready(decision.container_id, built=ready.built)
        secrets = {}
        if spec.secrets:
            secrets = await do.secrets.values(spec.secrets, *whose, time.time())
        keys = [one.secret_id for one in spec.buckets if one.secret_id]
        bucket_secrets = await do.secrets.values_by_id(keys, *whose, time.time()) if keys else {}
        app = do.apps.alive.get(function.app_id)
        start = StartContainer(
            decision.container_id,
            function.app_id,
            (app.name or app.description) if app is not None else "",
            function.environment,
            function.function_id,
            spec,
            image_id,
            decision.gpus,
            decision.memory,
            secrets,
            function.owner,
            bucket_secrets,
            Cluster(decision.gang, decision.rank, decision.members) if decision.gang else None,
        )
        return Command("start", container=decision.container_id, start=start)

    def _start_failed(self, decision: decided.Start, error: errors.Error) -> None:
        final = error.code not in _TRY_AGAIN
        failed = events.StartFailed(decision.container_id, ResultStatus.TERMINATED, errors.to_wire(error), final=final)
        self._inbox.put(failed)
        self._background(self._do.containers.ended(decision.container_id, str(error), time.time()))

    def _machine_lost(self, decision: decided.Start) -> None:
        """A machine went away before it heard of a container: that says nothing about the function."""
        self._inbox.put(events.ContainerEnded(decision.container_id))
        why = "the connection to its machine was lost before it started"
        self._background(self._do.containers.ended(decision.container_id, why, time.time()))

    def _background(self, work: Any) -> None:
        task = self._event_loop.create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except errors.Error as error:
            log.error("a decision could not be carried out: %s", error)
