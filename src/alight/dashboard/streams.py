"""Answers that go on: what changed, what containers print, files of volumes. As events where a page listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec

from alight.dashboard import guard
from alight.dashboard.events import Topics
from alight.dashboard.reading import Asked
from alight.dashboard.seams import Said
from alight.wire import errors, moments
from alight.wire.logs import SOURCES, LogPieces, LogQuery
from alight.wire.stored import VolumePath

_encode = msgspec.json.encode
_QUIET = 15.0  # seconds after which a comment is sent, so that dead connections show
_AGAIN = b"retry: 1000\n\n"
_TAIL = 1000  # records of a log that a page begins with
_TAIL_MOST = 100_000
_REFUSAL_SECONDS = 0.25
_OPTIONS = {"app", "function", "call", "container", "environment", "source", "since", "until", "search", "tail", "all",
            "follow", "after"}  # fmt: skip
_FRESH, _GOING, _OVER = range(3)


def event(name: str, data: Any, number: str = "") -> bytes:
    """One server-sent event. JSON has no line ends in it."""
    first = f"id: {number}\n".encode() if number else b""
    return first + f"event: {name}\n".encode() + b"data: " + _encode(data) + b"\n\n"


def stream(pieces: AsyncIterator[bytes]) -> Said:
    """The answer that events come in. Proxies are told to pass them on at once."""
    return 200, guard.fields("text/event-stream; charset=utf-8", x_accel_buffering="no"), pieces


async def changes(topics: Topics, owner: str, csrf: str) -> AsyncIterator[bytes]:
    """What changed, as ``Topics`` tells it, for as long as somebody reads."""
    listener = topics.listen(owner)
    try:
        # Whoever comes back may have missed something: they look at all that they show.
        yield _AGAIN + event("hello", {"now": time.time(), "csrf": csrf})
        while not listener.closed:
            said = await listener.take(_QUIET)
            yield b": quiet\n\n" if said is None else event("changed", said)
    finally:
        listener.close()


async def logs(asked: Asked, headers: Mapping[str, str]) -> Said:
    """Lines of apps, functions, calls or containers. Whoever comes back goes on where they were (Last-Event-ID)."""
    unknown = sorted(set(asked.query) - _OPTIONS)
    if unknown:
        raise errors.InvalidError(
            f"there is no option {unknown[0][:40]!r}", hint=f"there are {', '.join(sorted(_OPTIONS))}"
        )
    tail = int(asked.number("tail", _TAIL))
    if not 0 <= tail <= _TAIL_MOST:
        raise errors.InvalidError(f"tail={tail} is not a number of lines up to {_TAIL_MOST}")
    source = asked.text("source")
    if source and source not in SOURCES:
        raise errors.InvalidError(f"source={source[:20]!r} is none: there is {', '.join(SOURCES)}")
    query = LogQuery(
        **{name: asked.text(name) for name in ("app", "function", "call", "container", "environment", "search")},
        source=source,
        since=_moment(asked, "since"),
        until=_moment(asked, "until"),
        tail=-1 if asked.flag("all") else tail,
        follow=asked.flag("follow"),
        after=headers.get("last-event-id", "") or asked.text("after"),
    )
    lines = _Lines(asked.ask.all(asked.who, "logs.query", query))
    await lines.begin()
    return stream(lines)


def _moment(asked: Asked, name: str) -> float:
    """Unix seconds, or what people type on the command line, in the server's time; 0 where it is absent."""
    text = asked.text(name)
    found = moments.read(text, time.time()) if text not in {"", "0"} else 0.0
    if found is None:
        raise errors.InvalidError(f"{name}={text[:40]!r} is no moment", hint=f"{moments.HINT}; or unix seconds")
    return found


class _Lines:
    """Output as events. A question that cannot be answered is said before the answer begins."""

    def __init__(self, messages: AsyncIterator[tuple[Any, bytes]]) -> None:
        self._messages = messages
        self._next: asyncio.Task[tuple[Any, bytes] | None] | None = None
        self._names: dict[str, str] = {}
        self._state = _FRESH

    async def begin(self) -> None:
        """Ask, and wait a moment for what may be wrong with the question. Raises what is."""
        self._next = asyncio.ensure_future(_first(self._messages))
        done, _ = await asyncio.wait({self._next}, timeout=_REFUSAL_SECONDS)
        if done and self._next.exception() is not None:
            await self._next

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> bytes:
        if self._state == _FRESH:
            self._state = _GOING
            return _AGAIN
        if self._state == _OVER:
            raise StopAsyncIteration
        while True:
            if self._next is None:
                self._next = asyncio.ensure_future(_first(self._messages))
            done, _ = await asyncio.wait({self._next}, timeout=_QUIET)
            if not done:
                return b": quiet\n\n"
            try:
                message = await self._next
            except errors.Error as error:
                self._state = _OVER
                return event("problem", {"error": errors.to_wire(error)})
            self._next = None
            if message is None:
                self._state = _OVER
                return event("end", {"text": ""})
            said, body = message
            piece = self._told(said, body)
            if said.ended:
                self._state = _OVER
                piece += event("end", {"text": said.ended})
            if piece:
                return piece

    async def aclose(self) -> None:
        """Nobody reads any more."""
        if self._next is not None and not self._next.done():
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        close = getattr(self._messages, "aclose", None)
        if close is not None:
            await close()

    def _told(self, said: LogPieces, body: bytes) -> bytes:
        self._names.update(said.functions)
        pieces = list(said.cut(body))
        told = []
        for number, (one, data) in enumerate(pieces, 1):
            line = {
                "at": one.at,
                "container_id": one.container,
                "function": self._names.get(one.function, ""),
                "function_id": one.function,
                "call_id": one.call,
                "input": one.input,
                "inputs": one.inputs,
                "source": one.source,
                "text": data.decode(errors="replace"),
            }
            # One goes on behind the whole message: what is cut off in the middle of it comes again.
            told.append(event("line", line, said.cursor if number == len(pieces) else ""))
        return b"".join(told)


async def download(asked: Asked) -> Said:
    """A file of a volume, for saving: never shown as a page, whatever is in it. Raises NotFoundError."""
    path = asked.text("path")
    if not path.strip("/"):
        raise errors.InvalidError("the path of a file is missing", hint="path=/folder/file")
    pieces = asked.ask.all(asked.who, "volume.read", VolumePath(asked.names[0], path, snapshot=asked.text("snapshot")))
    first = await _first(pieces)  # what is wrong with it is said before the answer begins
    name = PurePosixPath(path).name
    said = guard.fields("application/octet-stream", content_disposition=guard.attachment(name))
    return 200, said, _Pieces(first, pieces)


async def _first(pieces: AsyncIterator[tuple[Any, bytes]]) -> tuple[Any, bytes] | None:
    try:
        return await pieces.__anext__()
    except StopAsyncIteration:
        return None


class _Pieces:
    """The bytes of a file, the first of which is here. Closed even when nobody begins to read."""

    def __init__(self, first: tuple[Any, bytes] | None, rest: AsyncIterator[tuple[Any, bytes]]) -> None:
        self._first = first
        self._rest = rest

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            (_, body), self._first = self._first, None
            return bytes(body)
        return bytes((await self._rest.__anext__())[1])

    async def aclose(self) -> None:
        """Let go of the file."""
        close = getattr(self._rest, "aclose", None)
        if close is not None:
            await close()
