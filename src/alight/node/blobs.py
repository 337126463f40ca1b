"""Content by digest between this machine and the server: trees, code, payloads too large for a frame."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from alight.link.peer import Peer, Stream
from alight.link.stream import decode
from alight.node.session import Session
from alight.wire import errors
from alight.wire.codec import PIECE
from alight.wire.messages import BlobGet, BlobMissing, BlobPlace, BlobPut
from alight.wire.packs import TOGETHER, BlobPack, contents

log = logging.getLogger(__name__)
_AT_ONCE = 4 << 20  # bytes per visit to another thread


class Blobs:
    """The server's blobs, as seen from a node."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked: Peer | None = None
        self._found = BlobPlace()

    async def read(self, digest: str, limit: int = 64 << 20) -> bytes:
        """A small blob, checked. Raises DataLossError when its bytes are not what its name says."""
        pieces: list[bytes] = []
        size = 0
        async for _, body in await self._get(digest):
            size += len(body)
            if size > limit:
                raise errors.RequestSizeError(f"the blob {digest[:12]} is over {limit} bytes, which is too much here")
            pieces.append(body)
        content = b"".join(pieces)
        _check(digest, hashlib.sha256(content).hexdigest())
        return content

    async def fetch(self, digest: str, into: int, *, check: bool = True) -> int:
        """Write a blob to an open file; its size. The file holds rubbish when this raises.

        ``check=False`` for what is used once and not kept under its name: the server has checked it when it came, and
        hashing takes twice as long as writing.
        """
        running = hashlib.sha256()
        size = 0
        async for _, body in await self._get(digest):
            if check:
                running.update(body)
            view = memoryview(body)
            while view:
                view = view[os.write(into, view) :]
            size += len(body)
        if check:
            _check(digest, running.hexdigest())
        return size

    async def fetch_to(self, digest: str, path: Path) -> None:
        """Write a blob to a new file of our own, which appears whole or not at all."""
        new = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                await self.fetch(digest, fd)
            finally:
                os.close(fd)
            os.rename(new, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            raise

    async def fetch_small(self, digests: Sequence[str], folder: Path) -> bool:
        """Write many small blobs into a folder of our own, each under its digest, whole or not at all.

        False for a server that gives them one by one only. Raises DataLossError.
        """
        peer = await self._session.peer()
        for start in range(0, len(digests), TOGETHER):
            asked = BlobMissing(tuple(digests[start : start + TOGETHER]))
            stream = await peer.open("blob.get_many", asked, end=True)
            try:
                async for head, body in stream:
                    await asyncio.to_thread(_unpack, decode(BlobPack, head), body, folder)
            except errors.UnimplementedError:
                return False
        return True

    async def share(self, blob: str, folder: int, name: str) -> bool:
        """Where the server's disk is ours: give a blob that it named a second name in an open folder. False: fetch it.

        Only for the one container that the blob is for, which may then write to it.
        """
        place = await self._place()
        if not place.given or not blob.startswith("x"):
            return False
        try:
            os.link(os.path.join(place.given, os.path.basename(blob)), name, dst_dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False  # another file system, or gone: the server says which
        return True

    async def leave(self, path: Path, size: int) -> str:
        """Where the server's disk is ours: let it have a file as it lies. Its name there, "" when it has to be sent."""
        place = await self._place()
        if not place.incoming:
            return ""
        file = os.urandom(16).hex()
        left = os.path.join(place.incoming, file)
        try:
            os.link(path, left, follow_symlinks=False)
        except OSError:
            return ""
        try:
            peer = await self._session.peer()
            return (await peer.call("blob.put", BlobPut(size=size, file=file), BlobPut)).digest
        except errors.InvalidError as error:
            log.warning("the server did not take a file as it lies: %s", error)
            return ""
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left)  # the server has renamed it, or does not want it

    async def put(self, fd: int, size: int) -> str:
        """Send an open file's first ``size`` bytes to the server; the name that it got."""
        peer = await self._session.peer()
        stream = await peer.open("blob.put", BlobPut(size=size))
        offset = 0
        while offset < size:
            some = memoryview(await asyncio.to_thread(os.pread, fd, min(_AT_ONCE, size - offset), offset))
            if not some:
                await stream.fail(errors.DataLossError("the file became shorter while it was read"))
                raise errors.DataLossError("a result's file became shorter while it was read")
            for start in range(0, len(some), PIECE):
                await stream.send(None, some[start : start + PIECE])
            offset += len(some)
        await stream.end()
        return (await stream.expect(BlobPut)).digest

    async def _place(self) -> BlobPlace:
        """Where the server keeps blobs, as far as this machine shares its disk. Asked once per connection."""
        peer = await self._session.peer()
        if self._asked is not peer:
            try:
                self._found = await peer.call("blob.place", {}, BlobPlace)
            except errors.UnimplementedError:
                self._found = BlobPlace()  # an older server: values stream
            self._asked = peer
        return self._found

    async def _get(self, digest: str) -> Stream:
        peer = await self._session.peer()
        return await peer.open("blob.get", BlobGet(digest), end=True)


def _unpack(pack: BlobPack, body: bytes, folder: Path) -> None:
    for digest, content in contents(pack, body):
        _check(digest, hashlib.sha256(content).hexdigest())
        new = folder / f".{digest}.{os.urandom(4).hex()}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(fd, view) :]
            finally:
                os.close(fd)
            os.rename(new, folder / digest)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            raise


def _check(asked: str, got: str) -> None:
    if asked != got:
        raise errors.DataLossError(f"the server sent other content than {asked[:12]} for that name")
