"""Files of a volume brought here: many in one stream, a large one on from where an earlier try ended.

A file is written beside its target and renamed when it is whole, so that a broken transfer leaves no half file under
its name; what came of a large one stays there, named by its version, for the next try.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from pathlib import Path
from typing import Any, AsyncGenerator, Deque, Dict, Iterable, List, Optional, Tuple

from alight.sdk.client import Client
from alight.sdk.lost import LostError
from alight.sdk.volume_upload import OnBytes, copy_some, open_door
from alight.wire import errors
from alight.wire.codec import loads_head
from alight.wire.stored import VolumeFile, VolumeFiles, VolumePath
from alight.wire.transfers import (
    LARGE,
    PAGE_BYTES,
    PAGE_FILES,
    Begun,
    Door,
    FetchAsk,
    Fetched,
    Wanted,
    name_in,
    name_out,
)

_COPY = 16 << 20
_PART = ".alight-part"


async def entries(client: Client, volume_id: str, path: str, *, recursive: bool) -> AsyncGenerator[VolumeFile, None]:
    """What lies at a path of a volume, as the machine comes across it: never all of it in memory."""
    at = VolumePath(volume_id, name_out(path or "/"), recursive=recursive)
    stream = await client.open("volume.files", at)
    while True:
        message = await stream.recv()
        if message is None:
            return
        for file in loads_head(VolumeFiles, message[0]).files:
            yield VolumeFile(name_in(file.path), file.kind, file.size, file.mtime, file.version)


async def pieces(client: Client, volume_id: str, path: str) -> AsyncGenerator[bytes, None]:
    """The bytes of one file. Goes on after a lost connection; ConnectionError when it is another file by then."""
    at, version = 0, ""
    while True:
        try:
            stream = await client.open("volume.fetch", VolumePath(volume_id), end=False)
            await stream.send(FetchAsk(files=(Wanted(name_out(path), at, version),)))
            stream.end()
            while True:
                message = await stream.recv()
                if message is None:
                    return
                came = loads_head(Fetched, message[0])
                for failed in came.failed:
                    kind = errors.NotFoundError if failed.missing else errors.InvalidError
                    raise kind(failed.reason)
                for begun in came.begun:
                    if begun.offset != at:
                        raise errors.ConnectionError(f"the connection was lost, and {path!r} has changed since")
                    version = begun.version
                if message[1]:
                    at += len(message[1])
                    yield message[1]
        except LostError as lost:
            await client.after_loss(lost)


class Target:
    """A file to be fetched, and where it is to lie."""

    __slots__ = ("again", "begun", "failed", "fd", "file", "part", "path")

    def __init__(self, file: VolumeFile, path: Path) -> None:
        self.file = file
        self.path = path
        self.fd = -1
        self.begun: Optional[Begun] = None
        self.part: Optional[Path] = None
        self.again = False
        self.failed = ""


async def fetch(
    client: Client, volume_id: str, targets: Iterable[Target], *, on_bytes: OnBytes = lambda count: None
) -> List[Target]:
    """Bring files here. Returns those that could not be (``failed``) or that changed while they were read (``again``).

    Directories must be there. A file that changed is fetched a second time before it is taken as it comes.
    """
    wanted: Deque[Target] = deque(targets)
    odd: List[Target] = []
    doors = client.target.role != "container" and not client.target.host
    while wanted:
        try:
            await _Fetching(client, volume_id, wanted, odd, on_bytes, doors=doors).run()
        except LostError as lost:
            await client.after_loss(lost)
        except _NoDoors:
            doors = False
    return odd


class _NoDoors(Exception):
    """The kernel does not let us: everything streams."""


class _Fetching:
    """One connection's share. What is done has left ``wanted``; what broke stays at its beginning."""

    def __init__(
        self,
        client: Client,
        volume_id: str,
        wanted: Deque[Target],
        odd: List[Target],
        on_bytes: OnBytes,
        *,
        doors: bool,
    ) -> None:
        self._client = client
        self._at = VolumePath(volume_id)
        self._wanted = wanted
        self._odd = odd
        self._on_bytes = on_bytes
        self._doors = doors
        self._asked: Dict[int, Target] = {}
        self._next = 0
        self._stream: Any = None

    async def run(self) -> None:
        self._stream = await self._client.open("volume.fetch", self._at, end=False)
        try:
            while self._wanted or self._asked:
                await self._ask()
                await self._take(*await self._message())
            self._stream.end()
        except BaseException:
            self._stream.leave()
            for target in self._asked.values():
                _put_down(target)
            self._wanted.extendleft(reversed(list(self._asked.values())))
            raise

    async def _message(self) -> Tuple[Fetched, memoryview]:
        message = await self._stream.recv()
        if message is None:
            raise errors.ServiceError("the server ended a transfer before all files had come")
        return loads_head(Fetched, message[0]), memoryview(message[1])

    async def _ask(self) -> None:
        """Keep the machine busy: ask for another page while few files are under way."""
        under_way = sum(target.file.size for target in self._asked.values())
        if not self._wanted or len(self._asked) >= PAGE_FILES or under_way >= PAGE_BYTES:
            return
        page: List[Wanted] = []
        while self._wanted and len(page) < PAGE_FILES and (under_way < PAGE_BYTES or not page):
            target = self._wanted.popleft()
            under_way += target.file.size
            self._asked[self._next] = target
            self._next += 1
            page.append(Wanted(name_out(target.file.path), _come_already(target), target.file.version))
        await self._stream.send(FetchAsk(files=tuple(page), doors=self._doors))

    async def _take(self, came: Fetched, body: memoryview) -> None:
        for failed in came.failed:
            target = self._asked.pop(failed.number)
            target.failed = failed.reason
            self._odd.append(target)
        for begun in came.begun:
            _begin(self._asked[begun.number], begun)
            self._on_bytes(begun.offset)
        at = 0
        for number, count in came.parts:
            _write(self._asked[number].fd, body[at : at + count])
            at += count
        self._on_bytes(at)
        for door in came.doors:
            target = self._asked[door.number]
            if not _copy_through(door, target, self._on_bytes):
                raise _NoDoors
            await self._stream.send(FetchAsk(taken=(door.number,)))
        for number in came.ended:
            self._end(self._asked.pop(number), changed=number in came.changed)

    def _end(self, target: Target, *, changed: bool) -> None:
        begun, part = target.begun, target.part
        assert begun is not None
        assert part is not None
        short = os.fstat(target.fd).st_size < begun.size
        if (changed or short) and not target.again:
            target.again = True
            _put_down(target, keep=False)
            self._wanted.append(target)
            return
        os.fchmod(target.fd, (begun.mode | 0o600) & ~_umask())
        os.replace(part, target.path)
        os.close(target.fd)  # last: until here nobody else may go on in it
        target.fd = -1
        if changed or short:
            self._odd.append(target)


