"""Answers of one container on their way to the server, in the order in which they came.

At once, where the server takes more and nobody watches, or nothing was printed that has not been sent. Else in turn:
while somebody watches, what was printed before an answer goes before it, and a large value is uploaded before it is
named.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from alight.node.ends import Ends
from alight.node.outbox import Kept, Outbox
from alight.node.session import encode_report
from alight.node.spool import Spool
from alight.wire import chunk, errors
from alight.wire.commands import Report
from alight.wire.record import replace
from alight.wire.states import ResultStatus

log = logging.getLogger(__name__)


class Sender:
    """See the module. What could not be said, because the server went away, is said again by ``again``."""

    def __init__(self, ends: Ends, outbox: Outbox, spool: Spool, ended: Callable[[], bool]) -> None:
        self._at = ends
        self._outbox = outbox
        self._spool = spool
        self._ended = ended
        self._queue: list[Kept] = []
        self._task: asyncio.Task[None] | None = None
        self._with_log = False
        self._connection = 0
        self._placed = 0  # where the log ended that was noted last as somebody's
        self._shipped = -1  # where the log ended that belongs before the last answer; -1: nobody looked

    def at_once(self, kept: Kept, head: bytes) -> bool:
        """Send it now. False: it has to take its turn."""
        if self._task is not None or kept.file is not None:
            return False
        values = kept.values
        if values is None or not values.flags & chunk.QUIET or self._shipped < 0:
            if self._at.watched():
                return False
            self._shipped = -1
            if values is not None and self._note_place(values):
                head = b""
        elif not self._at.engine.is_drained(self._at.container_id) or self._at.tail.size() != self._shipped:
            return False
        if values is not None:
            if self._shipped > 0:
                values.log_offset, head = self._shipped, b""
            return self._at.session.send_soon(head or values.encode(), kept.body)
        said = encode_report(Report("output", self._at.container_id, kept.output))
        return self._at.session.send_soon(said, kept.body)

    def _note_place(self, values: chunk.Outputs) -> bool:
        """Say where the log ends that these values come with, so that it is known whose it is; nobody waits for it.
        Without QUIET it is more than is known to be in the log. False: they say all there is to say."""
        quiet = values.flags & chunk.QUIET and self._at.engine.is_drained(self._at.container_id)
        if not quiet:
            had = values.flags & chunk.QUIET
            values.flags &= ~chunk.QUIET
            return bool(had)
        size = self._at.tail.size()
        if size == self._placed:
            return False
        self._placed = values.log_offset = size
        values.flags |= chunk.UNSENT
        return True

    def in_turn(self, kept: Kept) -> None:
        """Send it after those before it."""
        self._queue.append(kept)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send())

    def again(self) -> None:
        """The server is back: all that it has not acknowledged.

        With the log, because whether somebody watches is said anew after a reconnect, perhaps later than this.
        """
        self._connection += 1
        self._shipped = -1
        self._placed = 0
        self._queue.clear()
        self._with_log = True
        for kept in self._outbox.waiting():
            self.in_turn(kept)

    async def settle(self) -> None:
        """Return when all that can be said now is said, the log with it."""
        while (task := self._task) is not None and self._at.session.connected:
            await asyncio.wait({task})
        if self._at.session.connected:
            await self._at.tail.ship(self._at.tail.size())

    def let_go(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _send(self) -> None:
        try:
            while self._queue and self._at.session.connected:
                some, self._queue = self._queue, []
                connection, offset, self._shipped = self._connection, 0, -1
                if self._with_log or self._at.watched():
                    self._with_log = False
                    offset = await self._ship_log()
                    if connection == self._connection:
                        self._shipped = offset
                for kept in some:
                    if connection != self._connection:
                        break  # it is all in the queue again, in order
                    if kept.key in self._outbox and not await self._say(kept, offset):
                        break
        finally:
            self._task = None

    async def _say(self, kept: Kept, offset: int) -> bool:
        """False: the server is away."""
        if kept.values is not None:
            kept.values.log_offset = offset
            kept.values.flags &= ~chunk.UNSENT
            if not offset:
                self._note_place(kept.values)
        elif kept.output is not None:
            kept.output = replace(kept.output, log_offset=offset)
        try:
            if kept.file is not None:
                kept.name(*await self._spool.upload(kept.file))
            body = kept.read()
        except (errors.Error, OSError) as error:
            if not self._at.session.connected:
                return False
            log.warning("a result of %s could not be sent: %s", self._at.container_id, error)
            kept.fail(ResultStatus.INTERNAL, errors.InternalFailure(f"a result could not be sent: {error}"))
            body = b""
        if kept.values is not None:
            return await self._at.session.send(kept.values.encode(), body)
        return await self._at.session.report(Report("output", self._at.container_id, kept.output), body)

    async def _ship_log(self) -> int:
        """Send what was printed until now; where that ends."""
        at = self._at
        try:
            offset = at.tail.size() if self._ended() else await at.engine.drain(at.container_id)
        except errors.Error as error:
            log.warning("the output of %s could not be brought up to date: %s", at.container_id, error)
            offset = at.tail.size()
        await at.tail.ship(offset)
        return offset
