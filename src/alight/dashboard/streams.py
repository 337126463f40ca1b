"""Answers that go on: what changed, what containers print, files of volumes. As events where a page listens."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import PurePosixPath
from typing import Any

import msgspec

from alight.dashboard import guard
from alight.dashboard.events import Topics
from alight.dashboard.reading import Asked
from alight.dashboard.seams import Said
from alight.wire import errors
from alight.wire.messages import AppEvent, AppList, AppWatch
from alight.wire.starts import ContainerShow
from alight.wire.stored import VolumePath

_encode = msgspec.json.encode
_decode_event = msgspec.json.Decoder(AppEvent).decode
_QUIET = 15.0  # seconds after which a comment is sent, so that dead connections show
_AGAIN = b"retry: 1000\n\n"
_TAIL = 1000  # records of a log that a page begins with
_TAIL_MOST = 100_000
_SOURCES = {1: "stdout", 2: "stderr"}


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
    """What an app's containers, or one of them, print. Raises NotFoundError."""
    container = asked.text("container")
    app_id = asked.text("app")
    if container:
        shown = await asked.one("container.show", ContainerShow(container))
        app_id = shown.container.app_id
    elif app_id:
        listed = await asked.one("app.list", AppList(asked.text("environment"), 1, app_id))
        if not listed.apps:
            raise errors.NotFoundError(f"there is no app {app_id}", hint="`alight app list` shows those there are")
        app_id = listed.apps[0].app_id
    else:
        raise errors.InvalidError("whose output is wanted is missing", hint="app=ID or container=ID")
    tail = int(asked.number("tail", _TAIL))
    if not 0 <= tail <= _TAIL_MOST:
        raise errors.InvalidError(f"tail={tail} is not a number of lines up to {_TAIL_MOST}")
    since, _, after = headers.get("last-event-id", "").partition("-")
    watch = AppWatch(
        app_id,
        hold=False,
        follow=asked.flag("follow"),
        since=_moment(since) if after == "r" else asked.number("since"),
        tail=-1 if after == "r" else tail,
        container=container,
    )
    return stream(_printed(asked, watch))


def _moment(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


async def _printed(asked: Asked, watch: AppWatch) -> AsyncIterator[bytes]:
    yield _AGAIN
    try:
        async with aclosing(asked.ask.all(asked.who, "app.watch", watch)) as messages:  # type: ignore[type-var]
            async for message, body in messages:
                said = message if isinstance(message, AppEvent) else _decode_event(bytes(message))
                if said.kind == "output":
                    line = {"at": said.time, "container_id": said.container, "source": _SOURCES.get(said.fd, "stdout")}
                    text = body.decode(errors="replace")
                    yield event("line", {**line, "offset": said.offset, "text": text}, f"{said.time:.6f}-r")
                elif said.kind == "system":
                    words = {"at": said.time or time.time(), "container_id": said.container, "source": "system"}
                    yield event("line", {**words, "function": said.function, "text": said.text + "\n"})
                elif said.kind == "stopped":
                    yield event("end", {"text": said.text})
                    return
    except errors.Error as error:
        yield event("problem", {"error": errors.to_wire(error)})
        return
    yield event("end", {"text": ""})


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
