"""A queue that functions and programs share, in partitions, kept by the server: first in, first out.

What ``put`` has returned for is on the server's disk. What ``get`` returns nobody else gets; whoever waits longest is
served first.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, AsyncIterator, List, Optional, Union

from alight.sdk import shared, values
from alight.sdk.client import Client, default_client
from alight.sdk.ephemeral import Keeper
from alight.sdk.lost import LostError
from alight.sdk.object import classproperty
from alight.sdk.reports import QueueInfo
from alight.sdk.secret import moment
from alight.sdk.sync import Chunks, dual, dual_chunks, dual_context_function, sleep
from alight.wire import errors, payload
from alight.wire.codec import loads_head
from alight.wire.ids import QUEUE
from alight.wire.record import replace
from alight.wire.shared import (
    ITEM_MOST,
    PAGE_BYTES,
    PAGE_VALUES,
    PARTITION_KEY_MOST,
    PARTITION_MOST,
    PARTITION_TTL_MOST,
    DictCount,
    QueueBack,
    QueueGet,
    QueueItems,
    QueueLeft,
    QueuePeek,
    QueuePut,
    QueueWhich,
)

_BUSY_SECONDS = 0.2  # before a put asks again that the server could not keep waiting


class QueueManager:
    """``Queue.objects``: making, listing and deleting named queues."""

    @dual
    async def create(
        self,
        name: str,
        *,
        allow_existing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Make a named queue. AlreadyExistsError when there is one, unless ``allow_existing``."""
        await shared.create("queue", name, allow_existing, environment_name, client)

    @dual
    async def list(
        self,
        *,
        max_objects: Optional[int] = None,
        created_before: Optional[Union[datetime, str]] = None,
        environment_name: str = "",
        client: Optional[Client] = None,
    ) -> List[Queue]:
        """The named queues, newest first."""
        return await shared.listed(Queue, max_objects, created_before, environment_name, client)

    @dual
    async def delete(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Delete a named queue with all it holds. NotFoundError when there is none, unless ``allow_missing``."""
        await shared.delete("queue", name, allow_missing, environment_name, client)


class Queue(shared.Shared):
    """Values of any picklable kind, first in, first out, within each partition."""

    _kind = "queue"
    _prefix = QUEUE

    @classproperty
    def objects(cls) -> QueueManager:  # noqa: N805  of the class
        """Making, listing and deleting named queues."""
        return QueueManager()

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        client: Optional[Client] = None,
    ) -> Queue:
        """The queue of this name, found or made at its first use."""
        return Queue._named(name, environment_name, create_if_missing, client)

    @staticmethod
    def from_id(queue_id: str, client: Optional[Client] = None) -> Queue:
        """The queue with this id."""
        return Queue._with_id(queue_id, client)

    @staticmethod
    @dual_context_function
    async def ephemeral(
        client: Optional[Client] = None, environment_name: Optional[str] = None, _heartbeat_sleep: float = 300
    ) -> AsyncIterator[Queue]:
        """A nameless queue that lives as long as the block. Functions may be given it as an argument."""
        via = client or default_client()
        info = await shared.new_nameless("queue", via, environment_name)
        keeper = Keeper(via, info.object_id, _heartbeat_sleep)
        try:
            yield Queue._found(info, via)
        finally:
            await keeper.end()

    @staticmethod
    def validate_partition_key(partition: Optional[str]) -> bytes:
        """The key of a partition as bytes; empty for the default one. InvalidError when it is too long or empty."""
        if partition is None:
            return b""
        if not isinstance(partition, str):
            raise errors.InvalidError(f"a partition of a queue is text, not {type(partition).__name__}")
        try:
            key = partition.encode()
        except UnicodeEncodeError as error:
            raise errors.InvalidError(f"{partition!r} cannot be a partition of a queue: {error.reason}") from None
        if not 1 <= len(key) <= PARTITION_KEY_MOST:
            raise errors.InvalidError(f"a partition of a queue has 1 to {PARTITION_KEY_MOST} bytes, not {len(key)}")
        return key

    @property
    def name(self) -> Optional[str]:
        """None for a nameless one."""
        return self._name

    @dual
    async def info(self) -> QueueInfo:
        """When and by whom it was made."""
        found = await self._info()
        return QueueInfo(name=found.name or None, created_at=moment(found.created_at), created_by=found.created_by)

    @dual
    async def get(
        self, block: bool = True, timeout: Optional[float] = None, *, partition: Optional[str] = None
    ) -> Optional[Any]:
        """Take the next value. None there: waits ``timeout`` seconds, then queue.Empty; None with block=False."""
        found = await self._take(1, block, timeout, partition)
        if found:
            return found[0]
        if not block:
            return None
        raise self._empty(timeout)

    @dual
    async def get_many(
        self, n_values: int, block: bool = True, timeout: Optional[float] = None, *, partition: Optional[str] = None
    ) -> List[Any]:
        """Take up to ``n_values``, waiting for the first as ``get`` does. An empty list with block=False."""
        if n_values <= 0:
            return []
        found = await self._take(n_values, block, timeout, partition)
        if not found and block:
            raise self._empty(timeout)
        return found

    @dual
    async def put(
        self,
        v: Any,
        block: bool = True,
        timeout: Optional[float] = None,
        *,
        partition: Optional[str] = None,
        partition_ttl: int = 86_400,
    ) -> None:
        """Add a value; queue.Full when there is no room within ``timeout`` seconds. A partition whose last put was
        ``partition_ttl`` seconds ago is cleared.
        """
        await self._put([v], block, timeout, partition, partition_ttl)

    @dual
    async def put_many(
        self,
        vs: List[Any],
        block: bool = True,
        timeout: Optional[float] = None,
        *,
        partition: Optional[str] = None,
        partition_ttl: int = 86_400,
    ) -> None:
        """Add several values, in order. Many travel in several messages: when queue.Full comes in the middle, it says
        how many were added.
        """
        await self._put(list(vs), block, timeout, partition, partition_ttl)

    @dual
    async def len(self, *, partition: Optional[str] = None, total: bool = False) -> int:
        """The number of values in a partition, or in all."""
        which = self._which(partition, total, "len", "total")
        client = await self._via()
        return (await client.call("queue.len", which(self.object_id), DictCount)).count

    @dual
    async def clear(self, *, partition: Optional[str] = None, all: bool = False) -> None:  # noqa: A002  the public word
        """Remove the values of a partition, or of all."""
        which = self._which(partition, all, "clear", "all")
        client = await self._via()
        await client.do("queue.clear", which(self.object_id))

    @dual_chunks
    def iterate(self, *, partition: Optional[str] = None, item_poll_timeout: float = 0.0) -> Chunks:
        """Look at the values without taking them; at the end, wait ``item_poll_timeout`` seconds for another."""
        return _Peeks(self, self.validate_partition_key(partition).decode(), item_poll_timeout)

    async def _take(self, count: int, block: bool, timeout: Optional[float], partition: Optional[str]) -> List[Any]:
        key = self.validate_partition_key(partition).decode()
        _check_timeout(timeout)
        client, request = await self._via(), shared.new_request("g")
        settled = shared.take_arrived(client)
        deadline = None if timeout is None or not block else time.monotonic() + timeout
        while True:
            wait = 0.0 if not block else None if deadline is None else max(0.0, deadline - time.monotonic())
            asked = QueueGet(self.object_id, request, min(count, PARTITION_MOST), key, wait, settled)
            stream = await client.open("queue.get", asked)
            found: List[Any] = []
            try:
                while True:
                    message = await stream.recv()
                    if message is None:
                        break
                    self._read(message, found)
            except LostError as lost:
                await client.after_loss(lost)
                continue
            except errors.Error:
                raise
            except BaseException:  # the caller was interrupted: what may have been taken for it goes back
                stream.leave()
                await client.open("queue.back", QueueBack(self.object_id, request))
                raise
            if found:
                shared.arrived(client, request)
            return found

    async def _put(
        self, vs: List[Any], block: bool, timeout: Optional[float], partition: Optional[str], partition_ttl: Any
    ) -> None:
        key = self.validate_partition_key(partition).decode()
        _check_timeout(timeout)
        if not isinstance(partition_ttl, (int, float)) or not 0 < partition_ttl <= PARTITION_TTL_MOST:
            raise errors.InvalidError(
                f"partition_ttl is more than 0 and at most {PARTITION_TTL_MOST} seconds (7 days), not {partition_ttl!r}"
            )
        pages = self._pages(vs)
        client = await self._via()
        deadline = time.monotonic() + timeout if block and timeout is not None else None
        put = 0
        for page in pages:
            asked = QueuePut(
                queue_id=self.object_id,
                sizes=tuple([len(data) for data in page]),
                request=shared.new_request("p"),
                partition=key,
                ttl=float(partition_ttl),
                need=0 if block or put else len(vs),
                settled=shared.take_arrived(client),
            )
            if not await self._put_page(client, asked, b"".join(page), block, deadline):
                raise self._full(put, len(vs), timeout if block else 0)
            put += len(page)

    async def _put_page(
        self, client: Client, asked: QueuePut, body: bytes, block: bool, deadline: Optional[float]
    ) -> bool:
        while True:
            wait = 0.0 if not block else None if deadline is None else max(0.0, deadline - time.monotonic())
            head, _ = await shared.ask(client, "queue.put", replace(asked, wait=wait), body)
            left = loads_head(QueueLeft, head)
            if not left.full:
                shared.arrived(client, asked.request)
                return True
            if not left.busy or (deadline is not None and time.monotonic() >= deadline):
                return False
            await sleep(_BUSY_SECONDS)

    def _pages(self, vs: List[Any]) -> List[List[bytes]]:
        """The values as bytes, as many at a time as travel in one message. Nothing is sent when one of them cannot."""
        pages: List[List[bytes]] = []
        size = 0
        for index, value in enumerate(vs):
            which = f" (number {index} of {len(vs)})" if len(vs) > 1 else ""
            data = payload.dumps_bytes(value, f"the value put into {self!r}{which}")
            if len(data) > ITEM_MOST:
                raise errors.RequestSizeError(
                    f"an item of a queue has at most {ITEM_MOST:,} bytes; this value{which} has {len(data):,}",
                    hint="put it into a Dict or a Volume, and its key or path into the queue",
                )
            if not pages or size + len(data) > PAGE_BYTES or len(pages[-1]) >= PAGE_VALUES:
                pages.append([])
                size = 0
            pages[-1].append(data)
            size += len(data)
        return pages

    def _read(self, message: Any, found: List[Any]) -> int:
        """Append the values of an answer; the number of the last one."""
        items = loads_head(QueueItems, message[0])
        at, what = 0, f"a value of {self!r}"
        for size in items.sizes:
            found.append(values.value(message[1][at : at + size], what))
            at += size
        return items.last

    def _which(self, partition: Optional[str], everything: bool, verb: str, word: str) -> Any:
        if partition is not None and everything:
            raise errors.InvalidError(
                f"Queue.{verb}() takes partition=… or {word}=True, not both", hint=f"{word}=True means every partition"
            )
        key = self.validate_partition_key(partition).decode()
        return lambda queue_id: QueueWhich(queue_id, key, everything)

    def _empty(self, timeout: Optional[float]) -> BaseException:
        import queue  # noqa: PLC0415  whoever only declares does without

        return queue.Empty(f"nothing came to {self!r} within {timeout:g} s" if timeout is not None else f"{self!r}")

    def _full(self, put: int, count: int, timeout: Optional[float]) -> BaseException:
        import queue  # noqa: PLC0415  whoever only declares does without

        after = f" within {timeout:g} s" if timeout else ""
        added = f" ({put} of {count} values were added)" if put else ""
        return queue.Full(f"there was no room in {self!r}{after}{added}: a partition holds {PARTITION_MOST:,} values")


class _Peeks:
    """Values of a queue, page by page, left where they are."""

    unread = ""

    def __init__(self, of: Queue, partition: str, seconds: float) -> None:
        self._of = of
        self._partition = partition
        self._seconds = max(0.0, seconds)
        self._after = -1

    async def more(self) -> Optional[List[Any]]:
        """The next values, None when no more came in time."""
        client = await self._of._via()  # noqa: SLF001  of this file
        asked = QueuePeek(self._of.object_id, self._partition, self._after, 0, self._seconds)
        message = await shared.ask(client, "queue.peek", asked)
        found: List[Any] = []
        last = self._of._read(message, found)  # noqa: SLF001  of this file
        if not found:
            return None
        self._after = last
        return found

    def close(self) -> None:
        """Nothing is under way between two pages."""


def _check_timeout(timeout: Optional[float]) -> None:
    if timeout is not None and timeout < 0:
        raise errors.InvalidError(f"timeout is 0 or more seconds, or None to wait for ever; not {timeout!r}")
