"""Files of a volume on their way out: many small ones in one body, a large one in pieces, at the reader's pace.

A file is read as it was when it was opened: so many bytes and no more. When somebody wrote to it meanwhile, that is
said with its last byte, and the client decides whether to ask again.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from alight.link.peer import Stream
from alight.node import paths
from alight.node.volume_words import boot_id, explained, version_of
from alight.wire import errors
from alight.wire.codec import PIECE
from alight.wire.stored import VolumePath
from alight.wire.transfers import LARGE, Begun, Door, Failed, FetchAsk, Fetched, Wanted, name_in

_AT_ONCE = 4  # messages that are made per visit to another thread
_FILES = 512  # in one message
_ask_decoder = msgspec.json.Decoder(FetchAsk)


class _File(NamedTuple):
    number: int
    wanted: Wanted
    doors: bool


class _Open:
    __slots__ = ("at", "before", "fd", "number", "size")

    def __init__(self, number: int, fd: int, before: os.stat_result, at: int) -> None:
        self.number = number
        self.fd = fd
        self.before = before
        self.size = before.st_size
        self.at = at


async def fetch(stream: Stream, at: VolumePath, data: Callable[[str], Path]) -> None:
    """Serve one ``volume.fetch``."""
    reading = _Reading(data(at.volume_id))
    asking = asyncio.get_running_loop().create_task(_asks(stream, reading))
    try:
        while True:
            reading.news.clear()
            messages = await asyncio.to_thread(reading.next_messages)
            for head, body in messages:
                await stream.send(head, body)
            if messages:
                continue
            if asking.done():
                asking.result()
                if not reading.waits:
                    return
            await reading.news.wait()
    finally:
        asking.cancel()
        await asyncio.shield(asyncio.to_thread(reading.close))


async def _asks(stream: Stream, reading: _Reading) -> None:
    try:
        async for head, _ in stream:
            asked = _ask_decoder.decode(head)
            for wanted in asked.files:
                reading.ask(wanted, doors=asked.doors)
            reading.taken.extend(asked.taken)
            reading.news.set()
    finally:
        reading.ended = True
        reading.news.set()


class _Reading:
    """What was asked for and has not been sent. ``next_messages`` and ``close`` block: for one thread at a time."""

    def __init__(self, data: Path) -> None:
        self.news = asyncio.Event()
        self.taken: deque[int] = deque()
        self.ended = False
        self._root = paths.open_root(data)
        self._asked: deque[_File] = deque()
        self._next = 0
        self._open: _Open | None = None
        self._doors: dict[int, _Open] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def waits(self) -> bool:
        """Whether something is still to be sent, or lies open for the client."""
        return bool(self._asked or self._open or self.taken or (self._doors and not self.ended))

    def ask(self, wanted: Wanted, *, doors: bool) -> None:
        """One more file."""
        self._asked.append(_File(self._next, wanted, doors))
        self._next += 1

    def next_messages(self) -> list[tuple[Fetched, bytes]]:
        """Some more, in order; none when nothing is to be done."""
        made: list[tuple[Fetched, bytes]] = []
        with self._lock:
            while len(made) < _AT_ONCE and (self._asked or self._open or self.taken) and not self._closed:
                made.append(self._message())
        return made

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:  # a thread of ours may still be at it when its task was cancelled
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        for one in (self._open, *self._doors.values()):
            if one is not None:
                os.close(one.fd)
        self._open = None
        self._doors.clear()
        os.close(self._root)

    def _message(self) -> tuple[Fetched, bytes]:
        begun: list[Begun] = []
        doors: list[Door] = []
        parts: list[tuple[int, int]] = []
        ended: list[int] = []
        changed: list[int] = []
        failed: list[Failed] = []
        pieces: list[bytes] = []
        room, count = PIECE, 0

        def finish(one: _Open) -> None:
            ended.append(one.number)
            if version_of(os.fstat(one.fd)) != version_of(one.before):
                changed.append(one.number)
            os.close(one.fd)

        while self.taken:
            left = self._doors.pop(self.taken.popleft(), None)
            if left is not None:
                finish(left)
        while room > 0 and count < _FILES and (self._open or self._asked):
            if self._open is None:
                file = self._asked.popleft()
                count += 1
                try:
                    with explained(file.wanted.path):
                        self._open = self._begin(file)
                except errors.Error as error:
                    failed.append(Failed(file.number, str(error), isinstance(error, errors.NotFoundError)))
                    continue
                one = self._open
                begun.append(Begun(one.number, one.size, one.at, one.before.st_mode & 0o777, version_of(one.before)))
                if file.doors and one.size - one.at >= LARGE:
                    doors.append(Door(one.number, os.getpid(), one.fd, one.before.st_dev, one.before.st_ino, boot_id()))
                    self._doors[one.number] = one
                    self._open = None
                    continue
            one = self._open
            piece = os.pread(one.fd, min(room, one.size - one.at), one.at) if one.at < one.size else b""
            if piece:
                parts.append((one.number, len(piece)))
                pieces.append(piece)
                room -= len(piece)
                one.at += len(piece)
            if not piece or one.at == one.size:
                self._open = None
                finish(one)  # one that became shorter is a changed one
        message = Fetched(tuple(begun), tuple(doors), tuple(parts), tuple(ended), tuple(changed), tuple(failed))
        return message, pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _begin(self, file: _File) -> _Open:
        fd = paths.open_file(self._root, paths.relative(name_in(file.wanted.path)))
        found = os.fstat(fd)
        same = file.wanted.version == version_of(found) and file.wanted.offset <= found.st_size
        return _Open(file.number, fd, found, file.wanted.offset if same else 0)
