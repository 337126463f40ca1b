"""What came of inputs on its way to the disk, and the word that lets a machine forget it once it is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alight.server import faults
from alight.server.services.book import call_row, chunk_row
from alight.server.services.call import Call
from alight.server.services.frame import Frame
from alight.store.base import Statement, Store
from alight.wire import chunk, errors
from alight.wire.commands import Run

ITEMS_AHEAD = 16 << 20  # bytes of items that a reader may be behind before its generator is made to wait
_AGAIN = 1.0  # seconds until rows that a full disk refused are tried again
_REFUSED_MOST = 16 << 20  # bytes of such rows beyond which nothing more is accepted or run
_ROW = 500  # bytes that a row takes in memory besides its bodies

log = logging.getLogger(__name__)


class Recording:
    """Writes rows down; what a full disk refuses waits here, and counts.

    ``acknowledge`` hears of a frame that need not come again, ``answered`` of an input that a machine answered itself.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unwritten: set[tuple[str, int]] = set()  # frames whose rows are on their way to the disk
        self._refused = 0  # bytes of rows that the disk did not take
        self.acknowledge: Callable[[str, int], None] = lambda container_id, serial: None
        self.answered: Callable[[str, Run], None] = lambda container_id, run: None

    def begin(self, call: Call) -> None:
        """Have it written down that a call was accepted, if that has not been said yet. Nobody waits for it."""
        one, call.unwritten = call.unwritten, None
        if one is None:
            return
        rows: list[Statement] = [
            ("call_add", call_row(call, call.created_at)),
            ("chunk_add", chunk_row(call.call_id, one)),
        ]
        try:
            call.ticket = self._store.write_soon(rows, independent=True)
        except errors.ServiceError as error:
            log.info("not written down, the server is stopping: %s", error)

    def write(self, call: Call | None, statements: list[Statement], frame: Frame | None, refused: int = 0) -> None:
        """Write rows after those of the call that are on their way.

        ``refused``: the disk did not take them before, and counted so much for them.
        """
        ticket = None
        if call is not None:
            self.begin(call)
        if call is not None and call.ticket is not None:
            ticket, call.ticket = call.ticket, None
        try:
            self._store.write_then(statements, self._when_written(call, statements, frame, refused), ticket)
        except errors.ServiceError:
            return  # the server is stopping: its node brings it again

    def replace(self, call: Call, statements: list[Statement], frame: Frame) -> bool:
        """Have these rows instead of a call's first ones, which may be on their way; False when those have left."""
        ticket = call.ticket
        if ticket is None or not self._store.replace(ticket, statements, self._when_written(call, statements, frame)):
            return False
        call.ticket = None
        return True

    def forget(self, frame: Frame) -> None:
        """Let its machine forget a frame: it counts and is on disk, or it will never count."""
        if frame.serial:
            # One that came twice is acknowledged when its first copy is on disk.
            if (frame.container_id, frame.serial) not in self._unwritten:
                self.acknowledge(frame.container_id, frame.serial)
        else:
            position = frame.positions[0]
            self.answered(frame.container_id, Run(frame.call_id, position, position + 1, frame.attempt))

    def on_read(self, call: Call, size: int) -> None:
        """A reader has taken so many bytes of items."""
        call.unread = max(0, call.unread - size)
        if call.held_acks and call.unread <= ITEMS_AHEAD:
            held, call.held_acks = call.held_acks, None
            for container_id, serial in held:
                self.acknowledge(container_id, serial)

    @property
    def is_choked(self) -> bool:
        """Whether so much waits for a full disk that nothing should come to it."""
        return self._refused > _REFUSED_MOST

    async def wait_room(self) -> None:
        """Return when the disk has taken enough of what waits."""
        while self.is_choked:  # noqa: ASYNC110  a full disk is looked at, not waited for
            await asyncio.sleep(_AGAIN / 4)

    def _when_written(
        self, call: Call | None, statements: list[Statement], frame: Frame | None, refused: int = 0
    ) -> Callable[[Exception | None], None]:
        if frame is not None and frame.serial:
            self._unwritten.add((frame.container_id, frame.serial))

        def written(error: Exception | None) -> None:
            if error is not None:
                self._write_again(statements, frame, refused, error)
                return
            self._refused -= refused
            faults.at("output_committed")
            if frame is not None:
                self._unwritten.discard((frame.container_id, frame.serial))
                self._committed(call, frame)

        return written

    def _write_again(self, statements: list[Statement], frame: Frame | None, refused: int, error: Exception) -> None:
        """Rows that the disk refused wait here until it takes them."""
        if not refused:
            call_id = frame.call_id if frame is not None else "a call"
            log.error("what came of %s could not be written down yet: %s", call_id, error)
            refused = sum(map(_weight, statements))
            self._refused += refused
        asyncio.get_running_loop().call_later(_AGAIN, self.write, None, statements, frame, refused)

    def _committed(self, call: Call | None, frame: Frame) -> None:
        if (
            call is not None
            and frame.flags & chunk.ITEMS
            and call.waited
            and call.unread > ITEMS_AHEAD
            and not call.over
        ):
            if call.held_acks is None:
                call.held_acks = []
            call.held_acks.append((frame.container_id, frame.serial))
            return
        self.forget(frame)


def _weight(statement: Statement) -> int:
    """Bytes that a row takes while it waits to be written."""
    given = statement[1]
    rows: Sequence[Mapping[str, Any]] = (given,) if isinstance(given, Mapping) else given
    size = _ROW * len(rows)
    for row in rows:
        size += len(row.get("head") or b"") + len(row.get("body") or b"")
    return size
