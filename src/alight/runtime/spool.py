"""Values too large for a frame, as files in the directory that container and node share."""

from __future__ import annotations

import mmap
import os

from alight.wire import chunk, payload, room
from alight.wire.errors import DataLossError, RemoteError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List


def loads(spool: str, reference: bytes, what: str) -> Any:
    """The value that the reference names. Arrays are in a private mapping: no copy, and they may be changed."""
    name, size = chunk.read_reference(reference)
    with open(os.path.join(spool, os.path.basename(name)), "rb") as file:
        descriptor = file.fileno()
        mapped: List[memoryview] = []

        def read(offset: int, length: int, writable: bool) -> Any:
            if not writable:
                if length < room.LARGE:
                    data = os.pread(descriptor, length, offset)
                    if len(data) == length:
                        return data
                return room.new_bytes(length, lambda start, view: _fill(descriptor, offset + start, view))
            if not mapped:
                mapped.append(memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)))
            return mapped[0][offset : offset + length]

        return payload.loads_by(read, size, what)


def _fill(descriptor: int, offset: int, view: memoryview) -> None:
    while view:
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise DataLossError(f"the file of a large value ends {len(view)} bytes early")
        view, offset = view[count:], offset + count


def write(spool: str, name: str, parts: Any, function: str) -> bytes:
    """Write the parts of a value into a file, whole or not at all.

    Returns the reference. RemoteError when there is no space.
    """
    size = sum(memoryview(part).nbytes for part in parts)
    try:
        _write(os.path.join(spool, name), parts, size)
    except OSError as error:
        sentence = f"the result of {function}() ({size} bytes) could not be kept: {error.strerror}"
        raise RemoteError(sentence, hint="free some disk space") from None
    return chunk.reference(name, size)


def _write(path: str, parts: Any, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)  # writing is twice as fast, and fails at once
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                view = view[os.write(descriptor, view) :]
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
