"""The buckets of one container, as the agent sees them: checked before it starts, waited for before its answers leave.

What a program closes is uploaded a moment later, by the rclone of its mount. Answers and the container's end wait for
that within a limit; what does not get there is said in the container's output, by name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from alight.node import bucket_check, buckets, fusermount, mounts
from alight.node.bucket_uploads import Uploads, Waiting, open_files
from alight.node.engine.base import Bind, BucketPlan, Engine
from alight.node.output import STDERR, OutputFile
from alight.wire import errors

if TYPE_CHECKING:
    from alight.wire.commands import StartContainer
    from alight.wire.spec import BucketMount

log = logging.getLogger(__name__)

#: Seconds that answers of a container and its end wait for its uploads, unless ALIGHT_BUCKET_UPLOAD says otherwise.
UPLOAD = 600.0
_LOOK, _SAY_AFTER = 0.05, 3.0
_NAMED = 10


class BucketEngine(Protocol):
    """What is needed of an engine that has buckets."""

    async def drop(self, container_id: str) -> None: ...

    async def served(self, container_id: str) -> set[int]: ...


async def prepare(start: StartContainer, targets: Mapping[str, str]) -> tuple[tuple[BucketPlan, ...], list[Bind]]:
    """The buckets of a container, each checked with its store, and the binds that show them.

    ``targets``: the path inside by the declared one. Raises Error: the reason goes to whoever called the function.
    """
    found = start.function.buckets
    if not found:
        return (), []
    _look_around()
    allowed = os.environ.get("ALIGHT_BUCKET_HOSTS", "")
    checks = [
        asyncio.to_thread(_check, number, one, start.bucket_secrets, targets[one.path], allowed)
        for number, one in enumerate(found)
    ]
    plans = tuple(await asyncio.gather(*checks))
    places = [mounts.bucket_place(start.container_id, one.number) for one in plans]
    return plans, [Bind(place, one.target, one.read_only) for place, one in zip(places, plans, strict=True)]


def _check(
    number: int, mount: BucketMount, secrets: Mapping[str, Mapping[str, str]], target: str, allowed: str
) -> BucketPlan:
    keys = buckets.keys_of(mount, secrets.get(mount.secret_id) if mount.secret_id else None)
    here = buckets.is_allowed(mount.endpoint, allowed)
    region = bucket_check.check(mount, keys, allowed=here)
    return buckets.plan_of(number, target, mount, keys, region, on_this_machine=here)


def _look_around() -> None:
    lacks = "" if shutil.which("rclone") else "rclone is not installed on this machine"
    if not lacks and not Path("/dev/fuse").exists():
        lacks = "this machine has no /dev/fuse: its kernel lacks the module fuse"
    if not lacks and not fusermount.is_known():
        lacks = f"there are no buckets on machines of the kind {os.uname().machine}"
    if lacks:
        raise errors.InvalidError(
            f"a bucket cannot be mounted: {lacks}", hint="`alight doctor` says what is missing and how to get it"
        )


def patience(environ: Mapping[str, str]) -> float:
    """Seconds that answers of a container, and its end, wait for its uploads."""
    said = environ.get("ALIGHT_BUCKET_UPLOAD", "")
    try:
        return max(0.0, float(said)) if said else UPLOAD
    except ValueError:
        log.warning("ALIGHT_BUCKET_UPLOAD=%r is not a number of seconds: %g are waited", said, UPLOAD)
        return UPLOAD


class Gate:
    """Lets what a container answers pass when the files that it has closed are in their buckets.

    So whoever has a call's result finds the call's files. A file that is still open holds nothing up.
    """

    def __init__(self, engine: Engine, container_id: str, found: tuple[BucketMount, ...]) -> None:
        self._engine = engine
        self._id = container_id
        self._uploads = Uploads(engine.directory(container_id), found)
        self._found = found
        self._behind: deque[Callable[[], None]] = deque()
        self._working: asyncio.Task[None] | None = None
        self._most = patience(os.environ)

    def pass_on(self, answer: Callable[[], None]) -> None:
        """Call ``answer`` when it may pass, after those before it."""
        self._behind.append(answer)
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work())

    def hurry(self, seconds: float) -> None:
        """The machine is to end: wait no longer than this for uploads from now on."""
        self._most = seconds

    def let_go(self) -> None:
        """The agent leaves; the runtime will say it all again to the next."""
        self._behind.clear()
        if self._working is not None:
            self._working.cancel()

    async def end(self) -> None:
        """The container has ended: wait until its files are uploaded, say what is not, end its mounts, let all pass."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
        await finish(self._engine, self._id, self._found, self._uploads, lambda: self._most)
        while self._behind:
            self._behind.popleft()()

    async def _work(self) -> None:
        until = time.monotonic() + self._most
        while self._behind:
            ready = len(self._behind)
            while wanted := await self._closed_and_waiting():
                if time.monotonic() > until:
                    log.error("container %s: its answers wait no longer for %s", self._id, _counted(wanted))
                    break
                await asyncio.sleep(_LOOK)
            for _ in range(ready):
                self._behind.popleft()()

    async def _closed_and_waiting(self) -> list[Waiting]:
        left = await asyncio.to_thread(self._uploads.waiting)
        if not left:
            return []
        own: BucketEngine | None = getattr(self._engine, "buckets", None)
        served = await own.served(self._id) if own is not None else set()
        try:
            inside = await self._engine.inside(self._id)
        except errors.Error:
            return []  # it has ended: ``end`` does the rest
        used = await asyncio.to_thread(open_files, inside)
        return [one for one in left if one.path not in used and one.number in served]


