"""Sending files into a volume: many in one stream, only what the volume lacks, from where an upload before broke.

A file is known by its SHA-256, which is taken before it is sent (in a thread, one page of files ahead of what is being
sent) and compared with what arrived. One that changed in between is sent once more. Nothing appears in the volume
before everything has arrived.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator, List, Optional, Sequence, Tuple

from alight.sdk import progress
from alight.sdk.client import Client
from alight.sdk.lost import LostError
from alight.sdk.source import Hashes
from alight.sdk.sync import Future, in_event_loop
from alight.sdk.volume_items import Item, look_of, make_readable, opened
from alight.wire import errors
from alight.wire.codec import PIECE, from_plain
from alight.wire.stored import VolumePath
from alight.wire.transfers import PAGE_BYTES, PAGE_FILES, Door, Offer, Uploaded, UploadNeed, UploadSay, name_out

_COPY_PIECE = 64 << 20
_CHECKED = 5000  # paths in one message

#: Told of bytes that need not be sent any more, be it because they were sent or because the volume has them.
OnBytes = Callable[[int], Any]


async def upload(
    client: Client, volume_id: str, items: Sequence[Item], *, force: bool, on_bytes: OnBytes = lambda count: None
) -> Uploaded:
    """Send files. Raises AlreadyExistsError before anything is sent, InvalidError for one that does not hold still."""
    if not items:
        return Uploaded()
    name = os.urandom(16).hex()
    kept: List[BinaryIO] = []
    try:
        for item in items:
            make_readable(item, kept)
        while True:
            try:
                return await _Sending(client, volume_id, items, on_bytes, name, force=force).run()
            except LostError as lost:
                await client.after_loss(lost)
    finally:
        for file in kept:
            file.close()


class _Sending:
    """One try."""

    def __init__(
        self, client: Client, volume_id: str, items: Sequence[Item], on_bytes: OnBytes, name: str, *, force: bool
    ) -> None:
        self._client = client
        self._at = VolumePath(volume_id, "/", force=force, upload=name)
        self._items = items
        self._on_bytes = on_bytes
        self._hashes = Hashes()
        self._numbered: List[Item] = []
        self._doors = client.target.role != "container" and not client.target.host
        self._parts: List[Tuple[int, bytes]] = []
        self._packed = 0
        self._stream: Any = None

    async def run(self) -> Uploaded:
        self._stream = await self._client.open("volume.upload", self._at, end=False)
        try:
            if not self._at.force:
                for start in range(0, len(self._items), _CHECKED):
                    paths = tuple(name_out(item.path) for item in self._items[start : start + _CHECKED])
                    await self._stream.send(UploadSay(check=paths))
                    await self._answer()
            await self._send_pages(_pages(self._items), fresh=False)
            wrong = await self._finish()
            names = ", ".join(repr(item) for item in wrong[:3])
            progress.current().note(f"changed while being uploaded, so sent again: {names}")
            await self._send_pages(_pages(wrong), fresh=True)
            wrong = await self._finish()
            self._stream.leave()
        except _Done as done:
            self._hashes.save()
            return done.result
        except BaseException:
            self._hashes.save()  # another try need not read everything again
            self._stream.leave()
            raise
        raise errors.InvalidError(
            f"{wrong[0]!r} changed while it was uploaded, twice", hint="upload it when nobody writes to it"
        )

    async def _send_pages(self, pages: Iterator[List[Item]], *, fresh: bool) -> None:
        ahead = self._hash_next(pages, fresh)
        while True:
            offered = await ahead
            if offered is None:
                return
            ahead = self._hash_next(pages, fresh)
            await self._send_page(*offered)

    async def _send_page(self, items: List[Item], offers: List[Offer]) -> None:
        first = len(self._numbered)
        self._numbered.extend(items)
        await self._stream.send(UploadSay(offers=tuple(offers), doors=self._doors))
        need = await self._answer()
        doors = {door.number: door for door in need.doors}
        for index, offset in enumerate(need.offsets):
            size = offers[index].size
            if offset < 0:
                self._on_bytes(size)
                continue
            self._on_bytes(offset)
            await self._send_file(first + index, offers[index], offset, doors.get(first + index))
        await self._flush()

    async def _send_file(self, number: int, offer: Offer, offset: int, door: Optional[Door]) -> None:
        item = self._numbered[number]
        if door is not None and isinstance(item.source, Path):
            right = await _in_thread(lambda: _write_through(door, item, offer, offset, self._on_bytes))
            if right is None:
                self._doors = False
            else:
                await self._stream.send(UploadSay(left=(number,)) if right else UploadSay(dropped=(number,)))
                return
        at = offset
        with opened(item) as file:
            file.seek(item.start + at)
            while at < offer.size:
                room = PIECE - self._packed
                piece = await _read(file, min(room, offer.size - at))
                if not piece:
                    await self._flush()
                    await self._stream.send(UploadSay(dropped=(number,)))
                    return
                self._parts.append((number, piece))
                self._packed += len(piece)
                at += len(piece)
                if self._packed >= PIECE or len(self._parts) >= PAGE_FILES:
                    await self._flush()

    async def _flush(self) -> None:
        if self._parts:
            parts, self._parts, packed, self._packed = self._parts, [], self._packed, 0
            body = parts[0][1] if len(parts) == 1 else b"".join(piece for _, piece in parts)
            await self._stream.send(UploadSay(parts=tuple((number, len(piece)) for number, piece in parts)), body)
            self._on_bytes(packed)

    async def _finish(self) -> List[Item]:
        """The files that have to be sent again. Raises _Done."""
        await self._stream.send(UploadSay(finish=True))
        return [self._numbered[number] for number in (await self._answer()).wrong]

    async def _answer(self) -> UploadNeed:
        message = await self._stream.recv()
        if message is None:
            raise errors.InternalError("the server ended an upload without an answer")
        plain = json.loads(message[0])
        if plain.get("done"):
            raise _Done(from_plain(Uploaded, plain))
        return from_plain(UploadNeed, plain)

    def _hash_next(self, pages: Iterator[List[Item]], fresh: bool) -> Future:
        """The next page's offers, made in a thread; None when there is no next page."""

        def work() -> Optional[Tuple[List[Item], List[Offer]]]:
            page = next(pages, None)
            if page is None:
                return None
            hashes = None if fresh else self._hashes
            return page, [_offer(item, hashes) for item in page]

        return _start(work)


