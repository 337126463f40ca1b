"""Small blobs by the thousand: taken and given as packs, whose files are written and read in one visit to a thread."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from alight.server.disk import full_disk
from alight.server.services.blobs import Blobs
from alight.wire import errors
from alight.wire.codec import Buffer
from alight.wire.packs import PACKED_MOST, BlobPack, Packing, contents


class BlobPacks:
    """Many blobs of one folder at a time."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def put(self, pack: BlobPack, body: Buffer) -> None:
        """Keep each content under its digest. Raises DataLossError at the first that does not fit; those before stay.

        ResourceExhaustedError when the disk is full.
        """
        await asyncio.to_thread(self._put, pack, body)

    async def get(self, digests: Sequence[str]) -> AsyncIterator[tuple[BlobPack, bytes]]:
        """The contents in packs. Raises NotFoundError, RequestSizeError for one that is no small one."""
        waiting = iter(digests)
        while True:
            packing = await asyncio.to_thread(self._gather, waiting)
            if not packing:
                return
            yield packing.take()

    def _put(self, pack: BlobPack, body: Buffer) -> None:
        for digest, content in contents(pack, body):
            path = self._blobs.path(digest)
            if hashlib.sha256(content).hexdigest() != digest:
                raise errors.DataLossError(f"a file did not arrive as the {digest[:12]} that it was said to be")
            try:
                self._write(path, content)
            except OSError as error:
                raise full_disk(error, path.parent.parent) from error

    def _write(self, path: Path, content: Buffer) -> None:
        temporary = self._blobs.incoming / os.urandom(16).hex()
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                _write_all(fd, content)
            finally:
                os.close(fd)
            try:
                os.rename(temporary, path)
            except FileNotFoundError:
                path.parent.mkdir(exist_ok=True)
                os.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _gather(self, digests: Iterator[str]) -> Packing:
        packing = Packing()
        for digest in digests:
            packing.add(digest, self._read(digest))
            if packing.is_full:
                break
        return packing

    def _read(self, digest: str) -> bytes:
        try:
            fd = os.open(self._blobs.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise errors.NotFoundError(f"there is no blob {digest[:12]}… (any more)") from None
        try:
            content = os.read(fd, PACKED_MOST + 1)
        finally:
            os.close(fd)
        if len(content) > PACKED_MOST:
            raise errors.RequestSizeError(f"the blob {digest[:12]} is over {PACKED_MOST} bytes: it is read by itself")
        return content


def _write_all(fd: int, content: Buffer) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