async def finish(
    engine: Engine,
    container_id: str,
    found: tuple[BucketMount, ...],
    uploads: Uploads,
    most: Callable[[], float],
) -> None:
    """The container has ended: wait until its files are uploaded, say what is not, and end its mounts. ``most``: for
    so many seconds, which may change meanwhile."""
    own: BucketEngine | None = getattr(engine, "buckets", None)
    if own is None:
        return
    folder = engine.directory(container_id)
    began, said, lost = time.monotonic(), False, False
    while left := await asyncio.to_thread(uploads.waiting):
        served = await own.served(container_id)
        waited = time.monotonic() - began
        lost = waited >= most() or not {one.number for one in left} & served
        if lost:
            break
        if not said and waited > _SAY_AFTER:
            said = True
            _tell(folder, f"waiting for {_counted(left)} on the way to {_names(left, found)}")
        await asyncio.sleep(_LOOK)
    if lost:
        for line in lost_words(left, found, time.monotonic() - began):
            log.error("container %s: %s", container_id, line)
            _tell(folder, line)
    elif said:
        _tell(folder, f"all files are in their bucket, after {time.monotonic() - began:.0f} s")
    await own.drop(container_id)


def lost_words(left: list[Waiting], found: tuple[BucketMount, ...], seconds: float) -> list[str]:
    """What is said of files that never got to their bucket, a line for each bucket."""
    lines = []
    for number in sorted({one.number for one in left}):
        files = [one for one in left if one.number == number]
        shown = ", ".join(f"{one.path} ({_size(one.size)})" for one in files[:_NAMED])
        more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
        lines.append(
            f"NOT UPLOADED, and lost: {_counted(files)} not in {buckets.words(found[number])} "
            f"{seconds:.0f} s after the container's end: {shown}{more}"
        )
    return lines


def _counted(left: list[Waiting]) -> str:
    total = sum(one.size for one in left)
    return f"{len(left)} file{'s' if len(left) > 1 else ''} ({_size(total)})"


def _names(left: list[Waiting], found: tuple[BucketMount, ...]) -> str:
    return " and ".join(buckets.words(found[number]) for number in sorted({one.number for one in left}))


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size} bytes"


def _tell(folder: Path, text: str) -> None:
    # The spawner has closed this file: the container is dead.
    try:
        file = OutputFile(str(folder / "output.log"))
        file.write(STDERR, f"[alight] {text}\n".encode())
        file.close()
    except OSError as error:
        log.warning("%s (its output cannot be written: %s)", text, error)