class _Done(Exception):
    def __init__(self, result: Uploaded) -> None:
        super().__init__()
        self.result = result


def _pages(items: Sequence[Item]) -> Iterator[List[Item]]:
    page: List[Item] = []
    size = 0
    for item in items:
        page.append(item)
        size += _size_now(item)
        if len(page) >= PAGE_FILES or size >= PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


def _size_now(item: Item) -> int:
    if not isinstance(item.source, Path):
        return PAGE_BYTES // 16
    try:
        return item.source.stat().st_size
    except OSError:
        return 0  # whoever reads it says why


def _offer(item: Item, hashes: Optional[Hashes]) -> Offer:
    with opened(item) as file:
        if isinstance(item.source, Path):
            status = os.fstat(file.fileno())
            item.seen = look_of(status)
            mode = item.mode if item.mode is not None else status.st_mode & 0o777
            if hashes is not None:
                digest = hashes.of(item.source, status)
                return Offer(name_out(item.path), status.st_size, digest, mode)
        else:
            mode = item.mode if item.mode is not None else 0o644
        file.seek(item.start)
        running = hashlib.sha256()
        size = 0
        while True:
            piece = file.read(PIECE)
            if not piece:
                return Offer(name_out(item.path), size, running.hexdigest(), mode)
            running.update(piece)
            size += len(piece)


def _write_through(door: Door, item: Item, offer: Offer, offset: int, on_bytes: OnBytes) -> Optional[bool]:
    """Copy a file to where it waits on this machine: whether it still is as it was offered. None: it cannot be done.

    The kernel copies, and shares blocks where the filesystem can: that nothing has changed since the digest was taken
    is seen by the file's times, not by hashing it once more.
    """
    target = open_door(door, os.O_WRONLY)
    if target is None:
        return None
    try:
        with opened(item) as file:
            source, at = file.fileno(), offset
            while at < offer.size:
                count = copy_some(source, target, at, min(_COPY_PIECE, offer.size - at))
                if not count:
                    break
                at += count
                on_bytes(count)
            return at == offer.size and look_of(os.fstat(source)) == item.seen
    except OSError:
        return None  # a full disk, most likely: the machine says it in its own words
    finally:
        os.close(target)


def copy_some(source: int, target: int, at: int, size: int) -> int:
    """Bytes of one file to the same place of another; how many it was, 0 at the end. The kernel copies where it
    can, and the two share their blocks where the filesystem can.
    """
    try:
        return os.copy_file_range(source, target, size, at, at)
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
            raise
    view = memoryview(os.pread(source, min(size, 4 << 20), at))
    done = 0
    while done < len(view):
        done += os.pwrite(target, view[done:], at + done)
    return done


def open_door(door: Door, flags: int) -> Optional[int]:
    """The file that another process of this machine holds open, where the kernel lets us; else None."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            if file.read().strip() != door.boot:
                return None
        fd = os.open(f"/proc/{door.process}/fd/{door.fd}", flags | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(fd)
    if (found.st_dev, found.st_ino) == (door.device, door.inode):
        return fd
    os.close(fd)
    return None


async def _read(file: Any, size: int) -> bytes:
    piece: bytes = await _in_thread(lambda: file.read(size)) if in_event_loop() else file.read(size)
    return piece


async def _in_thread(work: Callable[[], Any]) -> Any:
    return await _start(work)


def _start(work: Callable[[], Any]) -> Future:
    future = Future()

    def run() -> None:
        try:
            future.set(work())
        except BaseException as error:  # noqa: BLE001  it is raised where it is awaited
            future.set(error=error)

    threading.Thread(target=run, name="alight-upload", daemon=True).start()
    return future
