"""Who needs a blob: what functions, versions of apps and images are made of, and calls whose values are large.

Nothing is counted, so nothing can be counted wrongly: now and then all that refers to blobs is read, and what nobody
refers to and nobody has asked for in a while goes. The while covers those who have sent a blob and not yet said what
it is for.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable

from alight.server.services.blobs import Blobs
from alight.server.settings import Settings
from alight.store.base import Store
from alight.wire import chunk, errors

log = logging.getLogger(__name__)

_DIGEST = re.compile(r'"([0-9a-f]{64})"')
_TREE_MOST = 256 << 20  # bytes: no list of files is longer
_EVERY = 3600.0  # seconds between sweeps
_UNCLAIMED = 86_400.0  # seconds that a large value may be nobody's: it is on its way to the call that it is of


def digests_in(text: str) -> set[str]:
    """Every word of a JSON text that could be the name of a blob: one too many costs a little room."""
    return set(_DIGEST.findall(text))


class BlobUsers:
    """What is needed of the blobs, and the end of the rest. ``claimed``: others that know of large values of theirs."""

    def __init__(self, store: Store, blobs: Blobs, settings: Settings) -> None:
        self._store = store
        self._blobs = blobs
        self._settings = settings
        self.claimed: list[Callable[[], Awaitable[Iterable[str]]]] = []
        self._next = 0.0

    async def files(self, now: float) -> set[str]:
        """Digests that functions of living apps, versions to go back to and images in use are made of, with all files
        of their trees.
        """
        texts = [str(row["spec"]) for row in await self._store.read("function_specs_alive")]
        texts += [str(row["specs"]) for row in await self._store.read("deployment_specs_kept")]
        since = now - self._settings.images_kept
        texts += [str(row["spec"]) for row in await self._store.read("image_specs_used", since=since)]
        needed: set[str] = set()
        for text in texts:
            needed |= digests_in(text)
        for digest in sorted(needed):
            needed |= digests_in(await self._tree(digest))
        return needed

    async def values(self) -> set[str]:
        """Names of the large arguments and results of calls, and of what others keep beside them."""
        rows = await self._store.read("chunks_all_large")
        rows += await self._store.read("outputs_all_large")
        names = {chunk.read_reference(row["body"])[0] for row in rows}
        for claimed in self.claimed:
            names |= set(await claimed())
        return names

    async def sweep(self, now: float) -> None:
        """Delete what nobody needs, once an hour at most."""
        if now < self._next:
            return
        self._next = now + _EVERY
        # The files are listed before it is asked who needs them: what comes meanwhile is not among them.
        old = await self._blobs.older(now - self._settings.files_kept)
        gone = await self._blobs.drop(old - await self.files(now), now - self._settings.files_kept) if old else 0
        large = await self._blobs.older(now - _UNCLAIMED, given=True)
        gone += await self._blobs.drop(large - await self.values(), now - _UNCLAIMED) if large else 0
        await self._blobs.drop_incoming(now - _UNCLAIMED)
        if gone:
            log.info("deleted %d blobs that nobody needs any more", gone)

    async def _tree(self, digest: str) -> str:
        """The text of a blob, if that may be a list of files."""
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in self._blobs.read(digest):
                if not pieces and piece[:1] != b"[":
                    return ""
                pieces.append(bytes(piece))
                size += len(piece)
                if size > _TREE_MOST:
                    return ""
        except errors.NotFoundError:
            return ""
        return b"".join(pieces).decode("utf-8", "replace")
