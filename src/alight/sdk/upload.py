"""Contents on their way to the server: what it lacks, small ones together, large ones by themselves."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any, Deque, Iterator, List, Mapping, NoReturn, Tuple, Union

from alight.sdk.client import Client
from alight.sdk.lost import LostError
from alight.wire import errors, messages
from alight.wire.codec import PIECE
from alight.wire.packs import PACKED_MOST, Packing
from alight.wire.spec import digest_of

if TYPE_CHECKING:
    from alight.sdk.conversation import Stream

_AT_ONCE = 16
_MISSING_AT_ONCE = 2_000

Content = Union[bytes, str]  # the bytes, or the path of the file that holds them


class Upload:
    """One run's contents by digest. What breaks on the way is sent again; what the server has is not."""

    def __init__(self, client: Client, contents: Mapping[str, Content]) -> None:
        self._client = client
        self._contents = contents

    async def run(self) -> int:
        """Send what the server does not hold yet; returns how many bytes that was.

        Raises InvalidError, naming the file, for one that cannot be read or that changes meanwhile.
        """
        missing = await self._missing()
        small = [digest for digest in missing if self._size(digest) <= PACKED_MOST]
        sent = await self._send_small(small) if len(small) > 1 else -1
        if sent >= 0:
            kept = set(small)
            missing = [digest for digest in missing if digest not in kept]
        return max(sent, 0) + await self._send_each(missing)

    async def _missing(self) -> List[str]:
        digests = list(self._contents)
        missing: List[str] = []
        for start in range(0, len(digests), _MISSING_AT_ONCE):
            part = tuple(digests[start : start + _MISSING_AT_ONCE])
            answer = await self._client.call("blob.missing", messages.BlobMissing(part), messages.BlobMissing)
            missing += answer.digests
        return missing

    async def _send_small(self, digests: List[str]) -> int:
        """How many bytes; -1 when this server takes them one by one only."""
        while True:
            stream = await self._client.open("blob.put_many", {}, end=False)
            try:
                sent = 0
                for head, body in self._packs(digests):
                    await stream.send(head, body)
                    sent += len(body)
                stream.end()
                await stream.recv()
                return sent
            except LostError as lost:
                await self._client.after_loss(lost)
            except errors.UnimplementedError:
                return -1
            except errors.InvalidError:
                stream.leave()
                raise

    def _packs(self, digests: List[str]) -> Iterator[Tuple[Any, bytes]]:
        packing = Packing()
        for digest in digests:
            packing.add(digest, self._read(digest))
            if packing.is_full:
                yield packing.take()
        if packing:
            yield packing.take()

    def _read(self, digest: str) -> bytes:
        """A small content, as it was when its digest was taken."""
        content = self._contents[digest]
        if isinstance(content, bytes):
            return content
        try:
            with open(content, "rb") as file:
                found = file.read()
        except OSError as error:
            _unreadable(content, error)
        if digest_of(found) != digest:
            _changed(content)
        return found

    async def _send_each(self, digests: List[str]) -> int:
        sent = 0
        under_way: Deque[Tuple[str, Stream]] = deque()
        for digest in digests:
            if len(under_way) >= _AT_ONCE:
                await self._finish(*under_way.popleft())
            stream, size = await self._send(digest)
            sent += size
            under_way.append((digest, stream))
        while under_way:
            await self._finish(*under_way.popleft())
        return sent

    async def _send(self, digest: str) -> Tuple[Stream, int]:
        while True:
            stream = await self._client.open("blob.put", messages.BlobPut(digest), end=False)
            try:
                size = 0
                for piece in self._pieces(digest):
                    await stream.send(None, piece)
                    size += len(piece)
                stream.end()
                return stream, size
            except LostError as lost:
                await self._client.after_loss(lost)
            except errors.InvalidError:
                stream.leave()
                raise

    def _pieces(self, digest: str) -> Iterator[bytes]:
        content = self._contents[digest]
        if isinstance(content, bytes):
            yield content
            return
        try:
            with open(content, "rb") as file:
                yield from iter(lambda: file.read(PIECE), b"")
        except OSError as error:
            _unreadable(content, error)

    async def _finish(self, digest: str, stream: Stream) -> None:
        try:
            await stream.recv()
        except LostError as lost:
            await self._client.after_loss(lost)
            again, _ = await self._send(digest)
            await self._finish(digest, again)
        except errors.DataLossError:
            content = self._contents[digest]
            if isinstance(content, str):
                _changed(content)
            raise

    def _size(self, digest: str) -> int:
        content = self._contents[digest]
        if isinstance(content, bytes):
            return len(content)
        try:
            return os.stat(content).st_size
        except OSError as error:
            _unreadable(content, error)


def _changed(path: str) -> NoReturn:
    raise errors.InvalidError(f"{path} changed while it was being uploaded", hint="run again when it is still")


def _unreadable(path: str, error: OSError) -> NoReturn:
    raise errors.InvalidError(f"{path} could not be read: {error.strerror}") from error
