"""Content by digest between this machine and the server: trees, code, payloads too large for a frame."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path

from alight.link.peer import Stream
from alight.node.session import Session
from alight.wire import errors
from alight.wire.codec import PIECE
from alight.wire.messages import BlobGet, BlobPut


class Blobs:
    """The server's blobs, as seen from a node."""

    def __init__(self, session: Session) -> None:
        self._session = session

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

    async def put(self, fd: int, size: int) -> str:
        """Send an open file's first ``size`` bytes to the server; the digest that it got."""
        peer = await self._session.peer()
        stream = await peer.open("blob.put", BlobPut(size=size))
        offset = 0
        while offset < size:
            piece = await asyncio.to_thread(os.pread, fd, min(PIECE, size - offset), offset)
            if not piece:
                await stream.fail(errors.DataLossError("the file became shorter while it was read"))
                raise errors.DataLossError("a result's file became shorter while it was read")
            await stream.send(None, piece)
            offset += len(piece)
        await stream.end()
        return (await stream.expect(BlobPut)).digest

    async def _get(self, digest: str) -> Stream:
        peer = await self._session.peer()
        return await peer.open("blob.get", BlobGet(digest), end=True)


def _check(asked: str, got: str) -> None:
    if asked != got:
        raise errors.DataLossError(f"the server sent other content than {asked[:12]} for that name")
