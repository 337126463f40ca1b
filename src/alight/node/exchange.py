"""Inputs and outputs of one container, between the server and the runtime.

An input is noted before it is passed on, an output is kept until the server has committed it; each is handed over
once, or again until it is acknowledged. On the way of a small one there is no disk while the server is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alight.node import paths
from alight.node.blobs import Blobs
from alight.node.channel import RuntimeLink
from alight.node.engine.base import Engine
from alight.node.ledger import Held, Ledger
from alight.node.logs import OutputTail
from alight.node.outbox import Kept, Outbox
from alight.node.session import Session
from alight.wire import errors, ids
from alight.wire.codec import Kind
from alight.wire.commands import GiveInput, LinkInput, LinkOutput, Output, Report
from alight.wire.messages import Payload
from alight.wire.states import ResultStatus

log = logging.getLogger(__name__)

#: How long a runtime that came back may take to send the outputs that it kept.
_RESEND = 1.0


@dataclass(frozen=True)
class Ends:
    """What an exchange needs of its container and its node."""

    container_id: str
    folder: Path
    name: str
    """The function's, for errors."""
    engine: Engine
    session: Session
    blobs: Blobs
    tail: OutputTail
    watched: Callable[[], bool]
    give_up: Callable[[str], None]
    """End the container, for this reason."""


