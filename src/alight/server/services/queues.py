"""Queues: what is put is on disk before its caller hears of it; what is taken is kept until its caller has it.

A put and the gets that wait for it share one commit. A get alone is committed without waiting for the disk: killing
this process undoes nothing, a power cut may bring an item a second time (decision 0017).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence

from alight.link.peer import Stream
from alight.server.services.queue_rows import check_request, drop, message, takes, values_of
from alight.server.services.queue_state import Adding, Held, Partition, Taken, Taking, Then, Values
from alight.server.services.shared_store import KEPT, SharedStore
from alight.store.base import Statement, Store
from alight.wire import errors
from alight.wire.shared import (
    PAGE_VALUES,
    PARTITION_KEY_MOST,
    PARTITION_MOST,
    PARTITIONS_MOST,
    QueueGet,
    QueueItems,
    QueueLeft,
    QueuePeek,
    QueuePut,
    QueueWhich,
)

log = logging.getLogger(__name__)
_IN_MEMORY = 32 << 20  # bytes of values
_PARKED = 32 << 20  # bytes of puts that wait for room; beyond that their callers ask again
_TAKES_MOST = 50_000  # gets whose answers may not have arrived
_UNUSED = 600.0  # seconds after which a queue that nobody uses leaves memory
_COMMITS = 1.0  # seconds between looks at a get whose items are on their way to the disk


class Queues:
    """Verbs on what queues hold. Whether the caller may use the queue was decided before."""

    def __init__(self, shared: SharedStore) -> None:
        self._shared = shared
        self._store: Store
        self._held: dict[str, asyncio.Future[Held]] = {}
        self._takes: dict[str, Taken] = {}
        self._waiting: dict[str, Taking] = {}
        self._values = Values(_IN_MEMORY)
        self._parked = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Future[None] | None = None

    # verbs

    async def put(self, asked: QueuePut, body: bytes, stream: Stream) -> QueueLeft:
        """Add items, all or none; returns when they are on disk, or says that there is no room."""
        values = values_of(asked, body)
        held = await self._open(asked.queue_id)
        await self.settle(asked.settled)
        partition = self._partition(held, asked.partition)
        if not partition.line.count and len(held.partitions) > PARTITIONS_MOST:
            held.drop_if_idle(partition)
            raise errors.ResourceExhaustedError(
                f"this queue has {PARTITIONS_MOST:,} partitions with something in them already",
                hint="take what is in some of them, or clear them",
            )
        adding = Adding(asked, values, stream)
        line = partition.line
        if not line.putters and line.may_put(adding):
            self._add(held, partition, adding)
            await adding.done
            return QueueLeft()
        if asked.wait is not None and asked.wait <= 0:
            held.drop_if_idle(partition)
            return QueueLeft(full=True)
        if self._parked + len(body) > _PARKED:
            return QueueLeft(full=True, busy=True)
        line.putters.append(adding)
        self._parked += len(body)
        try:
            done = await _within(adding.done, asked.wait, stream)
        finally:
            self._parked -= len(body)
        if done or adding not in line.putters:  # in the latter case it is on its way to the disk
            await adding.done
            return QueueLeft()
        adding.gone = True
        line.putters.remove(adding)
        self._move_on(held, partition)  # those behind it may want less
        return QueueLeft(full=True)

    async def get(self, asked: QueueGet, stream: Stream) -> AsyncIterator[tuple[QueueItems, bytes]]:
        """Take items, in one or several messages; none when none came in time."""
        check_request(asked.request, "g")
        held = await self._open(asked.queue_id)
        await self.settle(asked.settled)
        partition = self._partition(held, asked.partition)
        taken = self._takes.get(asked.request) or await self._take(held, partition, asked, stream)
        if taken is None:
            held.drop_if_idle(partition)
            return
        if taken.queue_id != held.queue_id:
            raise errors.InvalidError("this request took items of another queue")
        if stream.broken:
            return  # it is asked for again, or goes back in a while
        taken.sent = True
        partition = self._partition(held, taken.partition)
        numbers = range(taken.start, taken.stop)
        async for page in self._values.pages(self._store, held.queue_id, partition, numbers):
            yield message(page)
        self._values.drop(partition, taken.start, taken.stop)

    async def back(self, queue_id: str, request: str) -> None:
        """A caller left before it had its answer: what it took stands in its place again."""
        held = await self._open(queue_id)
        getter = self._waiting.get(request)
        if getter is not None:
            if not getter.assigned:
                getter.gone = True
                return
            await asyncio.wait({getter.done})
        taken = self._takes.get(request)
        if taken is not None and taken.queue_id == queue_id:
            await self._give_back(held, request, taken)

    async def peek(self, asked: QueuePeek, stream: Stream) -> tuple[QueueItems, bytes]:
        """Items after a number, left where they are; none when none came in time."""
        held = await self._open(asked.queue_id)
        partition = self._partition(held, asked.partition)
        deadline = time.monotonic() + asked.wait
        while not held.deleted:
            numbers = partition.line.numbers(asked.after, min(asked.limit or PAGE_VALUES, PAGE_VALUES))
            if numbers:
                async for page in self._values.pages(self._store, held.queue_id, partition, numbers):
                    return message(page)
                continue  # they were taken meanwhile
            left = deadline - time.monotonic()
            if left <= 0 or not await _within(partition.watch(), left, stream):
                break
            partition = self._partition(held, asked.partition)
        partition.wake_watchers()
        held.drop_if_idle(partition)
        return QueueItems(), b""

    async def count(self, asked: QueueWhich) -> int:
        """How many items may be taken."""
        held = await self._open(asked.queue_id)
        names = list(held.partitions) if asked.total else [asked.partition]
        return sum(self._partition(held, name).line.count for name in names if name in held.partitions)

    async def clear(self, asked: QueueWhich) -> None:
        """Remove what nobody has taken; returns when it is gone from the disk."""
        held = await self._open(asked.queue_id)
        names = list(held.partitions) if asked.total else [asked.partition]
        statements: list[Statement] = []
        for name in names:
            if name in held.partitions:
                statements += self._cleared(held, held.partitions[name])
        if statements:
            await self._store.write(statements)

    async def delete(self, queue_id: str) -> None:
        """Remove all that a queue holds. Whoever waits at it hears that it is gone."""
        if not self._shared.exists:
            return
        held = await self._open(queue_id)
        held.deleted = True
        self._held.pop(queue_id, None)
        gone = errors.NotFoundError(f"the queue {queue_id} was deleted")
        for partition in held.partitions.values():
            for getter in partition.line.getters:
                getter.gone = True
                getter.end(error=gone)
            for adding in partition.line.putters:
                adding.gone = True
                adding.end(gone)
            partition.wake_watchers()
            self._values.drop_all(partition)
        for request in [request for request, taken in self._takes.items() if taken.queue_id == queue_id]:
            del self._takes[request]
        await self._store.write(
            [("queue_drop_all", {"queue_id": queue_id}), ("shared_requests_of_drop", {"object_id": queue_id})]
        )

    # the same where nothing has to be waited for but the disk

    def put_now(self, asked: QueuePut, body: bytes, stream: Stream, then: Then) -> bool:
        """``put`` of a queue in memory that has room; ``then`` is told what became of it. False where that is not so:
        nothing was done. Raises like ``put``, likewise.
        """
        values = values_of(asked, body)
        held = self._in_memory(asked.queue_id)
        if held is None or held.deleted:
            return False
        partition = self._partition(held, asked.partition)
        line = partition.line
        adding = Adding(asked, values, stream, then)
        crowded = not line.count and len(held.partitions) > PARTITIONS_MOST
        if crowded or line.putters or not line.may_put(adding):
            held.drop_if_idle(partition)
            return False
        held.used_at = time.monotonic()
        self._settle(asked.settled)
        self._add(held, held.partition(asked.partition), adding)  # settling may have let go of the one that was there
        return True

    def get_now(self, asked: QueueGet, stream: Stream, then: Callable[[QueueItems | None, bytes], None]) -> bool:
        """``get`` of items that are there, in a queue in memory. ``then`` has the message, or None when it takes more
        than one, or more than memory: ``get`` says it. False, or raises: as ``put_now`` does.
        """
        check_request(asked.request, "g")
        held = self._in_memory(asked.queue_id)
        if held is None or held.deleted or asked.request in self._takes or asked.request in self._waiting:
            return False
        partition = self._partition(held, asked.partition)
        if not partition.line.ready or partition.line.getters:
            held.drop_if_idle(partition)
            return False

        def took(taken: Taken | None) -> None:
            self._waiting.pop(asked.request, None)
            page = self._values.page(partition, taken.start, taken.stop) if taken is not None else None
            if taken is None or page is None or stream.broken:
                then(None, b"")
                return
            taken.sent = True
            then(*message(page))
            self._values.drop(partition, taken.start, taken.stop)

        held.used_at = time.monotonic()
        self._settle(asked.settled)
        getter = Taking(asked.request, min(max(1, asked.count), PARTITION_MOST), stream, took)
        self._waiting[asked.request] = getter
        partition.line.getters.append(getter)
        self._move_on(held, partition)
        return True

    async def settle(self, requests: Sequence[str]) -> None:
        """The answers of these requests have arrived."""
        if not requests:
            return
        await self._open_store()
        self._settle(requests)

    def settle_now(self, requests: Sequence[str]) -> bool:
        """``settle`` where nothing has to be read before. False: it could not be, and nothing was done."""
        opening = self._opening
        if requests and (opening is None or not opening.done() or opening.cancelled() or opening.exception()):
            return False
        self._settle(requests)
        return True

    def _settle(self, requests: Sequence[str]) -> None:
        if not requests:
            return
        statements: list[Statement] = [("shared_request_drop", [{"request": request} for request in requests])]
        for request in requests:
            taken = self._takes.pop(request, None)
            if taken is not None:
                statements += self._settled(taken)
        self._store.write_soon(statements, relaxed=True)

    # now and then

    async def clean(self, now: float, alive: set[str]) -> None:
        """Expire partitions, look after gets that nobody asks for again, and forget what is not used."""
        if not self._shared.exists:
            return
        await self._open_store()
        for request, taken in list(self._takes.items()):
            if taken.at < now - KEPT:
                if taken.sent:
                    await self.settle((request,))
                elif taken.queue_id in alive:
                    await self._give_back(await self._open(taken.queue_id), request, taken)
        for row in await self._store.read("queue_ids"):
            if row["object_id"] not in alive:
                await self.delete(row["object_id"])
        for row in await self._store.read("queue_expired", now=now):
            if row["object_id"] in alive:
                held = await self._open(row["object_id"])
                for name in list(held.partitions):
                    self._partition(held, name, now)
        self._forget_unused()

    def _forget_unused(self) -> None:
        before = time.monotonic() - _UNUSED
        for queue_id, loading in list(self._held.items()):
            if not loading.done() or loading.cancelled() or loading.exception() is not None:
                continue
            held = loading.result()
            busy = any(
                one.line.getters or one.line.putters or one.line.coming or one.watchers
                for one in held.partitions.values()
            )
            out = any(taken.queue_id == queue_id for taken in self._takes.values())
            if held.used_at < before and not busy and not out:
                for partition in held.partitions.values():
                    self._values.drop_all(partition)
                del self._held[queue_id]

    # putting

    def _add(self, held: Held, partition: Partition, adding: Adding) -> None:
        now, line = time.time(), partition.line
        start, stop = line.begin(adding.count)
        given = line.hand_over(start, stop)
        for getter, _, _ in given:
            getter.assigned = True
        expires_at = now + adding.ttl
        base = {"queue_id": held.queue_id, "partition": partition.name, "expires_at": expires_at}
        statements: list[Statement] = [
            ("queue_put_done", {"request": adding.request, "queue_id": held.queue_id, "now": now}),
            (
                "queue_add",
                [{**base, "number": number, "value": value} for number, value in enumerate(adding.values, start)],
            ),
        ]
        taken = [Taken(held.queue_id, partition.name, low, high, now) for _, low, high in given]
        getters = [getter for getter, _, _ in given]
        if given:
            statements.append(takes(getters, taken))

        def then(error: Exception | None) -> None:
            if error is not None:
                line.failed(start, stop)
                line.out -= len(given)
                for getter in getters:
                    getter.assigned = False
                line.wait_again(getters)
                if isinstance(error, errors.AlreadyExistsError):  # it was put before, and the answer was lost
                    adding.end()
                else:
                    adding.end(error)
            else:
                line.came(start, stop, taken[-1].stop if taken else start)
                line.expires_at = expires_at
                if not held.deleted:
                    self._values.keep(partition, start, adding.values)
                for getter, one in zip(getters, taken):
                    self._took(getter, one)
                partition.wake_watchers()
                adding.end()
            self._move_on(held, partition)

        self._store.write_now(statements, then)

    def _move_on(self, held: Held, partition: Partition) -> None:
        """Give what is ready to those who wait for it, and room to those who wait for that."""
        given = partition.line.serve()
        if given:
            taken = [Taken(held.queue_id, partition.name, low, high, time.time()) for _, low, high in given]
            getters = [getter for getter, _, _ in given]
            for getter in getters:
                getter.assigned = True
            then = functools.partial(self._committed, held, partition, getters, taken)
            self._store.write_now([takes(getters, taken)], then, relaxed=True)
        while (adding := partition.line.next_putter()) is not None:
            self._add(held, partition, adding)

    # taking

    async def _take(self, held: Held, partition: Partition, asked: QueueGet, stream: Stream) -> Taken | None:
        getter = self._waiting.get(asked.request)
        if getter is None or not getter.assigned:
            if getter is not None:
                getter.gone = True  # its connection broke, and it is asked again
            most = min(max(1, asked.count), PARTITION_MOST)
            getter = self._waiting[asked.request] = Taking(asked.request, most, stream)
            partition.line.getters.append(getter)
            self._move_on(held, partition)
        try:
            if getter.assigned:
                return await asyncio.shield(getter.done)
            if asked.wait is not None and asked.wait <= 0:
                getter.gone = True
                partition.line.getters.remove(getter)
                return None
            return await self._wait(partition, getter, asked.wait, stream)
        finally:
            if self._waiting.get(asked.request) is getter and (getter.gone or getter.done.done()):
                del self._waiting[asked.request]

    async def _wait(self, partition: Partition, getter: Taking, wait: float | None, stream: Stream) -> Taken | None:
        deadline = None if wait is None else time.monotonic() + wait
        while not getter.done.done():
            left = None if deadline is None else deadline - time.monotonic()
            if not getter.assigned and (stream.broken or (left is not None and left <= 0)):
                getter.gone = True
                if getter in partition.line.getters:
                    partition.line.getters.remove(getter)
                return None
            await _within(getter.done, _COMMITS if getter.assigned else left, stream)
        return getter.done.result()

    def _committed(
        self, held: Held, partition: Partition, getters: list[Taking], taken: list[Taken], error: Exception | None
    ) -> None:
        """What was given to gets is written down as taken, or could not be."""
        for getter, one in zip(getters, taken):
            if error is None:
                self._took(getter, one)
                continue
            partition.line.give_back(one.start, one.stop)
            getter.end(error=error)
        if error is None and partition.line.putters:
            self._move_on(held, partition)

    def _took(self, getter: Taking, taken: Taken) -> None:
        self._takes[getter.request] = taken
        if len(self._takes) > _TAKES_MOST:
            self._forget_oldest()
        self._waiting.pop(getter.request, None)
        getter.end(taken)

    def _forget_oldest(self) -> None:
        """Clients that never say what has arrived do not fill the memory: nobody can ask again for their first gets."""
        oldest = [request for request, taken in itertools.islice(self._takes.items(), _TAKES_MOST // 2) if taken.sent]
        task = asyncio.ensure_future(self.settle(oldest))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _settled(self, taken: Taken) -> list[Statement]:
        held = self._in_memory(taken.queue_id)
        if held is not None and taken.partition in held.partitions:
            partition = held.partitions[taken.partition]
            partition.line.settled()
            self._values.drop(partition, taken.start, taken.stop)
            held.drop_if_idle(partition)
        return [drop(taken.queue_id, taken.partition, taken.start, taken.stop)]

    async def _give_back(self, held: Held, request: str, taken: Taken) -> None:
        self._takes.pop(request, None)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def then(error: Exception | None) -> None:
            if error is None:
                written.set_result(None)
            else:
                written.set_exception(error)

        # Before anybody takes them anew, and awaited: a server that starts again would keep them for a caller who was
        # told that they are back.
        self._store.write_now([("shared_request_drop", {"request": request})], then)
        partition = held.partition(taken.partition)
        partition.line.give_back(taken.start, taken.stop)
        partition.wake_watchers()
        self._move_on(held, partition)
        await written

    # what is in memory

    async def _open_store(self) -> None:
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._load())
        try:
            await asyncio.shield(self._opening)
        except errors.Error:
            self._opening = None
            raise

    async def _load(self) -> None:
        """What an earlier process left: gets whose callers may ask again."""
        self._store = await self._shared.get()
        for row in await self._store.read("queue_takes"):
            taken = Taken(row["object_id"], row["partition"], row["start"], row["stop"], time.time(), sent=True)
            self._takes[row["request"]] = taken

    async def _open(self, queue_id: str) -> Held:
        await self._open_store()
        loading = self._held.get(queue_id)
        if loading is None:
            loading = self._held[queue_id] = asyncio.ensure_future(self._read(queue_id))
        try:
            held = loading.result() if loading.done() else await asyncio.shield(loading)
        except errors.Error:
            self._held.pop(queue_id, None)
            raise
        held.used_at = time.monotonic()
        return held

    async def _read(self, queue_id: str) -> Held:
        """A queue as the store has it."""
        await self._store.flush()  # what was settled just now is read no more
        held = Held(queue_id)
        ends = {row["partition"]: row["expires_at"] for row in await self._store.read("queue_ends", queue_id=queue_id)}
        for row in await self._store.read("queue_ranges", queue_id=queue_id):
            line = held.partition(row["partition"]).line
            line.expires_at = ends.get(row["partition"], math.inf)
            line.add(row["start"], row["stop"])
        for taken in self._takes.values():
            if taken.queue_id == queue_id:
                held.partition(taken.partition).line.take_out(taken.start, taken.stop)
        return held

    def _in_memory(self, queue_id: str) -> Held | None:
        loading = self._held.get(queue_id)
        return loading.result() if loading is not None and loading.done() and not loading.exception() else None

    def _partition(self, held: Held, name: str, now: float | None = None) -> Partition:
        """The partition, cleared when it has had its time."""
        if len(name.encode()) > PARTITION_KEY_MOST:
            raise errors.InvalidError(f"a partition of a queue has 1 to {PARTITION_KEY_MOST} bytes")
        partition = held.partition(name)
        if partition.line.count and partition.line.expires_at < (time.time() if now is None else now):
            self._store.write_soon(self._cleared(held, partition), relaxed=True)
            partition = held.partition(name)
        return partition

    def _cleared(self, held: Held, partition: Partition) -> list[Statement]:
        ranges = partition.line.clear()
        for start, stop in ranges:
            self._values.drop(partition, start, stop)
        self._move_on(held, partition)
        held.drop_if_idle(partition)
        return [drop(held.queue_id, partition.name, start, stop) for start, stop in ranges]


async def _within(future: asyncio.Future[None] | asyncio.Future[Taken], seconds: float | None, stream: Stream) -> bool:
    """Wait for a future, at most so long, and only while somebody waits for the answer. Whether it is done."""
    broken = asyncio.ensure_future(stream.wait_broken())
    try:
        await asyncio.wait({future, broken}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        broken.cancel()
    return future.done()
