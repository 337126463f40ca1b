"""``.logs`` of apps, functions, classes, calls and servers: lines that were printed, and those that come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Coroutine, Dict, Optional, Tuple, Union

from alight.sdk.sync import dual_gen

if TYPE_CHECKING:
    from datetime import datetime

    from alight.sdk.client import Client
    from alight.sdk.reports import LogEntry
    from alight.wire.logs import LogPiece, LogQuery

    Moment = Union[datetime, float]
    About = Callable[[], Coroutine[Any, Any, Tuple[Client, str, LogQuery]]]


class Logs:
    """Lines of output. An entry is a line without its line feed; ``source`` is stdout, stderr, or system for what
    Alight did. ``context_ids`` has ``container_id``, ``function_id``, ``function_call_id`` and ``input_id``, as far as
    they are known.
    """

    def __init__(self, about: About) -> None:
        self._about = about

    @dual_gen
    async def fetch(
        self,
        *,
        since: Optional[Moment] = None,
        until: Optional[Moment] = None,
        source: Optional[str] = None,
        search_text: str = "",
    ) -> AsyncIterator[LogEntry]:
        """Lines between two moments, the oldest first; without them all that are kept. A moment without a time zone is
        local time. ``search_text``: only lines that hold it, in upper or lower case.

        Raises NotFoundError for what there is not, InvalidError for a source that there is not.
        """
        wanted: Dict[str, Any] = {"since": _seconds(since), "until": _seconds(until), "search": search_text}
        async for entry in self._entries(source, None, **wanted):
            yield entry

    @dual_gen
    async def tail(self, entries: int = 100, *, source: Optional[str] = None) -> AsyncIterator[LogEntry]:
        """The last lines, the oldest first."""
        async for entry in self._entries(source, None, tail=max(0, int(entries))):
            yield entry

    @dual_gen
    async def stream(self, timeout: Optional[float] = None) -> AsyncIterator[LogEntry]:
        """Lines as they come, until what prints them has ended, or for ``timeout`` seconds."""
        async for entry in self._entries(None, timeout, tail=0, follow=True):
            yield entry

    async def _entries(self, source: Optional[str], timeout: Optional[float], **wanted: Any) -> AsyncIterator[LogEntry]:
        from alight.sdk.lost import LostError  # noqa: PLC0415  who only declares does without
        from alight.wire.codec import loads_head  # noqa: PLC0415
        from alight.wire.errors import BuiltinTimeoutError  # noqa: PLC0415
        from alight.wire.logs import LogPieces  # noqa: PLC0415
        from alight.wire.record import replace  # noqa: PLC0415

        client, object_id, about = await self._about()
        query = replace(about, source=source or "", **wanted)
        until = None if timeout is None else time.monotonic() + timeout
        lines = _Lines(object_id)
        over = False
        while not over:
            stream = await client.open("logs.query", query)
            try:
                while True:
                    left = None if until is None else until - time.monotonic()
                    try:
                        message = await (stream.recv() if left is None else stream.recv_within(max(0.0, left)))
                    except BuiltinTimeoutError:
                        message = None
                    over = message is None
                    if message is None:
                        break
                    said = loads_head(LogPieces, message[0])
                    query = replace(query, after=said.cursor)
                    for piece, data in said.cut(message[1]):
                        for entry in lines.of(piece, data):
                            yield entry
            except LostError:
                continue  # from where it was: opening it waits for the server
            finally:
                stream.leave()
        for entry in lines.rest():
            yield entry


class _Lines:
    """Makes entries of pieces. What is unfinished waits for its rest."""

    def __init__(self, object_id: str) -> None:
        self._object_id = object_id
        self._held: Dict[Tuple[str, str], Tuple[LogPiece, bytes]] = {}

    def of(self, piece: LogPiece, data: bytes) -> Any:
        key = (piece.container, piece.source)
        held = self._held.pop(key, None)
        if held is not None:
            data = held[1] + data
        *whole, rest = data.split(b"\n")
        if rest:
            self._held[key] = (piece, rest)
        return [self._entry(piece, line) for line in whole]

    def rest(self) -> Any:
        return [self._entry(piece, line) for piece, line in self._held.values()]

    def _entry(self, piece: LogPiece, line: bytes) -> LogEntry:
        from datetime import datetime, timezone  # noqa: PLC0415

        from alight.sdk.reports import LogEntry  # noqa: PLC0415
        from alight.wire.ids import input_id  # noqa: PLC0415

        ran = input_id(piece.call, piece.input) if piece.call and piece.input >= 0 and piece.inputs == 1 else ""
        known = {
            "container_id": piece.container,
            "function_id": piece.function,
            "function_call_id": piece.call,
            "input_id": ran,
        }
        return LogEntry(
            line.decode(errors="replace"),
            datetime.fromtimestamp(piece.at, timezone.utc),
            piece.source,
            self._object_id,
            {name: one for name, one in known.items() if one},
        )


def _seconds(moment: Any) -> float:
    """Unix time of a datetime or of a number."""
    if moment is None:
        return 0.0
    return float(moment.timestamp() if hasattr(moment, "timestamp") else moment)