class Exchange:
    """See the module. ``link`` is set and unset by the container; ``closed`` once it ended."""

    def __init__(self, ends: Ends, ledger: Ledger) -> None:
        self._at = ends
        self.id = ends.container_id
        self.ledger = ledger
        self.link: RuntimeLink | None = None
        self.closed = False
        self._folder = ends.folder
        self._session = ends.session
        self._outbox = Outbox(ends.folder / "outputs")
        self._spooled: set[str] = set()
        self._undelivered: dict[str, tuple[LinkInput, bytes]] = {}
        self._deadlines: dict[str, tuple[float, float]] = {}  # of the loop's clock, and the limit that it came from
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    # from the server

    def give(self, give: GiveInput, body: bytes) -> None:
        """Hand an input to the runtime. One that is here already is not given twice."""
        ledger = self.ledger
        if self.closed or not ids.is_id(give.input_id):
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

    def on_acked(self, input_ids: tuple[str, ...]) -> None:
        """The server keeps these outputs."""
        for input_id in input_ids:
            if self._outbox.forget(input_id):
                self._forget_input(input_id)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Inputs that were given and have no output yet."""
        return tuple(input_id for input_id in self.ledger.inputs if input_id not in self._outbox)

    @property
    def unacknowledged(self) -> bool:
        """Whether the server still has to take an output."""
        return len(self._outbox) > 0

    def take_up(self) -> None:
        """Go on where an earlier agent was killed: outputs on disk, deadlines."""
        self._outbox.load()
        now = time.time()
        for input_id in self.unanswered:
            held = self.ledger.inputs[input_id]
            if held.deadline:
                self._arm(input_id, max(0.0, held.deadline - now), held.deadline - held.given_at)

    async def replay(self) -> None:
        """Say again what was not acknowledged."""
        for kept in self._outbox.waiting():
            # Whether somebody watches is said anew after a reconnect, perhaps later than this.
            await self._send_output(kept, with_log=True)

    async def settle(self) -> None:
        """Return when what is on its way to the server has left."""
        async with self._turn:
            if self._session.connected:
                await self._at.tail.ship(self._at.tail.size())

    def close(self) -> None:
        """The container ended: no time runs out any more."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._deadlines.clear()

    def let_go(self) -> None:
        """The agent leaves."""
        self.close()
        for task in self._tasks:
            task.cancel()

    # from the runtime

    def on_back(self, running: Iterable[str]) -> None:
        """The runtime is connected again, and runs these inputs."""
        for message, body in list(self._undelivered.values()):
            self._deliver(message, body)
        answered = {kept.output.input_id for kept in self._outbox.waiting()}
        missing = set(self.ledger.inputs) - answered - set(running)
        asyncio.get_running_loop().call_later(_RESEND, self._miss, missing)

    def on_output(self, output: LinkOutput, body: bytes) -> None:
        held = self.ledger.inputs.get(output.input_id)
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

    # inside

    def _deliver(self, message: LinkInput, body: bytes) -> None:
        link = self.link
        if link is None:
            self._undelivered[message.input_id] = (message, body)
            return
        self._undelivered.pop(message.input_id, None)
        link.send(Kind.LINK_INPUT, message, body)

    async def _fetch_and_deliver(self, message: LinkInput, payload: Payload) -> None:
        """A large argument comes as a file in the spool directory."""
        name = f"in-{message.input_id}"
        self._spooled.add(message.input_id)
        try:
            root = paths.open_root(self._folder / "spool")
            try:
                shared = await self._at.blobs.share(payload.blob, root, name)
                fd = -1 if shared else paths.create_file(root, name, 0o600)
            finally:
                os.close(root)
            if fd >= 0:
                try:
                    await self._at.blobs.fetch(payload.blob, fd, check=False)
                finally:
                    os.close(fd)
        except (errors.Error, OSError) as error:
            problem = errors.InternalFailure(f"an argument could not be brought to the container: {error}")
            self._answer(message.input_id, ResultStatus.INTERNAL, problem)
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
            problem = errors.RemoteError(f"the result of {self._at.name} could not be taken: {error}")
            failed = replace(kept.output, status=ResultStatus.TERMINATED, failure=None, error=errors.to_wire(problem))
            return Kept(failed)
        return Kept(replace(kept.output, payload=Payload(size=size)), b"", target)

    def _answer(self, input_id: str, status: str, error: errors.Error) -> None:
        """Answer for the runtime: it cannot, or has not in time."""
        held = self.ledger.inputs.get(input_id)
        if held is None or input_id in self._outbox:
            return
        self._disarm(input_id)
        self._keep(
            Kept(
                Output(
                    input_id,
                    held.attempt,
                    status,
                    self.id,
                    error=errors.to_wire(error),
                    started_at=held.given_at,
                    ended_at=time.time(),
                )
            )
        )

    def _keep(self, kept: Kept) -> None:
        self._outbox.add(kept)
        if not self._session.connected:
            self.write_down()
        elif kept.file is None and not self._at.watched() and not self._turn.locked():
            self._session.report_soon(Report("output", self.id, kept.output), kept.body)
        else:
            self._soon(self._send_output(kept))

    async def _send_output(self, kept: Kept, *, with_log: bool = False) -> None:
        """The log before the result, where somebody sees both; large bodies as blobs."""
        async with self._turn:
            if kept.output.input_id not in self._outbox:
                return
            output = kept.output
            if with_log or self._at.watched():
                output = replace(output, log_offset=await self._ship_log())
            if kept.file is not None:
                try:
                    output = replace(output, payload=await self._upload(kept))
                except (errors.Error, OSError) as error:
                    if not self._session.connected:
                        return  # the replay after the reconnect sends it
                    log.warning("a result of %s could not be sent: %s", self.id, error)
                    problem = errors.to_wire(errors.InternalFailure(f"a result could not be sent: {error}"))
                    output = replace(output, status=ResultStatus.INTERNAL, payload=Payload(), error=problem)
                self._outbox.update(output)
            await self._session.report(Report("output", self.id, output), kept.body)

    async def _ship_log(self) -> int:
        """Send what was printed until now; where that ends."""
        tail = self._at.tail
        try:
            offset = tail.size() if self.closed else await self._at.engine.drain(self.id)
        except errors.Error as error:
            log.warning("the output of %s could not be brought up to date: %s", self.id, error)
            offset = tail.size()
        await tail.ship(offset)
        return offset

    async def _upload(self, kept: Kept) -> Payload:
        assert kept.file is not None
        fd = os.open(kept.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            return Payload(await self._at.blobs.leave(kept.file, size) or await self._at.blobs.put(fd, size), size)
        finally:
            os.close(fd)

    def write_down(self) -> None:
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
        if self.link is not None:
            self.link.acknowledge(input_id)

    def _forget_input(self, input_id: str) -> None:
        self.ledger.drop(input_id)
        self._acknowledge(input_id)
        if input_id in self._spooled:
            self._spooled.discard(input_id)
            with contextlib.suppress(OSError):
                (self._folder / "spool" / f"in-{input_id}").unlink()

    def _miss(self, missing: set[str]) -> None:
        """Inputs that the runtime never got, because the agent was killed between hearing and passing on."""
        for input_id in missing - set(self._undelivered):
            problem = errors.InternalFailure("the node was restarted before the container got this input")
            self._answer(input_id, ResultStatus.INTERNAL, problem)

    def _arm(self, input_id: str, seconds: float, limit: float) -> None:
        """Note when an input's time runs out. One timer looks at the earliest: most inputs end long before."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        self._deadlines[input_id] = (when, limit)
        if self._timer is None or when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = loop.call_later(seconds, self._look), when

    def _disarm(self, input_id: str) -> None:
        self._deadlines.pop(input_id, None)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time() + 0.001  # clocks of loops count milliseconds
        for input_id, (when, limit) in sorted(self._deadlines.items(), key=lambda one: one[1]):
            if when > now:
                self._arm(input_id, when - now, limit)
                return
            del self._deadlines[input_id]
            self._expired(input_id, limit)

    def _expired(self, input_id: str, limit: float) -> None:
        name = self._at.name
        error = errors.FunctionTimeoutError(
            f"{name} ran longer than its timeout of {limit:g} s", hint="give it more time with timeout=…"
        )
        self._answer(input_id, ResultStatus.TIMEOUT, error)
        self._at.give_up(f"an input ran longer than {limit:g} s")

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
