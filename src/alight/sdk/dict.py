"""A dictionary that functions and programs share, kept by the server. Keys are the same when their pickles are.

Values are copies: changing one that was fetched changes nothing there until it is put again.
"""

from __future__ import annotations

import io
import struct
from datetime import datetime
from typing import TYPE_CHECKING, Any, AsyncIterator, Iterable, List, Mapping, Optional, Tuple, Union

from alight.sdk import large, shared, values
from alight.sdk.client import Client, default_client
from alight.sdk.ephemeral import Keeper
from alight.sdk.lost import LostError
from alight.sdk.object import classproperty
from alight.sdk.reports import DictInfo
from alight.sdk.secret import moment
from alight.sdk.sync import Chunks, dual, dual_chunks, dual_context_function
from alight.wire import errors, payload
from alight.wire.calling import Payload
from alight.wire.codec import MAX_INLINE, Buffer, loads_head
from alight.wire.ids import DICT
from alight.wire.shared import (
    KEY_MOST,
    PAGE_BYTES,
    PAGE_VALUES,
    DictCount,
    DictKeys,
    DictPage,
    DictPut,
    DictScan,
    DictValue,
)

if TYPE_CHECKING:
    from alight.sdk.conversation import Stream

_MISSING: Any = object()
_ONE_PART = struct.Struct("!IQ")  # payload's own form
_PLAIN = (str, bytes, int, float, bool, type(None))
_TRIES = 5  # to fetch a large value that is replaced again and again


