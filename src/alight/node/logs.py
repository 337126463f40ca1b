"""Carrying containers' output files to the server, from where it acknowledged to where they end.

The spawner writes the files; this only reads. What was printed is on disk before anybody here sees it, so a slow server
or client never holds up user code. inotify tells when there is more.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from alight.node import output
from alight.wire.commands import Report

#: Bytes of one report, and bytes under way without an acknowledgement.
_CHUNK = 256 << 10
_WINDOW = 2 << 20
_LARGEST_RECORD = 64 << 20
#: Acknowledged bytes that are given back to the disk at once: a chatty container must not fill it.
_FREED = 8 << 20
#: Bytes a second that one container's output takes of the way to the server; what is more waits in its file.
_RATE = 32 << 20
_BURST = 0.5  # seconds of that at once

_IN_MODIFY = 0x2
_EVENT = struct.Struct("iIII")

Send = Callable[[Report, bytes], Awaitable[bool]]


class Inotify:
    """Calls back when a watched file was written to. Callbacks run in the loop."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}")
        self._callbacks: dict[int, Callable[[], None]] = {}
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def watch(self, path: Path, callback: Callable[[], None]) -> int:
        """Watch a file that exists; a number for ``forget``."""
        number = int(self._libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_MODIFY))
        if number < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
        self._callbacks[number] = callback
        return number

    def forget(self, number: int) -> None:
        if self._callbacks.pop(number, None) is not None:
            self._libc.inotify_rm_watch(self._fd, number)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 16384)
        except BlockingIOError:
            return
        seen: set[int] = set()
        offset = 0
        while offset < len(data):
            number, _, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            seen.add(number)
        for number in seen:
            callback = self._callbacks.get(number)
            if callback is not None:
                callback()


class OutputTail:
    """One container's output on its way. ``acked`` is what the server keeps already."""

    def __init__(self, container_id: str, path: Path, send: Send, acked: int = 0) -> None:
        self._id = container_id
        self._path = path
        self._send = send
        self._turn = asyncio.Lock()
        self._fd = -1
        self._planned: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.sent = acked
        self.acked = acked
        self._freed = 0
        self._due = 0.0  # on the loop's clock, when the next piece may go

    def notice(self, delay: float) -> None:
        """There is more, or there may be: send it within ``delay`` seconds."""
        if self._planned is None:
            self._planned = asyncio.get_running_loop().call_later(delay, self._begin)

    def on_ack(self, offset: int) -> None:
        """The server keeps everything before ``offset``."""
        blocked = self.sent - self.acked >= _WINDOW
        self.acked = max(self.acked, offset)
        self.sent = max(self.sent, self.acked)
        if self.acked - self._freed >= _FREED:
            self._free()
        if blocked:
            self.notice(0)

    def on_disconnected(self) -> None:
        """Begin again where the server's acknowledgements end."""
        self.sent = self.acked

    def begin_again(self) -> None:
        """The server could not keep what was sent since its last acknowledgement."""
        self.sent = self.acked
        self.notice(0)

    async def ship(self, until: int | None = None) -> None:
        """Send what there is; up to ``until``, or to the end. Returns early when the server is away.

        With ``until`` the window is not waited for: somebody's result waits for these lines.
        """
        async with self._turn:
            while until is None or self.sent < until:
                if until is None and (self.sent - self.acked >= _WINDOW or self._must_wait()):
                    return
                data = self._read(self.sent)
                if not data:
                    return
                before = self.sent
                self.sent += len(data)
                self._due += len(data) / _RATE
                if not await self._send(Report("log", self._id, offset=before), data):
                    self.sent = min(self.sent, before)
                    return

    def size(self) -> int:
        """Bytes of the file now; 0 when there is none."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        if self._planned is not None:
            self._planned.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _must_wait(self) -> bool:
        """Whether it has had its share for now; it goes on by itself."""
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now - _BURST)
        if self._due <= now:
            return False
        asyncio.get_running_loop().call_soon(self.notice, self._due - now)
        return True

    def _free(self) -> None:
        """Give back the blocks of what the server keeps. Offsets stay; a file system that cannot do it keeps them."""
        if self._fd >= 0:
            output.free(self._fd, 0, self.acked)
        self._freed = self.acked

    def _begin(self) -> None:
        self._planned = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self.ship())
        else:
            self.notice(0.02)

    def _read(self, offset: int) -> bytes:
        """Whole records from ``offset`` on."""
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return b""
                raise
        size = _CHUNK
        while True:
            data = os.pread(self._fd, size, offset)
            _, used = output.parse(data)
            if used or len(data) < size or size > _LARGEST_RECORD:
                return data[:used]
            size *= 4
