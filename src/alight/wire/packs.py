"""Many small blobs as few messages: their contents one after the other, and a head that says where each ends.

A message a file costs more than the file itself when there are thousands of them: a user's source tree on its way to
the server, and from there to a machine.
"""

from __future__ import annotations

from typing import Iterator, List, Tuple

from alight.wire.codec import PIECE, Buffer
from alight.wire.errors import InvalidError
from alight.wire.record import dataclass

#: Bytes of a content that travels packed; larger ones have a stream of their own.
PACKED_MOST = 64 << 10
#: Contents in one pack.
TOGETHER = 1000


@dataclass(frozen=True)
class BlobPack:
    """blob.put_many: a stream of these, then END → {}. blob.get_many (args: BlobMissing) ⇉ these.

    Body: the contents, one after the other. One that does not fit its digest is DataLossError, and is not kept.
    """

    digests: Tuple[str, ...] = ()
    sizes: Tuple[int, ...] = ()


class Packing:
    """Gathers contents into packs that are worth a message."""

    def __init__(self) -> None:
        self._digests: List[str] = []
        self._sizes: List[int] = []
        self._bodies: List[bytes] = []
        self._held = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to ``take``."""
        return self._held >= PIECE - PACKED_MOST or len(self._digests) >= TOGETHER

    def __bool__(self) -> bool:
        return bool(self._digests)

    def add(self, digest: str, content: bytes) -> None:
        """One more content, of at most ``PACKED_MOST`` bytes."""
        self._digests.append(digest)
        self._sizes.append(len(content))
        self._bodies.append(content)
        self._held += len(content)

    def take(self) -> Tuple[BlobPack, bytes]:
        """Head and body of what was gathered; begins anew."""
        pack, body = BlobPack(tuple(self._digests), tuple(self._sizes)), b"".join(self._bodies)
        self.__init__()  # type: ignore[misc]  # as new
        return pack, body


def contents(pack: BlobPack, body: Buffer) -> Iterator[Tuple[str, Buffer]]:
    """Digest and content of each. Raises InvalidError for a head that does not fit its body."""
    if len(pack.digests) != len(pack.sizes) or sum(pack.sizes) != len(body) or min(pack.sizes, default=0) < 0:
        raise InvalidError("a pack of files does not hold what its head says")
    view = memoryview(body)
    start = 0
    for digest, size in zip(pack.digests, pack.sizes):
        yield digest, view[start : start + size]
        start += size
