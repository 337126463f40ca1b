"""Inputs and answers of one container, between the server and the runtime.

A run of inputs is noted before it is passed on, an answer is kept until the server has committed it; each is handed
over once, or again until it is acknowledged. While the server is there and takes what is said, a chunk costs no disk,
no task and no timer of its own. Payloads pass through unread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from alight.node.channel import RuntimeLink
from alight.node.deadlines import Timekeeper
from alight.node.ends import Ends
from alight.node.ledger import Ledger
from alight.node.outbox import Kept, Outbox
from alight.node.runs import Held, Line, Shares, runs_at, runs_of
from alight.node.sender import Sender
from alight.node.spool import Spool
from alight.wire import chunk, errors, ids
from alight.wire.codec import Kind
from alight.wire.commands import LinkStop, Output, Report, Run
from alight.wire.record import replace
from alight.wire.states import ResultStatus

log = logging.getLogger(__name__)

#: How long a runtime that came back may take to send the answers that it kept.
_RESEND = 1.0
#: Answers that come while the server is away wait this long for company on their way to the disk.
_COMPANY = 0.01


class Exchange:
    """See the module. ``link`` is set and unset by the container; ``close`` is called once it ended."""

    def __init__(self, ends: Ends, ledger: Ledger) -> None:
        self._at = ends
        self.id = ends.container_id
        self.ledger = ledger
        self.link: RuntimeLink | None = None
        self.closed = False
        self.stopping = False
        self._session = ends.session
        self._line = Line()
        self._outbox = Outbox(ends.folder / "outputs")
        self._spool = Spool(ends.folder / "spool", ends.blobs)
        self._sender = Sender(ends, self._outbox, self._spool, lambda: self.closed)
        self._time = Timekeeper(ends.function, self._line, lambda: ledger.answered_at, self._expired)
        self._writing: asyncio.TimerHandle | None = None
        self._arguments: dict[Held, str] = {}  # files in the spool directory
        self._waiting: dict[Held, tuple[bytes, bytes]] = {}  # for the runtime to come back
        self._unsaid: list[LinkStop] = []  # cancellations that wait for the same
        self._tasks: set[asyncio.Task[None]] = set()

    # from the server

    def give(self, inputs: chunk.Inputs, head: bytes, body: bytes) -> None:
        """Hand inputs to the runtime. Those that are here already are not taken twice."""
        call_id, attempt = inputs.call_id, inputs.attempt
        if self.closed or self.stopping:
            self._returned([Run(call_id, inputs.start, inputs.stop, attempt)])
            return
        for start, stop in self._line.new(call_id, attempt, inputs.start, inputs.stop):
            if (start, stop) == (inputs.start, inputs.stop):
                self._add(inputs, head, body)
            else:
                self._add(*_cut(inputs, body, start, stop))

    def cancel(self, call_id: str, position: int) -> None:
        """Cancel one input of a call, or all (-1). The runtime says how that went, or we do for what it has not got."""
        for held in self._line:
            if held.begun or held.call_id != call_id:
                continue
            for one in list(held.positions()) if position < 0 else [position]:
                if held.is_open(one):
                    problem = errors.RemoteError(f"this input of {self._name(held)}() was cancelled")
                    self._answer(held, one, ResultStatus.CANCELLED, problem)
        word = LinkStop(call_id=call_id, position=position)
        if self.link is not None:
            self.link.send(Kind.LINK_CANCEL, word)
        else:
            self._unsaid.append(word)

    def recall(self) -> None:
        """Have back what has not begun."""
        self._return_waiting()
        if self.link is not None:
            self.link.send(Kind.LINK_RECALL)

    def on_acked(self, serials: tuple[int, ...], answered: tuple[Run, ...]) -> None:
        """The server keeps these."""
        for serial in serials:
            kept = self._outbox.forget(serial)
            if kept is not None:
                self._settle(kept.shares)
            self._acknowledge(serial)
        for run in answered:
            for position in range(run.start, run.stop):
                kept = self._outbox.forget((run.call_id, position, run.attempt))
                if kept is not None:
                    self._settle(kept.shares)

    @property
    def unanswered(self) -> tuple[Run, ...]:
        """What was given and has no answer yet."""
        return self._line.open_runs()

    @property
    def answered(self) -> tuple[Run, ...]:
        """What has answers that the server has not acknowledged."""
        return runs_at((kept.call_id, kept.attempt, kept.positions) for kept in self._outbox.waiting())

    @property
    def unacknowledged(self) -> bool:
        """Whether the server still has to take an answer."""
        return len(self._outbox) > 0

    def take_up(self) -> None:
        """Go on where an earlier agent was killed: runs, answers on disk, deadlines."""
        for held in self.ledger.runs:
            self._line.add(held)
        self._outbox.load()
        for kept in self._outbox.waiting():
            kept.shares = self._line.answer(kept.call_id, kept.attempt, kept.positions)
        # What ended in time while nobody was here to hear of it has not run out of it.
        self._time.begin(_RESEND)

    def replay(self) -> None:
        """Say again what was not acknowledged."""
        self._sender.again()

    async def settle(self) -> None:
        """Return when what is on its way to the server has left."""
        await self._sender.settle()

    def close(self) -> None:
        """The container ended: no time runs out any more, and what it never got is returned."""
        if not self.closed:
            self._return_waiting()
        self.closed = True
        self._time.end()

    def let_go(self) -> None:
        """The agent leaves."""
        self.closed = True
        self._time.end()
        if self._writing is not None:
            self._writing.cancel()
        for task in self._tasks:
            task.cancel()
        self._sender.let_go()

    # from the runtime

    def on_back(self, running: Iterable[Run]) -> None:
        """The runtime is connected again, and has these inputs."""
        running = list(running)
        missing = self._line.missing(running)
        for run in running:  # the ledger may have had no room for them
            for start, stop in self._line.new(run.call_id, run.attempt, run.start, run.stop):
                self._note(Held(run.call_id, start, stop, run.attempt, time.monotonic()))
        unsaid, self._unsaid = self._unsaid, []
        for held, (head, body) in list(self._waiting.items()):
            self._deliver(held, head, body)
        for word in unsaid:
            if self.link is not None:
                self.link.send(Kind.LINK_CANCEL, word)
        if missing:
            # Answers that it kept follow its hello. What is missing then it never got, because the agent was killed
            # between hearing and passing on (or it was acknowledged long ago, and the server passes over this).
            asyncio.get_running_loop().call_later(_RESEND, self.on_returned, missing)

    def on_values(self, values: chunk.Outputs, head: bytes, body: bytes) -> None:
        """What user code returned or yielded."""
        outbox, serial = self._outbox, values.serial
        if serial in outbox:
            self._said_again(serial)
            return
        shares: Shares = ()
        if values.is_items:
            is_ours = self._line.find(values.call_id, values.attempt, values.position) is not None
        else:
            shares = self._line.answer(values.call_id, values.attempt, values.positions)
            is_ours = bool(shares)
        if not serial or not is_ours:
            # Answered and acknowledged already, or never given to this container: nobody may answer for another.
            self._settle(shares)
            self._acknowledge(serial)
            return
        if shares:  # items are no answer: a generator's time is that of all of them
            self.ledger.answered(time.monotonic())
        kept = Kept(values, body, shares=shares)
        if values.container != self.id or values.log_offset:
            values.container, values.log_offset = self.id, 0
            head = chunk.stamped(head, self.id)
        if values.is_reference:
            kept, head = self._take(kept), b""
        self._keep(kept, head)

    def on_output(self, output: Output, body: bytes) -> None:
        """How one attempt ended, when that is no plain value."""
        if output.serial in self._outbox:
            self._said_again(output.serial)
            return
        shares = self._line.answer(output.call_id, output.attempt, range(output.position, output.position + 1))
        if not output.serial or not shares:
            self._settle(shares)
            self._acknowledge(output.serial)
            return
        self.ledger.answered(time.monotonic())
        kept = Kept(replace(output, container=self.id, log_offset=0), body, shares=shares)
        if output.payload.blob:
            kept = self._take(kept)
        self._keep(kept)

    def on_returned(self, runs: Iterable[Run]) -> None:
        """These will not run here."""
        back, over = self._line.give_back(runs)
        for held in over:
            self._forget(held)
        if back:
            self._returned(back)

    # inside

    def _add(self, inputs: chunk.Inputs, head: bytes, body: bytes) -> None:
        held = Held(inputs.call_id, inputs.start, inputs.stop, inputs.attempt, time.monotonic(), inputs.method)
        self._note(held)
        if inputs.flags & chunk.REFERENCE:
            held.begun = False
            self._soon(self._fetch_and_deliver(held, inputs, body))
        else:
            self._deliver(held, head, body)

    def _note(self, held: Held) -> None:
        self._line.add(held)
        self.ledger.add(held)

    def _deliver(self, held: Held, head: bytes, body: bytes) -> None:
        link = self.link
        if link is None:
            held.begun = False
            self._waiting[held] = head, body
            return
        if not held.begun:
            self._waiting.pop(held, None)
            self._line.deliver(held, time.monotonic())
        link.send_raw(Kind.LINK_INPUT, head, body)
        self._time.begin()

    async def _fetch_and_deliver(self, held: Held, inputs: chunk.Inputs, body: bytes) -> None:
        """A large argument comes as a file in the spool directory."""
        try:
            blob, size = chunk.read_reference(body)
            if not ids.is_id(held.call_id, ids.CALL):
                raise errors.InternalError("the id of a call could not be read")
            name = f"in-{held.call_id}-{held.start}-{held.attempt}"
            self._arguments[held] = name
            await self._spool.bring(blob, name)
        except (errors.Error, OSError) as error:
            problem = errors.InternalFailure(f"an argument could not be brought to the container: {error}")
            for position in list(held.positions()):
                self._answer(held, position, ResultStatus.INTERNAL, problem)
            return
        if not held.open or self.closed:  # returned or cancelled meanwhile
            self._spool.drop(name)
            return
        body = chunk.reference(name, size)
        inputs.sizes = (len(body),)
        self._deliver(held, inputs.encode(), body)

    def _return_waiting(self) -> None:
        """What the runtime never got is certainly not begun."""
        runs = [run for held in self._line if not held.begun for run in runs_of(held)]
        if runs:
            self.on_returned(runs)

    def _returned(self, runs: list[Run]) -> None:
        self._session.report_soon(Report("returned", self.id, runs=tuple(runs)))

    def _take(self, kept: Kept) -> Kept:
        """Move a large value out of the container's reach."""
        target = self._outbox.body_path(kept.serial)
        try:
            self._spool.take(kept.large, target)
        except (errors.Error, OSError) as error:
            problem = errors.RemoteError(f"the result of {self._at.function.name} could not be taken: {error}")
            kept.fail(ResultStatus.TERMINATED, problem)
            return kept
        kept.file, kept.body = target, b""
        return kept

    def _answer(self, held: Held, position: int, status: str, error: errors.Error) -> None:
        """Answer for the runtime: it cannot, or has not in time."""
        shares = self._line.answer(held.call_id, held.attempt, range(position, position + 1))
        if not shares:
            return
        now = time.time()
        output = Output(
            held.call_id,
            position,
            held.attempt,
            status,
            self.id,
            error=errors.to_wire(error),
            started_at=now - max(0.0, time.monotonic() - held.given_at),
            ended_at=now,
        )
        self._keep(Kept(output, shares=shares))

    def _keep(self, kept: Kept, head: bytes = b"") -> None:
        """``head``: as it came, where nothing in it has to be changed."""
        outbox = self._outbox
        outbox.add(kept)
        if not self._session.connected:
            if self._writing is None:
                self._writing = asyncio.get_running_loop().call_later(_COMPANY, self.write_down)
        elif not self._sender.at_once(kept, head):
            self._sender.in_turn(kept)
        if outbox.too_large:
            self._write_down(sync=False)

    def write_down(self) -> None:
        """Put unacknowledged answers on disk, then let the runtime forget them."""
        self._write_down(sync=True)

    def _write_down(self, *, sync: bool) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        try:
            written = self._outbox.write_down(sync=sync)
        except OSError as error:
            log.warning("results of %s stay in memory until the server is back: %s", self.id, error)
            return
        for kept in written:
            self._on_disk(kept)

    def _said_again(self, serial: int) -> None:
        """After a reconnect."""
        kept = self._outbox.get(serial)
        if kept is not None and kept.on_disk:
            self._on_disk(kept)

    def _on_disk(self, kept: Kept) -> None:
        """The runtime need not keep it. Items it does keep: a generator waits for whoever reads them."""
        if kept.values is None or not kept.values.is_items:
            self._acknowledge(kept.serial)

    def _acknowledge(self, serial: int) -> None:
        if serial and self.link is not None:
            self.link.acknowledge(serial)

    def _settle(self, shares: Shares) -> None:
        for held in self._line.settle(shares):
            self._forget(held)

    def _forget(self, held: Held) -> None:
        self.ledger.drop(held)
        self._waiting.pop(held, None)
        if self._arguments:
            self._drop_argument(held)

    def _drop_argument(self, held: Held) -> None:
        name = self._arguments.pop(held, "")
        if name:
            self._spool.drop(name)

    def _expired(self, runs: list[tuple[Held, Run]]) -> None:
        limit = self._at.function.timeout
        for held, run in runs:
            problem = errors.FunctionTimeoutError(
                f"{self._at.rank}{self._name(held)} ran longer than its timeout of {limit:g} s",
                hint="give it more time with timeout=…",
            )
            self._answer(held, run.start, ResultStatus.TIMEOUT, problem)
        self.stopping = True
        self._at.give_up(f"an input ran longer than {limit:g} s")

    def _name(self, held: Held) -> str:
        name = self._at.function.name
        return f"{name[:-1]}{held.method}" if name.endswith(".*") and held.method else name

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _cut(inputs: chunk.Inputs, body: bytes, start: int, stop: int) -> tuple[chunk.Inputs, bytes, bytes]:
    """Some inputs of a chunk as one of their own, with its head and body."""
    low, high = start - inputs.start, stop - inputs.start
    sizes = tuple(inputs.sizes)
    at = sum(sizes[:low])
    some = chunk.Inputs(
        inputs.call_id, start, sizes[low:high], inputs.attempt, inputs.method, inputs.container, inputs.flags
    )
    return some, some.encode(), body[at : at + sum(some.sizes)]