class DictManager:
    """``Dict.objects``: making, listing and deleting named dictionaries."""

    @dual
    async def create(
        self,
        name: str,
        *,
        allow_existing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Make a named dictionary. AlreadyExistsError when there is one, unless ``allow_existing``."""
        await shared.create("dict", name, allow_existing, environment_name, client)

    @dual
    async def list(
        self,
        *,
        max_objects: Optional[int] = None,
        created_before: Optional[Union[datetime, str]] = None,
        environment_name: str = "",
        client: Optional[Client] = None,
    ) -> List[Dict]:
        """The named dictionaries, newest first."""
        return await shared.listed(Dict, max_objects, created_before, environment_name, client)

    @dual
    async def delete(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Delete a named dictionary with all it holds. NotFoundError when there is none, unless ``allow_missing``."""
        await shared.delete("dict", name, allow_missing, environment_name, client)


class Dict(shared.Shared):
    """Keys and values of any picklable kind, shared by all functions that name it. An entry that nobody has used for 7
    days is removed.
    """

    _kind = "dict"
    _prefix = DICT

    @classproperty
    def objects(cls) -> DictManager:  # noqa: N805  of the class
        """Making, listing and deleting named dictionaries."""
        return DictManager()

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        client: Optional[Client] = None,
    ) -> Dict:
        """The dictionary of this name, found or made at its first use."""
        return Dict._named(name, environment_name, create_if_missing, client)

    @staticmethod
    def from_id(dict_id: str, client: Optional[Client] = None) -> Dict:
        """The dictionary with this id."""
        return Dict._with_id(dict_id, client)

    @staticmethod
    @dual_context_function
    async def ephemeral(
        *, client: Optional[Client] = None, environment_name: Optional[str] = None, _heartbeat_sleep: float = 300
    ) -> AsyncIterator[Dict]:
        """A nameless dictionary that lives as long as the block. Functions may be given it as an argument."""
        via = client or default_client()
        info = await shared.new_nameless("dict", via, environment_name)
        keeper = Keeper(via, info.object_id, _heartbeat_sleep)
        try:
            yield Dict._found(info, via)
        finally:
            await keeper.end()

    @property
    def name(self) -> Optional[str]:
        """None for a nameless one."""
        return self._name

    @dual
    async def info(self) -> DictInfo:
        """When and by whom it was made."""
        found = await self._info()
        return DictInfo(name=found.name or None, created_at=moment(found.created_at), created_by=found.created_by)

    @dual
    async def get(self, key: Any, default: Optional[Any] = None) -> Any:
        """The value of a key, or ``default``."""
        found = await self._get(key)
        return default if found is _MISSING else found

    @dual
    async def put(self, key: Any, value: Any, *, skip_if_exists: bool = False) -> bool:
        """Set a key. Returns whether it was set: always, unless ``skip_if_exists`` and it was there."""
        client = await self._via()
        return bool(await self._put(client, [await self._entry(client, key, value)], skip_if_exists))

    @dual
    async def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Take a key out and return its value. KeyError, or ``default``, when there is none."""
        client, request = await self._via(), shared.new_request("d")
        asked = DictKeys(self.object_id, request, shared.take_arrived(client))
        head, body = await shared.ask(client, "dict.pop", asked, key_bytes(key))
        value = loads_head(DictValue, head)
        if value.found:
            result = await self._value(client, value, body)
            shared.arrived(client, request)
            return result
        if default is _MISSING:
            raise KeyError(key)
        return default

    @dual
    async def contains(self, key: Any) -> bool:
        """Whether there is such a key."""
        return await self._has(key)

    @dual
    async def len(self) -> int:
        """The number of keys."""
        client = await self._via()
        return (await client.call("dict.len", DictKeys(self.object_id), DictCount)).count

    @dual
    async def clear(self) -> None:
        """Remove every key."""
        client, request = await self._via(), shared.new_request("d")
        await client.do("dict.clear", DictKeys(self.object_id, request, shared.take_arrived(client)))
        shared.arrived(client, request)

    @dual
    async def update(self, other: Optional[Mapping[Any, Any]] = None, /, **kwargs: Any) -> None:
        """Set several keys. Many travel in several messages; each is set whole, what comes after a failure is not."""
        client = await self._via()
        page: List[_Entry] = []
        size = 0
        for key, value in _pairs(other, kwargs):
            entry = await self._entry(client, key, value)
            page.append(entry)
            size += len(entry.key) + len(entry.value)
            if size >= PAGE_BYTES or len(page) >= PAGE_VALUES:
                await self._put(client, page, skip=False)
                page, size = [], 0
        if page:
            await self._put(client, page, skip=False)

    @dual_chunks
    def keys(self) -> Chunks:
        """Every key, in no order. What is set or removed meanwhile may be among them or not."""
        return _Scan(self, keys=True, values=False)

    @dual_chunks
    def values(self) -> Chunks:
        """Every value, in no order. What is set or removed meanwhile may be among them or not."""
        return _Scan(self, keys=False, values=True)

    @dual_chunks
    def items(self) -> Chunks:
        """Every key with its value, in no order. What is set or removed meanwhile may be among them or not."""
        return _Scan(self, keys=True, values=True)

    @dual
    async def __getitem__(self, key: Any) -> Any:
        """KeyError when there is none."""
        found = await self._get(key)
        if found is _MISSING:
            raise KeyError(key)
        return found

    @dual
    async def __setitem__(self, key: Any, value: Any) -> None:
        """Set a key."""
        await self.put.raw(key, value)

    @dual
    async def __delitem__(self, key: Any) -> None:
        """KeyError when there is none."""
        await self.pop.raw(key)

    @dual
    async def __contains__(self, key: Any) -> bool:
        """Whether there is such a key."""
        return await self._has(key)

    async def _get(self, key: Any) -> Any:
        client, data = await self._via(), key_bytes(key)
        for _ in range(_TRIES):
            head, body = await shared.ask(client, "dict.get", DictKeys(self.object_id), data)
            value = loads_head(DictValue, head)
            if not value.found:
                return _MISSING
            try:
                return await self._value(client, value, body)
            except errors.NotFoundError:
                continue  # it was replaced, and its blob is gone
        raise errors.ServiceError(f"the value of {key!r} is replaced faster than it can be fetched")

    async def _has(self, key: Any) -> bool:
        client = await self._via()
        head, _ = await shared.ask(client, "dict.contains", DictKeys(self.object_id), key_bytes(key))
        return bool(loads_head(DictCount, head).count)

    async def _value(self, client: Client, value: DictValue, body: bytes) -> Any:
        what = f"a value of {self!r}"
        if value.large:
            return await large.get_value(client, Payload(value.large, value.size), what)
        return values.value(body, what)

    async def _entry(self, client: Client, key: Any, value: Any) -> _Entry:
        data = key_bytes(key)
        parts = payload.dumps(value, f"the value for the key {key!r} of {self!r}")
        size = payload.size_of(parts)
        if size > MAX_INLINE:
            return _Entry(data, b"", await large.put_blob(client, parts), size)
        return _Entry(data, b"".join(parts), "", 0)

    async def _put(self, client: Client, entries: List[_Entry], skip: bool) -> int:
        request = shared.new_request("d")
        any_large = any(entry.large for entry in entries)
        asked = DictPut(
            dict_id=self.object_id,
            sizes=tuple([len(part) for entry in entries for part in (entry.key, entry.value)]),
            request=request,
            skip_if_exists=skip,
            large=tuple([entry.large for entry in entries]) if any_large else (),
            lengths=tuple([entry.size for entry in entries]) if any_large else (),
            settled=shared.take_arrived(client),
        )
        body = b"".join([part for entry in entries for part in (entry.key, entry.value)])
        head, _ = await shared.ask(client, "dict.put", asked, body)
        shared.arrived(client, request)
        return loads_head(DictCount, head).count


class _Scan:
    """Entries as they come, page by page; after a lost connection it goes on behind the last one."""

    unread = ""

    def __init__(self, of: Dict, *, keys: bool, values: bool) -> None:
        self._of = of
        self._keys = keys
        self._values = values
        self._after = 0
        self._client: Optional[Client] = None
        self._stream: Optional[Stream] = None

    async def more(self) -> Optional[List[Any]]:
        """The entries of the next page."""
        client = self._client = await self._of._via()  # noqa: SLF001  of this file
        while True:
            try:
                if self._stream is None:
                    asked = DictScan(self._of.object_id, self._after, self._keys, self._values)
                    self._stream = await client.open("dict.scan", asked)
                message = await self._stream.recv()
            except LostError as lost:
                self._stream = None
                await client.after_loss(lost)
                continue
            if message is None:
                self._stream = None
                return None
            page = loads_head(DictPage, message[0])
            self._after = page.last
            return await self._read(client, page, cut(page.sizes, message[1]))

    def close(self) -> None:
        """Nobody wants the rest."""
        if self._stream is not None:
            self._stream.leave()
            self._stream = None

    async def _read(self, client: Client, page: DictPage, pieces: List[Buffer]) -> List[Any]:
        key, value = f"a key of {self._of!r}", f"a value of {self._of!r}"
        if not self._values:
            return [values.value(data, key) for data in pieces]
        step = 2 if self._keys else 1
        found: List[Any] = []
        for index, data in enumerate(pieces[step - 1 :: step]):
            if page.large and page.large[index]:
                try:
                    one = await large.get_value(client, Payload(page.large[index], page.lengths[index]), value)
                except errors.NotFoundError:
                    continue  # it was replaced or removed meanwhile
            else:
                one = values.value(data, value)
            found.append((values.value(pieces[2 * index], key), one) if self._keys else one)
        return found


class _Entry:
    """One entry on its way to the server: its value, or the blob that has it."""

    __slots__ = ("key", "large", "size", "value")

    def __init__(self, key: bytes, value: bytes, large: str, size: int) -> None:
        self.key = key
        self.value = value
        self.large = large
        self.size = size


def key_bytes(key: Any) -> bytes:
    """A key as bytes. Equal plain keys have equal ones, whatever objects they are made of.

    Raises SerializationError, RequestSizeError.
    """
    data = _plain_key(key) if _is_plain(key) else payload.dumps_bytes(key, "the key of a Dict")
    if len(data) > KEY_MOST:
        raise errors.RequestSizeError(
            f"a key of a Dict has at most {KEY_MOST:,} bytes, and this one {len(data):,}",
            hint="use a digest of it as the key",
        )
    return data


def cut(sizes: Tuple[int, ...], body: bytes) -> List[Buffer]:
    """A body in its pieces."""
    pieces: List[Buffer] = []
    at = 0
    for size in sizes:
        pieces.append(body[at : at + size])
        at += size
    return pieces


def _is_plain(key: Any) -> bool:
    return type(key) in _PLAIN or (type(key) is tuple and all(_is_plain(one) for one in key))


def _plain_key(key: Any) -> bytes:
    # Without a memo: else ("a", "a") would depend on whether both are one object.
    import pickle  # noqa: PLC0415  whoever only declares does without

    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5)
    pickler.fast = True
    pickler.dump(key)
    stream = file.getvalue()
    return _ONE_PART.pack(1, len(stream)) + stream


def _pairs(other: Any, more: Mapping[str, Any]) -> Iterable[Tuple[Any, Any]]:
    if other is not None:
        yield from dict(other).items() if not isinstance(other, Mapping) else other.items()
    yield from more.items()
