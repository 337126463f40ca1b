"""Callers that wait for what comes of a call's inputs, each at its own pace.

A reader is a cursor in the call's numbered outputs. While it keeps up, an output is handed to its stream in the moment
that it counts; when the stream has no room, nothing is queued: the reader takes up later from the store, where every
output is anyway. So a slow reader costs no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from alight.link.peer import Stream
from alight.server.services import results
from alight.server.services.ranges import Ranges
from alight.server.services.results import Recorded
from alight.store.base import Row, Store
from alight.wire import chunk, errors
from alight.wire.codec import Buffer

if TYPE_CHECKING:
    from alight.server.services.call import Call

_AT_ONCE = 16  # outputs per visit to the store
_LOST = 0.5  # seconds between looks for what is not in the store yet, though it was flushed: its disk is full
_MANY = 1 << 62


class Reader:
    """Who wants the inputs from ``start`` to ``stop`` of a call, but not those in ``have``.

    ``call`` is None for one that is over; ``row`` is then its row. ``items``: so many of the one generator are known.
    """

    def __init__(  # noqa: PLR0913  what it wants is what it has
        self,
        store: Store,
        stream: Stream,
        call: Call | None,
        row: Row | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        have: tuple[tuple[int, int], ...] = (),
        items: int = 0,
    ) -> None:
        self.stream = stream
        self.call = call
        self.direct = call is not None and call.last == 0
        self.on_read: Callable[[int], None] = _nobody
        self._store = store
        self._row = row
        self._call_id = call.call_id if call is not None else str(row["call_id"] if row is not None else "")
        self._start, self._stop = start, stop
        self._sent = Ranges(have) if have else Ranges()
        self._items = {start: items} if items else {}  # generators: the next item, by position
        self._cursor = 0
        self._news: asyncio.Event | None = None  # made by who waits
        self._task: asyncio.Task[None] | None = None

    @property
    def satisfied(self) -> bool:
        """Whether everything that it wants was sent, as far as that can be known now."""
        if self._stop is None:
            return False
        return not self._sent.missing(self._start, self._stop)

    def offer(self, one: Recorded) -> None:
        """An output counts. Sent now when all before it were and there is room."""
        if self.direct and (self._task is None or self.stream.may_send):
            self._cursor = one.number
            self._say(one)
            if self._task is None and not self.stream.may_send:
                self._fall_behind()
            elif self._task is not None and self.satisfied:
                self.wake()
        else:
            self._fall_behind()

    def over(self) -> None:
        """The call is over: say what is left to say, and the end."""
        if self._task is None and self.direct and self._nothing_left():
            if not self.stream.broken:
                self.stream.finish()
            return
        self._fall_behind()

    async def follow(self) -> None:
        """Send until all is said. Raises when the stream breaks."""
        self._task = asyncio.current_task()
        news = self._news = asyncio.Event()
        while True:
            self.direct = False
            news.clear()
            await self._catch_up()
            if self.satisfied:
                return
            if self.call is None or self.call.over:
                await self._end()
                return
            if self.stream.broken:
                raise errors.ConnectionError("the caller is gone")
            self.direct = True
            await news.wait()

    def wake(self) -> None:
        """Look again: the stream broke, or the call is over."""
        if self._news is not None:
            self._news.set()

    # inside

    def _fall_behind(self) -> None:
        self.direct = False
        self.wake()
        if self._task is None and not self.stream.broken:
            self._task = asyncio.get_running_loop().create_task(self._follow_alone())

    async def _follow_alone(self) -> None:
        try:
            await self.follow()
        except errors.Error as error:
            if not self.stream.broken:
                await self.stream.fail(error)
            return
        self.stream.finish()

    def _nothing_left(self) -> bool:
        call = self.call
        if call is None or call.rest is not None or self._cursor < call.last:
            return False
        return not self._sent.missing(self._start, call.accepted if self._stop is None else self._stop)

    async def _catch_up(self) -> None:
        while True:
            newest = self.call.last if self.call is not None else _MANY
            if self._cursor >= newest:
                return
            rows = await self._rows()
            if not rows:
                await self._store.flush()
                rows = await self._rows()
            for row in rows:
                await self._say_when_ready(results.from_row(row))
                self._cursor = row["number"]
            if rows:
                continue
            if self.call is None or self._cursor >= self.call.last:
                return
            if self.call.over:
                self._cursor = self.call.last
                return
            if self.stream.broken:
                raise errors.ConnectionError("the caller is gone")
            await asyncio.sleep(_LOST)

    async def _rows(self) -> list[Row]:
        return await self._store.read("outputs_after", call_id=self._call_id, after=self._cursor, limit=_AT_ONCE)

    async def _end(self) -> None:
        """The call is over and its outputs were sent: inputs that have none ended with it."""
        call, row = self.call, self._row
        if call is not None and call.rest is not None:
            said, body = call.rest
        else:
            said, body = None, b""
        for kept in await self._store.read("outputs_rest", call_id=self._call_id) if call is None else ():
            said, body = results.rest_of_head(kept["head"]), kept["body"]
        accepted = call.accepted if call is not None else (row["accepted"] if row is not None else 0)
        stop = accepted if self._stop is None else min(accepted, self._stop)
        missing = self._sent.missing(self._start, stop)
        if not missing:
            return
        if said is None:
            row = row or await self._store.one("call_by_id", call_id=self._call_id)
            said = results.rest_of_row(row) if row is not None else {"call_id": self._call_id, "state": "done"}
        for low, high in missing:
            for position in range(low, high):
                await self.stream.send_raw(results.update(said, position), body)
        self._sent.add(self._start, stop)

    async def _say_when_ready(self, one: Recorded) -> None:
        message = self._message(one)
        if message is not None:
            if one.kind == results.END and self.call is None:
                self._check_items(one)
            await self.stream.send_raw(*message)
        if one.kind == results.ITEMS:
            self.on_read(len(one.body))

    def _check_items(self, one: Recorded) -> None:
        """Items are forgotten some time after they were read; an end without them would be a lie."""
        if results.rest_of_head(one.head).get("items", 0) > self._items.get(one.start, 0):
            raise errors.OutputExpiredError(f"what {self._call_id} gave has been read by its caller and is gone")

    def _say(self, one: Recorded) -> None:
        message = self._message(one)
        if message is not None and not self.stream.broken:
            send_now(self.stream, *message)
        if one.kind == results.ITEMS:
            self.on_read(len(one.body))

    def _message(self, one: Recorded) -> tuple[bytes, Buffer] | None:
        """What this reader has not got of an output, as head and body. None: it has all that it wants of it."""
        if one.kind == results.VALUES:
            return self._values(one)
        if one.kind == results.END:
            position = one.start
            if position < self._start or (self._stop is not None and position >= self._stop):
                return None
            return (bytes(one.head), one.body) if self._sent.add(position, position + 1) else None
        if one.kind == results.ITEMS:
            return self._items_of(one)
        return None

    def _values(self, one: Recorded) -> tuple[bytes, Buffer] | None:
        positions, sent = one.positions, self._sent
        if self._start == 0 and self._stop is None and type(positions) is range:
            if not sent.count:
                sent.add(positions.start, positions.stop)
                return bytes(one.head), one.body
            before = sent.missing(positions.start, positions.stop)
            if len(before) == 1 and before[0] == (positions.start, positions.stop):
                sent.add(positions.start, positions.stop)
                return bytes(one.head), one.body
        stop = _MANY if self._stop is None else self._stop
        kept = results.cut(one.head, one.body, lambda at: self._start <= at < stop and at not in sent)
        if kept is None:
            return None
        sent.add_all(kept[0].positions)
        return kept[1], kept[2]

    def _items_of(self, one: Recorded) -> tuple[bytes, Buffer] | None:
        if one.start < self._start or (self._stop is not None and one.start >= self._stop):
            return None
        first, stop = one.positions[0], one.positions[-1] + 1
        known = self._items.get(one.start, 0)
        if stop <= known:
            return None
        self._items[one.start] = stop
        if first >= known:
            return bytes(one.head), one.body
        kept = results.cut(one.head, one.body, lambda number: number >= known)
        return (kept[1], kept[2]) if kept is not None else None


def _nobody(size: int) -> None:
    """Nobody counts what this reader takes."""


def send_now(stream: Stream, head: bytes, body: Buffer = b"") -> None:
    """``Stream.send_nowait`` for a head that is encoded already."""
    stream.peer.connection.send(stream.id, head, body)
    stream.peer.flush_soon()


def is_large(recorded: Recorded) -> bool:
    """Whether an output is the name of something larger."""
    return recorded.kind == results.VALUES and bool(recorded.flags & chunk.REFERENCE)
