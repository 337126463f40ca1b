"""Content by its SHA-256, in a folder: user files, large arguments and results, pickled functions.

A blob is whole or not there: bytes go to a temporary file that gets its name only when the digest fits. Knowing a
digest is the right to read it (256 bits nobody guesses), which is why digests of user values never leave the app they
belong to.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from pathlib import Path
from typing import Any, AsyncIterator, Iterable, Tuple

from alight.server.disk import full_disk
from alight.wire import errors
from alight.wire.codec import PIECE

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """A folder of blobs. Safe for many at once; two who put the same content both succeed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"

    def open(self) -> None:
        """Make the folder, and drop what a killed server left half-written."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        for leftover in self._incoming.iterdir():
            leftover.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where a blob lies (or would lie). Raises InvalidError for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise errors.InvalidError(f"{digest!r} is not the SHA-256 of a blob")
        return self._folder / digest[:2] / digest

    def missing(self, digests: Iterable[str]) -> Tuple[str, ...]:
        """Of these, those that are not here, each once, in the order asked."""
        return tuple(digest for digest in dict.fromkeys(digests) if not self.path(digest).exists())

    async def put(self, pieces: AsyncIterator[Tuple[bytes, bytes]], digest: str = "") -> Tuple[str, int]:
        """Keep the bodies of a stream as one blob. Returns digest and size.

        Raises DataLossError when the bytes are not those of ``digest``, ResourceExhaustedError when the disk is full.
        """
        temporary = self._incoming / os.urandom(16).hex()
        hashed, size = hashlib.sha256(), 0
        try:
            with temporary.open("xb", buffering=0) as file:
                async for _head, body in pieces:
                    if not body:
                        continue
                    size += len(body)
                    # Hashing and writing leave the loop free for others only when they take long.
                    if len(body) > 64 << 10:
                        await asyncio.to_thread(_take, hashed, file, body)
                    else:
                        _take(hashed, file, body)
            found = hashed.hexdigest()
            _check(digest, found, size)
            path = self.path(found)
            path.parent.mkdir(exist_ok=True)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise full_disk(error, self._folder) from error
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return found, size

    async def read(self, digest: str) -> AsyncIterator[bytes]:
        """The content in pieces. Raises NotFoundError."""
        try:
            file = self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise errors.NotFoundError(f"there is no blob {digest[:12]}… (any more)") from None
        with file:
            while True:
                piece = await asyncio.to_thread(file.read, PIECE)
                if not piece:
                    return
                yield piece


def _check(asked: str, found: str, size: int) -> None:
    if asked and asked != found:
        raise errors.DataLossError(f"an upload of {size} bytes did not arrive as it was sent: send it again")


def _take(hashed: Any, file: Any, body: bytes) -> None:
    hashed.update(body)
    view = memoryview(body)
    while view:
        view = view[file.write(view) :]
