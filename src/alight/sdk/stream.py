"""An append-only log that many readers follow: `alight.experimental.Stream`. Declared here; not there yet."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, AsyncIterator, Callable, List, Optional, Sequence

from alight.sdk.client import Client
from alight.sdk.object import classproperty
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_gen
from alight.wire.errors import ConflictError
from alight.wire.ids import check_name
from alight.wire.record import dataclass

_NOT_YET = "streams are not there yet"
_HOUR = timedelta(hours=1)


class IdempotencyConflict(ConflictError):
    """A key was used before, for another value."""

    code = "idempotency_conflict"


@dataclass(frozen=True)
class AppendResult:
    """Where a value went; ``deduped`` when it was there already."""

    seq: int
    deduped: bool


@dataclass(frozen=True)
class Entry:
    seq: int
    idempotency_key: Optional[str]
    kind: str
    value: Any
    ts: datetime


@dataclass(frozen=True)
class StreamInfo:
    name: str
    last_seq: int
    sealed: bool
    created_at: datetime
    last_written_at: Optional[datetime]
    expires_at: Optional[datetime]


@dataclass(frozen=True)
class StreamToken:
    token: str
    expires_at: datetime


class StreamWriter:
    """Appends in the background, in order."""

    @dual
    @unimplemented(f"StreamWriter.append would append in the background; {_NOT_YET}")
    async def append(self, value: Any, *, idempotency_key: Optional[str] = None) -> None:
        """Append, without waiting for it."""

    @dual
    @unimplemented(f"StreamWriter.flush would wait for what was appended; {_NOT_YET}")
    async def flush(self) -> None:
        """Wait for what was appended."""

    @dual
    @unimplemented(f"StreamWriter.close would flush and end; {_NOT_YET}")
    async def close(self) -> None:
        """Flush and end."""

    @dual
    @unimplemented(f"a StreamWriter would be a context manager; {_NOT_YET}")
    async def __enter__(self) -> StreamWriter:
        """Itself."""

    @dual
    @unimplemented(f"a StreamWriter would be a context manager; {_NOT_YET}")
    async def __exit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        """Flush and end."""

    @unimplemented(f"a StreamWriter would be a context manager; {_NOT_YET}")
    async def __aenter__(self) -> StreamWriter:  # noqa: PYI034  Self is not in Python 3.9
        """Itself."""

    @unimplemented(f"a StreamWriter would be a context manager; {_NOT_YET}")
    async def __aexit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        """Flush and end."""


class StreamObjects:
    """``Stream.objects``."""

    @dual
    @unimplemented(f"Stream.objects.delete would delete a stream; {_NOT_YET}")
    async def delete(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Delete a stream with all it holds."""


class Stream:
    """A log of values with numbers from 1."""

    def __init__(self) -> None:
        self._name = ""
        self._token: Optional[str] = None
        self._environment: Optional[str] = None
        self._create_if_missing = False
        self._retention: Optional[timedelta] = None
        self._client: Optional[Client] = None

    @classproperty
    def objects(cls) -> StreamObjects:  # noqa: N805  of the class
        """Deleting streams."""
        return StreamObjects()

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        retention: Optional[timedelta] = None,
        client: Optional[Client] = None,
    ) -> Stream:
        """The stream of this name, found or made at its first use."""
        made = Stream()
        made._name = check_name(name, "stream")
        made._environment, made._create_if_missing = environment_name, create_if_missing
        made._retention, made._client = retention, client
        return made

    @staticmethod
    def from_token(token: str, *, name: str) -> Stream:
        """The stream that a token is for."""
        made = Stream()
        made._name, made._token = check_name(name, "stream"), token
        return made

    @dual
    @unimplemented(f"Stream.info would describe a stream; {_NOT_YET}")
    async def info(self) -> StreamInfo:
        """What is known of it."""

    @dual
    @unimplemented(f"Stream.append would append a value; {_NOT_YET}")
    async def append(self, value: Any, *, idempotency_key: Optional[str] = None) -> AppendResult:
        """Append a value."""

    @dual
    @unimplemented(f"Stream.append_many would append several values; {_NOT_YET}")
    async def append_many(
        self, values: Sequence[Any], *, idempotency_keys: Optional[Sequence[str]] = None
    ) -> List[AppendResult]:
        """Append several values, in order."""

    @dual_gen
    @unimplemented(f"Stream.read would return entries; {_NOT_YET}")
    async def read(self, start: int = 1, *, follow: bool = False) -> AsyncIterator[Entry]:
        """Entries from ``start`` on; with ``follow`` also those to come."""
        yield  # type: ignore[misc]

    @dual
    @unimplemented(f"Stream[seq] would return an entry; {_NOT_YET}")
    async def __getitem__(self, seq: int) -> Entry:
        """One entry."""

    @unimplemented(f"Stream.writer would append in the background; {_NOT_YET}")
    def writer(
        self,
        *,
        on_written: Optional[Callable[[Any], Any]] = None,
        on_conflict: Optional[Callable[[Any], Any]] = None,
    ) -> StreamWriter:
        """A writer that appends in the background."""

    @dual
    @unimplemented(f"Stream.fork would copy a stream up to a number; {_NOT_YET}")
    async def fork(self, name: str, *, at: Optional[int] = None, retention: Optional[timedelta] = None) -> Stream:
        """A new stream that begins as this one."""

    @dual
    @unimplemented(f"Stream.seal would end a stream; {_NOT_YET}")
    async def seal(self) -> None:
        """Let nothing more be appended."""

    @dual
    @unimplemented(f"Stream.create_token would let others read or write; {_NOT_YET}")
    async def create_token(
        self,
        *,
        access: str = "write",
        ttl: timedelta = _HOUR,
        create_if_missing: bool = False,
        retention: Optional[timedelta] = None,
        sandbox: Any = None,
    ) -> StreamToken:
        """A token that lets others read or write for ``ttl``."""
