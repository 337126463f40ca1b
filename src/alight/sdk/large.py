"""Values too large for a frame, to the server and back.

Over a network they stream in pieces. Whoever shares the server's disk and could write in its state anyway leaves a file
there and reads files from there: one copy each way. Files may have been written by a container that still holds them
open, so that they are read and never mapped: one that became shorter under a mapping would end this process.
"""

from __future__ import annotations

import functools
import os
import stat
from typing import Any, List, Optional

from alight.sdk.client import Client
from alight.sdk.lost import LostError
from alight.wire import calling, errors, messages, payload, room
from alight.wire.codec import PIECE, Buffer, loads_head

_PART = 4 << 20


async def put_blob(client: Client, parts: List[Any], *, keep: bool = False) -> str:
    """Give bytes to the server; the name that they have there.

    ``keep``: they are on disk when this returns, for a call whose caller will not be there to send them again.
    """
    size = payload.size_of(parts)
    place = await client.place()
    if place.incoming:
        name = os.urandom(16).hex()
        path = os.path.join(place.incoming, name)
        if _write(path, parts, size):
            message = messages.BlobPut(size=size, file=name, keep=keep)
            try:
                return (await client.call("blob.put", message, messages.BlobPut)).digest
            except errors.InvalidError:
                _remove(path)  # taken already, and the connection lost with the answer: send it
    while True:
        stream = await client.open("blob.put", messages.BlobPut(size=size, keep=keep), end=False)
        try:
            for part in parts:
                view = memoryview(part).cast("B")
                for start in range(0, len(view), PIECE):
                    await stream.send(None, view[start : start + PIECE])
            stream.end()
            answer = await stream.recv()
        except LostError as lost:
            await client.after_loss(lost)
            continue
        if answer is None:
            raise errors.InternalError("the server ended an upload without an answer")
        return loads_head(messages.BlobPut, answer[0]).digest


async def get_value(client: Client, where: calling.Payload, what: str) -> Any:
    """The value in bytes of the server. Arrays arrive writable. Raises DeserializationError."""
    fd = await _open_given(client, where)
    if fd is None:
        return payload.loads(await _get_pieces(client, where), what)
    try:
        return payload.loads_by(functools.partial(_read, fd), where.size, what)
    finally:
        os.close(fd)


async def get_blob(client: Client, where: calling.Payload) -> Buffer:
    """Bytes of the server, writable."""
    fd = await _open_given(client, where)
    if fd is None:
        return await _get_pieces(client, where)
    try:
        whole: Buffer = _read(fd, 0, where.size, writable=True)
        return whole
    finally:
        os.close(fd)


async def _open_given(client: Client, where: calling.Payload) -> Optional[int]:
    """The file that holds a value of this size, where this process may go there itself."""
    place = await client.place()
    if not place.given or not where.blob.startswith("x"):
        return None
    try:
        path = os.path.join(place.given, os.path.basename(where.blob))
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size == where.size:
        return fd
    os.close(fd)
    return None


async def _get_pieces(client: Client, where: calling.Payload) -> Buffer:
    while True:
        data = room.writable(where.size)
        filled = 0
        try:
            stream = await client.open("blob.get", messages.BlobGet(where.blob))
            while True:
                message = await stream.recv()
                if message is None:
                    break
                end = filled + len(message[1])
                if end > where.size:
                    stream.leave()
                    break
                data[filled:end] = message[1]
                filled = end
        except LostError as lost:
            await client.after_loss(lost)
            continue
        if filled != where.size:
            raise errors.DataLossError(f"a value of {where.size} bytes came with {filled}")
        return data


def _write(path: str, parts: List[Any], size: int) -> bool:
    """Whether a new file holds the parts. False: there is no file."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, size)  # a full disk shows now, and writing is twice as fast
            for part in parts:
                view = memoryview(part).cast("B")
                while view:
                    view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
    except OSError:
        _remove(path)
        return False
    except BaseException:
        _remove(path)
        raise
    return True


def _read(fd: int, offset: int, size: int, writable: bool) -> Any:
    """A part of a file. Raises DataLossError when it became shorter."""

    def fill(start: int, view: memoryview) -> None:
        _fill(fd, offset + start, view)

    if writable:
        view = room.writable(size)
        room.fill_in(view, fill)
        return view
    if size < room.LARGE:
        data = os.pread(fd, size, offset)
        if len(data) == size:
            return data
    return room.new_bytes(size, fill)


def _fill(fd: int, offset: int, view: memoryview) -> None:
    while view:
        if hasattr(os, "preadv"):
            count = os.preadv(fd, [view], offset)
        else:  # two threads read at once: nothing may depend on where the file stands
            data = os.pread(fd, min(len(view), _PART), offset)
            count = len(data)
            view[:count] = data
        if not count:
            raise errors.DataLossError(f"the file of a large value ends {len(view)} bytes early")
        view, offset = view[count:], offset + count


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it was never there, or is the server's now
