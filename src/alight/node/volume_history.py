"""Snapshots of this machine's volumes as the server asks for them, and those that are made without being asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from alight.link.peer import Stream
from alight.node import paths, volume_plans, volume_restoring
from alight.node.volume_snapshots import Bounds, Snapshots, explained
from alight.wire import errors
from alight.wire.snapshots import Restored, Snapshot, SnapshotAsked, VolumeDifferences
from alight.wire.transfers import name_in, name_out

log = logging.getLogger(__name__)

_PAGE = 1000
#: When snapshots are made without being asked for: where they share blocks, always (copies, too), or never.
AUTOMATIC = ("reflink", "always", "off")


class VolumeHistory:
    """One thing at a time for each volume; other volumes do not wait."""

    def __init__(self, root: Path, data: Callable[[str], Path], sync: Callable[[Path], None]) -> None:
        self._root = root
        self._data = data
        self._sync = sync
        self._automatic = _setting("ALIGHT_SNAPSHOTS", AUTOMATIC)
        self.snapshots = Snapshots(root, data, Bounds(_number("ALIGHT_SNAPSHOTS_SHARE", 3.0)), sync)
        self._locks: dict[str, asyncio.Lock] = {}
        self._clones: dict[str, bool] = {}
        self._took: dict[str, float] = {}

    async def serve(self, stream: Stream, verb: str, asked: SnapshotAsked) -> None:
        """Answer a ``node.volume`` that has a ``snapshot``."""
        volume = asked.volume_id
        if verb == "snapshots":
            for one in await asyncio.to_thread(self.snapshots.all, volume):
                await stream.send(one)
        elif verb == "snapshot":
            await stream.send(await self._take(asked))
        elif verb == "diff":
            found = [
                replace(one, path=name_out(one.path))
                for one in await asyncio.to_thread(lambda: list(self.snapshots.diff(asked)))
            ]
            for start in range(0, len(found), _PAGE):
                await stream.send(VolumeDifferences(tuple(found[start : start + _PAGE])))
        elif verb == "restore":
            async with self._lock(volume):
                await stream.send(await asyncio.to_thread(self._restore, asked))
        elif verb == "unsnapshot":
            async with self._lock(volume):
                await asyncio.to_thread(self.snapshots.remove, volume, asked.snapshot)
            await stream.send({})
        else:
            raise errors.UnimplementedError(f"this node does not know the volume operation {verb!r}")

    async def after_commit(self, volume_id: str, kind: str) -> None:
        """Make an automatic snapshot where that is due. What goes wrong is logged: nobody waits for it."""
        if self._automatic == "off":
            return
        try:
            if self._automatic == "reflink":
                if volume_id not in self._clones:
                    self._clones[volume_id] = await asyncio.to_thread(self.snapshots.clones, volume_id)
                if not self._clones[volume_id]:
                    return
            have = await asyncio.to_thread(self.snapshots.all, volume_id)
            if not volume_plans.due(have, kind, time.time(), self._took.get(volume_id, 0.0)):
                return
            began = time.monotonic()
            made = await self._take(SnapshotAsked(volume_id, automatic=True))
            self._took[volume_id] = time.monotonic() - began
            for name in volume_plans.outdated([made, *have], time.time()):
                async with self._lock(volume_id):
                    await asyncio.to_thread(self.snapshots.remove, volume_id, name)
        except (errors.Error, OSError) as error:
            log.warning("the volume %s has no new snapshot: %s", volume_id, error)

    async def forget(self, volume_id: str) -> None:
        """It is deleted."""
        self._clones.pop(volume_id, None)
        await asyncio.to_thread(self.snapshots.forget, volume_id)

    @contextlib.asynccontextmanager
    async def still(self, volume_id: str) -> AsyncIterator[Path]:
        """A directory with what the volume holds: at one moment where that costs no copy, else the volume itself."""
        if not await asyncio.to_thread(self.snapshots.clones, volume_id):
            yield self._data(volume_id)
            return
        made = await self._take(SnapshotAsked(volume_id))
        try:
            yield self.snapshots.files(volume_id, made.name)
        finally:
            async with self._lock(volume_id):
                await asyncio.to_thread(self.snapshots.remove, volume_id, made.name)

    def sweep(self) -> None:
        """Remove what a killed agent left half done."""
        self.snapshots.sweep()
        for path in self._root.glob("*/restoring"):
            shutil.rmtree(path, ignore_errors=True)

    async def _take(self, asked: SnapshotAsked) -> Snapshot:
        async with self._lock(asked.volume_id):
            return await asyncio.to_thread(self.snapshots.take, asked)

    def _restore(self, asked: SnapshotAsked) -> Restored:
        name = self.snapshots.find(asked.volume_id, asked.snapshot).name
        wanted = self.snapshots.index(asked.volume_id, name)
        data = self._data(asked.volume_id)
        aside = data.parent / "restoring" / os.urandom(6).hex()
        aside.mkdir(mode=0o700, parents=True)
        source, target = paths.open_root(self.snapshots.files(asked.volume_id, name)), paths.open_root(data)
        try:
            start = paths.relative(name_in(asked.path))
            return volume_restoring.restore(source, target, wanted, aside, start=start, exact=asked.exact)
        except OSError as error:
            raise explained(error, "the volume was restored in part only") from error
        finally:
            os.close(source)
            os.close(target)
            shutil.rmtree(data.parent / "restoring", ignore_errors=True)

    def _lock(self, volume_id: str) -> asyncio.Lock:
        return self._locks.setdefault(volume_id, asyncio.Lock())


def _setting(name: str, known: tuple[str, ...]) -> str:
    found = os.environ.get(name, "") or known[0]
    if found not in known:
        raise errors.InvalidError(f"{name}={found} means nothing", hint=f"one of {', '.join(known)}")
    return found


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        found = float(text) if text else default
    except ValueError:
        found = -1.0
    if not 0 < found < 1e6:
        raise errors.InvalidError(f"{name}={text} is not a number above 0")
    return found
