"""Dicts: what is set is on disk before its caller hears of it. Keys and values are bytes; equal keys are equal bytes.

A change that is sent again under its request id is done once. Large values are blobs that their rows refer to; the
store notes which lost their row, and they are deleted when nobody can still be reading them.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from alight.server.services.blobs import Blobs
from alight.server.services.dict_pages import cut, last_of_page
from alight.server.services.shared_store import KEPT, SharedStore
from alight.store.base import Row, Statement, Store
from alight.wire import errors
from alight.wire.codec import MAX_INLINE
from alight.wire.shared import KEY_MOST, PAGE_VALUES, DictKeys, DictPage, DictPut, DictScan, DictValue

_REQUEST = re.compile(r"d[0-9a-f]{32}")
_BLOB = re.compile(r"x[0-9a-f]{64}")
_UNUSED = 7 * 86_400.0  # seconds that an entry lives after its last use
_TOUCH = 3_600.0  # a use is written down when the last one was so long ago


class Settles(Protocol):
    """Who is told which answers have arrived: of both kinds, for a client has one list of them."""

    async def settle(self, requests: Sequence[str]) -> None: ...

    def settle_now(self, requests: Sequence[str]) -> bool: ...


class Dicts:
    """Verbs on what dicts hold. Whether the caller may use the dict was decided before."""

    def __init__(self, shared: SharedStore, blobs: Blobs, settles: Settles) -> None:
        self._shared = shared
        self._settles = settles
        self._blobs = blobs

    async def get(self, dict_id: str, key: bytes) -> tuple[DictValue, bytes]:
        """The value of a key."""
        store = await self._shared.get()
        row = await store.one("dict_get", dict_id=dict_id, key=key)
        if row is None:
            return DictValue(), b""
        _touch(store, dict_id, key, row["used_at"])
        return _value(row)

    def get_now(self, dict_id: str, key: bytes, then: Callable[[DictValue | None, bytes], None]) -> bool:
        """``get`` once the store is open: ``then`` has the answer, or None where ``get`` has to say what is wrong.
        False: nothing was done.
        """
        store = self._shared.opened
        if store is None:
            return False

        def read(rows: list[Row], error: errors.Error | None) -> None:
            if error is not None:
                then(None, b"")
            elif not rows:
                then(DictValue(), b"")
            else:
                _touch(store, dict_id, key, rows[0]["used_at"])
                then(*_value(rows[0]))

        store.read_then("dict_get", read, dict_id=dict_id, key=key)
        return True

    async def contains(self, dict_id: str, key: bytes) -> bool:
        """Whether there is such a key."""
        store = await self._shared.get()
        row = await store.one("dict_has", dict_id=dict_id, key=key)
        if row is not None:
            _touch(store, dict_id, key, row["used_at"])
        return row is not None

    async def put(self, asked: DictPut, body: bytes) -> int:
        """Set entries, all or none; how many were set. Raises InvalidError, RequestSizeError."""
        _check_request(asked.request)
        entries = _entries(asked, body)
        store = await self._shared.get()
        for entry in entries:
            if entry["large"]:
                await self._blobs.keep(str(entry["large"]))
        await self._settles.settle(asked.settled)
        now = time.time()
        query = "dict_add" if asked.skip_if_exists else "dict_set"
        done = {"request": asked.request, "dict_id": asked.dict_id, "now": now}
        rows = [{**entry, "dict_id": asked.dict_id, "now": now} for entry in entries]
        if len(rows) == 1:
            statements: list[Statement] = [(query, rows[0]), ("dict_done", done)]
        else:
            statements = [("dict_done", done), (query, rows)]
        try:
            counts = await store.write(statements)
        except errors.AlreadyExistsError:
            return await self._done_before(store, asked.request, asked.dict_id)
        return counts[0] if len(rows) == 1 else counts[1]

    def put_now(self, asked: DictPut, body: bytes, then: Callable[[int | None], None]) -> bool:
        """``put`` of one small entry, whatever was there: ``then`` is told how many were set, or None where
        ``put`` has to say what became of it. False, or raises: nothing was done.
        """
        _check_request(asked.request)
        store = self._shared.opened
        if store is None or asked.skip_if_exists or asked.large or len(asked.sizes) != 2:
            return False
        entries = _entries(asked, body)
        if not self._settles.settle_now(asked.settled):
            return False
        now = time.time()
        which = {"dict_id": asked.dict_id, "now": now}
        statements = [("dict_set", {**entries[0], **which}), ("dict_done", {"request": asked.request, **which})]
        store.write_now(statements, lambda error: then(1 if error is None else None))
        return True

    async def pop(self, asked: DictKeys, key: bytes) -> tuple[DictValue, bytes]:
        """Take an entry out."""
        _check_request(asked.request)
        store = await self._shared.get()
        await self._settles.settle(asked.settled)
        which = {"dict_id": asked.dict_id, "key": key}
        answer = {**which, "request": asked.request, "now": time.time()}
        try:
            await store.write([("dict_pop_answer", answer), ("dict_remove", which)])
        except errors.AlreadyExistsError:
            pass  # it was popped before, and the answer was lost
        row = await store.one("shared_request", request=asked.request)
        if row is None or row["object_id"] != asked.dict_id:
            return DictValue(), b""
        return _value(row)

    async def count(self, dict_id: str) -> int:
        """How many entries there are."""
        row = await (await self._shared.get()).one("dict_count", dict_id=dict_id)
        return int(row["count"]) if row is not None else 0

    async def clear(self, asked: DictKeys) -> None:
        """Remove every entry."""
        _check_request(asked.request)
        store = await self._shared.get()
        await self._settles.settle(asked.settled)
        done = {"request": asked.request, "dict_id": asked.dict_id, "now": time.time()}
        try:
            await store.write([("dict_done", done), ("dict_clear", {"dict_id": asked.dict_id})])
        except errors.AlreadyExistsError:
            return  # done before: what was put since stays

    async def scan(self, asked: DictScan) -> AsyncIterator[tuple[DictPage, bytes]]:
        """Entries in pages, in the order in which they were first set. Each is read when its turn comes."""
        store = await self._shared.get()
        after, left = asked.after, asked.limit
        while True:
            limit = min(left, PAGE_VALUES) if asked.limit else PAGE_VALUES
            sizes = await store.read("dict_sizes", dict_id=asked.dict_id, after=after, limit=limit)
            if not sizes:
                return
            last = last_of_page(sizes, keys=asked.keys, values=asked.values)
            query = "dict_entries" if asked.values else "dict_keys"
            rows = await store.read(query, dict_id=asked.dict_id, after=after, last=last)
            yield _page(asked, rows, last)
            after, left = last, left - len(rows)
            if asked.limit and left <= 0:
                return

    async def delete(self, dict_id: str) -> None:
        """Remove all that a dict holds."""
        if not self._shared.exists:
            return
        store = await self._shared.get()
        await store.write([("dict_clear", {"dict_id": dict_id}), ("shared_requests_of_drop", {"object_id": dict_id})])

    async def blobs(self) -> set[str]:
        """Blobs that must stay."""
        if not self._shared.exists:
            return set()
        return {row["blob"] for row in await (await self._shared.get()).read("dict_blobs")}

    async def clean(self, now: float, alive: set[str]) -> None:
        """Remove what nobody has used for long, what deleted dicts left, and blobs that no row refers to."""
        if not self._shared.exists:
            return
        store = await self._shared.get()
        # A reader that was told of the blob may still be on its way to it; a pop may be asked again.
        for row in await store.read("dict_garbage_old", before=now - 2 * KEPT):
            self._blobs.let_go(row["blob"])
            await store.write([("dict_garbage_drop", {"blob": row["blob"]})], urgent=False)
        await self._shared.expire(now)
        await store.write([("dict_unused", {"before": now - _UNUSED})], urgent=False)
        for row in await store.read("dict_ids"):
            if row["object_id"] not in alive:
                await self.delete(row["object_id"])

    async def _done_before(self, store: Store, request: str, dict_id: str) -> int:
        row = await store.one("shared_request", request=request)
        if row is None or row["object_id"] != dict_id:
            raise errors.ServiceError("this request was answered long ago: make a new one")
        return int(row["count"])


def _touch(store: Store, dict_id: str, key: bytes, used_at: float) -> None:
    now = time.time()
    if used_at < now - _TOUCH:
        store.write_soon([("dict_touch", {"dict_id": dict_id, "key": key, "now": now})], relaxed=True)


def _value(row: Row) -> tuple[DictValue, bytes]:
    return DictValue(True, row["large"], row["length"]), row["value"] or b""


def _page(asked: DictScan, rows: list[Row], last: int) -> tuple[DictPage, bytes]:
    parts: list[bytes] = []
    for row in rows:
        if asked.keys:
            parts.append(row["key"])
        if asked.values:
            parts.append(row["value"])
    large, lengths = (), ()
    if asked.values and any(row["large"] for row in rows):
        large = tuple(row["large"] for row in rows)
        lengths = tuple(row["length"] for row in rows)
    return DictPage(last, tuple(len(part) for part in parts), large, lengths), b"".join(parts)


def _entries(asked: DictPut, body: bytes) -> list[dict[str, object]]:
    count, odd = divmod(len(asked.sizes), 2)
    if odd or not count or min(asked.sizes) < 0 or sum(asked.sizes) != len(body):
        raise errors.InvalidError("the sizes of a put do not fit what came")
    if len(asked.large) not in {0, count} or len(asked.lengths) != len(asked.large):
        raise errors.InvalidError("a put names one blob an entry, or none")
    pieces = cut(asked.sizes, body)
    entries: list[dict[str, object]] = []
    for index in range(count):
        key, value = pieces[2 * index], pieces[2 * index + 1]
        large, length = (asked.large[index], asked.lengths[index]) if asked.large else ("", 0)
        if len(key) > KEY_MOST:
            raise errors.RequestSizeError(f"a key of a dict has at most {KEY_MOST:,} bytes, not {len(key):,}")
        if len(value) > MAX_INLINE:
            raise errors.RequestSizeError(f"a value of {len(value):,} bytes does not travel in a message")
        if large and not _BLOB.fullmatch(large):
            raise errors.InvalidError(f"{large!r} is not the name of a large value")
        entries.append({"key": key, "value": value, "large": large, "length": length})
    return entries


def _check_request(request: str) -> None:
    if not _REQUEST.fullmatch(request):
        raise errors.InvalidError("the id of a request is a letter and 32 hexadecimal digits")
