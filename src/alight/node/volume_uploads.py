"""Uploads into volumes: all files of one appear, or none, whatever breaks.

Bytes wait in ``staging/<upload>/<number>``, outside of what containers see, and are renamed into the volume at the end
(``volume_placing``). What an upload that broke had brought is kept by digest in ``staging/parts`` for a day: the next
one that offers the same content takes it from there and goes on behind it. Two uploads never write one staged file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from alight.link.peer import Stream
from alight.node.volume_digests import Digests
from alight.node.volume_placing import finish_interrupted, syncfs
from alight.node.volume_upload import Upload, keep_parts
from alight.node.volume_words import explained
from alight.wire import errors
from alight.wire.stored import VolumePath
from alight.wire.transfers import Uploaded

log = logging.getLogger(__name__)

_KEPT_SECONDS = 24 * 3600.0
_REMEMBERED = 256  # uploads whose answer may be asked for again


class Uploads:
    """``volume.upload`` of one machine."""

    def __init__(self, data: Callable[[str], Path], staging: Callable[[str], Path]) -> None:
        self._data = data
        self._staging = staging
        self._digests = Digests()
        self._placing: dict[str, asyncio.Lock] = {}
        self._done: OrderedDict[tuple[str, str], Uploaded] = OrderedDict()
        self._syncs: set[asyncio.Task[None]] = set()

    async def serve(self, stream: Stream, at: VolumePath) -> None:
        """One upload, from its first offer to its end."""
        known = self._done.get((at.volume_id, at.upload)) if at.upload else None
        if known is not None:  # all was done, and the connection was lost with the answer
            await stream.send(known)
            return
        upload = await asyncio.to_thread(self._begin, at)
        placed = False
        try:
            while True:
                messages = await stream.recv_all()
                if not messages:
                    raise errors.ConnectionError("the client ended its upload before it was whole")
                answers, finished = await asyncio.to_thread(upload.take_all, messages)
                for answer in answers:
                    await stream.send(answer)
                if finished:
                    break
            async with self._placing.setdefault(at.volume_id, asyncio.Lock()):
                result = await asyncio.to_thread(upload.place)
            placed = True
            self._remember((at.volume_id, at.upload), result)
            self._sync_soon(at.volume_id)
            await stream.send(result)
        finally:
            await asyncio.shield(asyncio.to_thread(upload.close, placed))

    def sweep(self, volume_id: str) -> None:
        """After a killed node: finish the uploads that were about to get their names, keep what others had brought."""
        try:
            self._sweep(volume_id)
        except (OSError, errors.Error) as error:
            log.warning("uploads into %s that were interrupted could not be finished: %s", volume_id, error)

    def _sweep(self, volume_id: str) -> None:
        staging = self._staging(volume_id)
        (staging / "parts").mkdir(mode=0o700, exist_ok=True)
        for folder in staging.iterdir():
            if folder.name == "parts":
                continue
            if not folder.is_dir():
                folder.unlink()  # of a single file that was written or copied
                continue
            if (folder / "commit").exists():
                finish_interrupted(self._data(volume_id), folder)
            else:
                keep_parts(folder, staging / "parts")
            shutil.rmtree(folder, ignore_errors=True)
        _drop_old(staging / "parts")

    def _begin(self, at: VolumePath) -> Upload:
        staging = self._staging(at.volume_id)
        parts = staging / "parts"
        parts.mkdir(mode=0o700, exist_ok=True)
        _drop_old(parts)
        folder = staging / os.urandom(8).hex()
        with explained("/"):
            folder.mkdir(mode=0o700)
            return Upload(self._data(at.volume_id), folder, parts, self._digests, force=at.force)

    def _remember(self, key: tuple[str, str], result: Uploaded) -> None:
        if key[1]:
            self._done[key] = result
            while len(self._done) > _REMEMBERED:
                self._done.popitem(last=False)

    def _sync_soon(self, volume_id: str) -> None:
        """Begin writing to the disk; nobody waits for it here."""

        async def sync() -> None:
            try:
                await asyncio.to_thread(syncfs, self._data(volume_id))
            except OSError as error:
                log.warning("an upload could not be written to the disk: %s", error)

        task = asyncio.get_running_loop().create_task(sync())
        self._syncs.add(task)
        task.add_done_callback(self._syncs.discard)


def _drop_old(parts: Path) -> None:
    try:
        names = os.listdir(parts)
    except FileNotFoundError:
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - (parts / name).stat().st_mtime > _KEPT_SECONDS:
                (parts / name).unlink()