def _come_already(target: Target) -> int:
    """Bytes that an earlier try has left."""
    if target.file.size < LARGE or not target.file.version or target.again:
        return 0
    try:
        return _part_of(target, target.file.version).stat().st_size
    except OSError:
        return 0


def _begin(target: Target, begun: Begun) -> None:
    target.begun = begun
    target.part = _part_of(target, begun.version)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    target.fd = os.open(target.part, flags, 0o600)
    if not _lock(target.fd):  # another fetch of the same file to the same place is under way
        os.close(target.fd)
        target.part = target.path.with_name(f".{os.urandom(8).hex()}{_PART}")
        target.fd = os.open(target.part, flags, 0o600)
        if begun.offset:
            _copy_start(_part_of(target, begun.version), target.fd, begun.offset)
    os.ftruncate(target.fd, begun.offset)
    os.lseek(target.fd, begun.offset, os.SEEK_SET)


def _lock(fd: int) -> bool:
    try:
        import fcntl  # noqa: PLC0415  not everywhere
    except ImportError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _copy_start(source: Path, fd: int, size: int) -> None:
    """What has come of a file, for who cannot go on in the same one."""
    with source.open("rb") as file:
        while size:
            piece = file.read(min(size, _COPY))
            if not piece:
                raise errors.ConnectionError(f"{source} was taken away while it was read: try again")
            _write(fd, memoryview(piece))
            size -= len(piece)


def _part_of(target: Target, version: str) -> Path:
    mark = hashlib.sha256(f"{target.path.name}\0{version}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return target.path.with_name(f".{mark}{_PART}")


def _put_down(target: Target, *, keep: bool = True) -> None:
    """Stop writing. What has come of a large file stays."""
    if target.fd >= 0:
        size = os.fstat(target.fd).st_size
        os.close(target.fd)
        target.fd = -1
        if target.part is not None and (not keep or size < LARGE):
            target.part.unlink()


def _write(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]


def _copy_through(door: Door, target: Target, on_bytes: OnBytes) -> bool:
    """Copy a file that the machine, which is this one, holds open. False: it cannot be opened."""
    source = open_door(door, os.O_RDONLY)
    if source is None:
        return False
    begun = target.begun
    assert begun is not None
    try:
        at = begun.offset
        while at < begun.size:
            count = copy_some(source, target.fd, at, min(_COPY, begun.size - at))
            if not count:
                break
            at += count
            on_bytes(count)
    finally:
        os.close(source)
    return True


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
