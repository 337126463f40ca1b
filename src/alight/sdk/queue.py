"""A queue that every container shares, in partitions. Declared here; it is kept by the server (not there yet)."""

from __future__ import annotations

from datetime import datetime
from typing import Any, AsyncIterator, List, Optional, Union

from alight.sdk.client import Client
from alight.sdk.object import Object, classproperty
from alight.sdk.reports import QueueInfo
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_context_function, dual_gen
from alight.wire.errors import InvalidError, UnimplementedError
from alight.wire.ids import check_name

_NOT_YET = "shared queues are not there yet"
_KEY_MOST = 64


class QueueManager:
    """``Queue.objects``: making, listing and deleting named queues."""

    @dual
    @unimplemented(f"Queue.objects.create would make a named queue; {_NOT_YET}")
    async def create(
        self,
        name: str,
        *,
        allow_existing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Make a named queue."""

    @dual
    @unimplemented(f"Queue.objects.list would list named queues; {_NOT_YET}")
    async def list(
        self,
        *,
        max_objects: Optional[int] = None,
        created_before: Optional[Union[datetime, str]] = None,
        environment_name: str = "",
        client: Optional[Client] = None,
    ) -> List[Queue]:
        """The named queues, newest first."""

    @dual
    @unimplemented(f"Queue.objects.delete would delete a named queue; {_NOT_YET}")
    async def delete(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Delete a named queue with all it holds."""


class Queue(Object):
    """Values of any picklable kind, first in, first out, within each partition."""

    def __init__(self) -> None:
        super().__init__()
        self._name: Optional[str] = None
        self._environment: Optional[str] = None
        self._create_if_missing = False

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
        made = Queue()
        made._name = check_name(name, "queue")
        made._environment = environment_name
        made._create_if_missing = create_if_missing
        made._client = client
        return made

    @staticmethod
    def from_id(queue_id: str, client: Optional[Client] = None) -> Queue:
        """The queue with this id."""
        made = Queue()
        made._object_id, made._client = queue_id, client
        return made

    @staticmethod
    @dual_context_function
    @unimplemented(f"Queue.ephemeral would make a queue for one block; {_NOT_YET}")
    async def ephemeral(
        client: Optional[Client] = None, environment_name: Optional[str] = None, _heartbeat_sleep: float = 300
    ) -> AsyncIterator[Queue]:
        """A nameless queue that lives as long as the block."""
        yield Queue()

    @staticmethod
    def validate_partition_key(partition: Optional[str]) -> bytes:
        """The key of a partition as bytes; empty for the default one. InvalidError when it is too long or empty."""
        if partition is None:
            return b""
        key = partition.encode()
        if not 1 <= len(key) <= _KEY_MOST:
            raise InvalidError(f"a partition of a queue has 1 to {_KEY_MOST} bytes, not {len(key)}")
        return key

    @property
    def name(self) -> Optional[str]:
        """None for a nameless one."""
        return self._name

    @dual
    @unimplemented(f"Queue.info would say when and by whom it was made; {_NOT_YET}")
    async def info(self) -> QueueInfo:
        """When and by whom it was made."""

    @dual
    @unimplemented(f"Queue.get would take the next value; {_NOT_YET}")
    async def get(
        self, block: bool = True, timeout: Optional[float] = None, *, partition: Optional[str] = None
    ) -> Optional[Any]:
        """Take the next value. None there: waits ``timeout`` seconds, then queue.Empty; None with block=False."""

    @dual
    @unimplemented(f"Queue.get_many would take several values; {_NOT_YET}")
    async def get_many(
        self, n_values: int, block: bool = True, timeout: Optional[float] = None, *, partition: Optional[str] = None
    ) -> List[Any]:
        """Take up to ``n_values``, waiting for the first as ``get`` does."""

    @dual
    @unimplemented(f"Queue.put would add a value; {_NOT_YET}")
    async def put(
        self,
        v: Any,
        block: bool = True,
        timeout: Optional[float] = None,
        *,
        partition: Optional[str] = None,
        partition_ttl: int = 86_400,
    ) -> None:
        """Add a value; queue.Full when there is no room within ``timeout`` seconds."""

    @dual
    @unimplemented(f"Queue.put_many would add several values; {_NOT_YET}")
    async def put_many(
        self,
        vs: List[Any],
        block: bool = True,
        timeout: Optional[float] = None,
        *,
        partition: Optional[str] = None,
        partition_ttl: int = 86_400,
    ) -> None:
        """Add several values, in order."""

    @dual
    @unimplemented(f"Queue.len would count the values; {_NOT_YET}")
    async def len(self, *, partition: Optional[str] = None, total: bool = False) -> int:
        """The number of values in a partition, or in all."""

    @dual
    @unimplemented(f"Queue.clear would remove the values; {_NOT_YET}")
    async def clear(self, *, partition: Optional[str] = None, all: bool = False) -> None:  # noqa: A002  the public word
        """Remove the values of a partition, or of all."""

    @dual_gen
    @unimplemented(f"Queue.iterate would look at the values without taking them; {_NOT_YET}")
    async def iterate(self, *, partition: Optional[str] = None, item_poll_timeout: float = 0.0) -> AsyncIterator[Any]:
        """Look at the values without taking them."""
        yield

    async def _load(self, client: Client) -> str:
        raise UnimplementedError(f"the Queue {self._name!r} cannot be looked up: {_NOT_YET}")

    def __repr__(self) -> str:
        return f"Queue({self._name!r})" if self._name else "Queue(…)"
