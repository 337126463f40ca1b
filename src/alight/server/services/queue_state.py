"""What the server has of a queue in memory: its partitions, who waits at them, values that will be asked for soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from alight.link.peer import Stream
from alight.server.services.queue_line import Getter, Line, Putter
from alight.store.base import Store
from alight.wire.shared import PAGE_BYTES, PAGE_VALUES, QueuePut

Then = Callable[[Exception | None], None]
_FIRST_READ = 8  # items that are read at once while nobody knows how large they are


@dataclass(eq=False)
class Taken:
    """Items that a get took and that are kept until its caller has them. ``sent``: an answer with them left here."""

    queue_id: str
    partition: str
    start: int
    stop: int
    at: float
    sent: bool = False


class Taking(Getter):
    """A get that waits. ``assigned``: it was given something, which is on its way to the disk. ``then`` is told what it
    took, or None, where nobody awaits ``done``.
    """

    def __init__(
        self, request: str, most: int, stream: Stream, then: Callable[[Taken | None], None] | None = None
    ) -> None:
        super().__init__(request, most)
        self.stream = stream
        self.assigned = False
        self.done: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._then = then

    def end(self, taken: Taken | None = None, error: Exception | None = None) -> None:
        """It has what it took, or will never have anything."""
        if self._then is not None:
            then, self._then = self._then, None
            then(taken)
        elif not self.done.done():
            if taken is not None:
                self.done.set_result(taken)
            elif error is not None:
                _refuse(self.done, error)

    def look(self) -> None:
        """A client that is gone takes nothing."""
        self.gone = self.gone or self.stream.broken


class Adding(Putter):
    """A put, with what it adds. ``then`` is told what became of it where nobody awaits ``done``."""

    def __init__(self, asked: QueuePut, values: list[bytes], stream: Stream, then: Then | None = None) -> None:
        super().__init__(asked.request, len(values), asked.need)
        self.values = values
        self.ttl = asked.ttl
        self.stream = stream
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._then = then

    def end(self, error: Exception | None = None) -> None:
        """It is on disk, or will never be."""
        if self._then is not None:
            then, self._then = self._then, None
            then(error)
        elif not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                _refuse(self.done, error)

    def look(self) -> None:
        """A client that is gone adds nothing."""
        self.gone = self.gone or self.stream.broken


@dataclass(eq=False)
class Partition:
    """One partition of a queue."""

    name: str
    line: Line[Taking, Adding] = field(default_factory=Line)
    values: dict[int, bytes] = field(default_factory=dict)
    watchers: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        return self.line.idle and not self.watchers

    def watch(self) -> asyncio.Future[None]:
        """Done when something comes."""
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.watchers.append(watcher)
        return watcher

    def wake_watchers(self) -> None:
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)


@dataclass(eq=False)
class Held:
    """One queue in memory."""

    queue_id: str
    partitions: dict[str, Partition] = field(default_factory=dict)
    used_at: float = field(default_factory=time.monotonic)
    deleted: bool = False

    def partition(self, name: str) -> Partition:
        """Its partition, made when there is none."""
        found = self.partitions.get(name)
        if found is None:
            # Numbers go on behind all that were, also of a partition that was forgotten: who iterates counts on it.
            found = self.partitions[name] = Partition(name, Line(next=time.time_ns() // 1000))
        return found

    def drop_if_idle(self, partition: Partition) -> None:
        """Forget a partition that holds nothing and that nobody waits at."""
        if partition.idle and self.partitions.get(partition.name) is partition:
            del self.partitions[partition.name]


class Values:
    """Values of items: in memory as far as they fit, else read from the store. ``most``: bytes in memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._have = 0

    def keep(self, partition: Partition, start: int, values: Sequence[bytes]) -> None:
        """Keep those that fit."""
        for number, value in enumerate(values, start):
            if self._have + len(value) > self._most:
                return
            self._have += len(value)
            partition.values[number] = value

    def page(self, partition: Partition, start: int, stop: int) -> list[tuple[int, bytes]] | None:
        """All of these, when they are in memory and go into one message."""
        page: list[tuple[int, bytes]] = []
        size = 0
        for number in range(start, stop) if stop - start <= PAGE_VALUES else ():
            value = partition.values.get(number)
            if value is None or (page and size + len(value) > PAGE_BYTES):
                return None
            page.append((number, value))
            size += len(value)
        return page or None

    def drop(self, partition: Partition, start: int, stop: int) -> None:
        """They are not asked for soon."""
        if not partition.values:
            return
        for number in range(start, stop):
            value = partition.values.pop(number, None)
            if value is not None:
                self._have -= len(value)

    def drop_all(self, partition: Partition) -> None:
        """The partition is forgotten."""
        self._have -= sum(len(value) for value in partition.values.values())
        partition.values.clear()

    async def pages(
        self, store: Store, queue_id: str, partition: Partition, numbers: Sequence[int]
    ) -> AsyncIterator[list[tuple[int, bytes]]]:
        """Items by their ascending numbers, as many at a time as go into one message, without those that are gone."""
        at, size_seen = 0, 0
        while at < len(numbers):
            page: list[tuple[int, bytes]] = []
            size = 0
            while at < len(numbers) and len(page) < PAGE_VALUES:
                value = partition.values.get(numbers[at])
                if value is None or (page and size + len(value) > PAGE_BYTES):
                    break
                page.append((numbers[at], value))
                size, at = size + len(value), at + 1
            if page:
                yield page
                continue
            # Numbers without a gap are one range of the store.
            stop = at + 1
            while stop < len(numbers) and numbers[stop] == numbers[stop - 1] + 1 and stop - at < PAGE_VALUES:
                stop += 1
            limit = max(1, PAGE_BYTES // size_seen) if size_seen else _FIRST_READ
            wanted = min(stop - at, limit)
            rows = await store.read(
                "queue_values",
                queue_id=queue_id,
                partition=partition.name,
                start=numbers[at],
                stop=numbers[at + wanted - 1] + 1,
                limit=wanted,
            )
            at += wanted
            if rows:
                size_seen = max(1, sum(len(row["value"]) for row in rows) // len(rows))
                yield [(row["number"], row["value"]) for row in rows]


def _refuse(future: asyncio.Future[None] | asyncio.Future[Taken], error: Exception) -> None:
    future.set_exception(error)
    future.exception()  # it may be that nobody waits any more
