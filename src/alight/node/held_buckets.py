"""The buckets of one container, as the agent sees them: checked before it starts, waited for when it has ended.

What a program closes is uploaded a moment later, by the rclone of its mount. When the container ends that goes on, and
is waited for within a limit; what does not get there is said in the container's output, by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from alight.node import bucket_check, buckets, fusermount, mounts
from alight.node.engine.base import Bind, BucketPlan, Engine
from alight.node.output import STDERR, OutputFile
from alight.wire import errors

if TYPE_CHECKING:
    from alight.wire.commands import StartContainer
    from alight.wire.spec import BucketMount

log = logging.getLogger(__name__)

#: Seconds that a container's end waits for its uploads, unless ALIGHT_BUCKET_UPLOAD says otherwise.
UPLOAD = 600.0
#: The same when the node itself is to end.
UPLOAD_AT_SHUTDOWN = 30.0
_LOOK, _SAY_AFTER = 0.1, 3.0
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
    """Seconds that a container's end waits for its uploads."""
    said = environ.get("ALIGHT_BUCKET_UPLOAD", "")
    try:
        return max(0.0, float(said)) if said else UPLOAD
    except ValueError:
        log.warning("ALIGHT_BUCKET_UPLOAD=%r is not a number of seconds: %g are waited", said, UPLOAD)
        return UPLOAD


async def finish(engine: Engine, container_id: str, found: tuple[BucketMount, ...], seconds: float) -> None:
    """The container has ended: wait until its files are uploaded, say what is not, and end its mounts."""
    own: BucketEngine | None = getattr(engine, "buckets", None)
    if not found or own is None:
        return
    folder = engine.directory(container_id)
    began, said, lost = time.monotonic(), False, False
    while left := await asyncio.to_thread(_waiting, folder, found):
        served = await own.served(container_id)
        waited = time.monotonic() - began
        lost = waited >= seconds or not {number for number, _ in left} & served
        if lost:
            break
        if not said and waited > _SAY_AFTER:
            said = True
            _tell(folder, f"waiting for {_counted(left)} on the way to {_names(left, found)}")
        await asyncio.sleep(_LOOK)
    if lost:
        for line in _lost(left, found, time.monotonic() - began):
            log.error("container %s: %s", container_id, line)
            _tell(folder, line)
    elif said:
        _tell(folder, f"all files are in the bucket, after {time.monotonic() - began:.0f} s")
    await own.drop(container_id)


Left = list[tuple[int, tuple[str, int]]]


def _waiting(folder: Path, found: tuple[BucketMount, ...]) -> Left:
    """(number of the bucket, (path, bytes)) of what was written and is not uploaded."""
    left: Left = []
    for number, mount in enumerate(found):
        if not mount.read_only:
            left += [(number, one) for one in not_uploaded(folder / "buckets" / str(number))]
    return left


def not_uploaded(cache: Path) -> list[tuple[str, int]]:
    """What rclone's cache has that the bucket has not: path and size in bytes, by what rclone writes down beside each
    file."""
    root = cache / "vfsMeta"
    left: list[tuple[str, int]] = []
    for path, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(OSError, ValueError, TypeError):
                kept = json.loads(Path(path, name).read_bytes())
                if kept.get("Dirty"):
                    # Below the root is the name of the remote, then that of the bucket.
                    inside = Path(path, name).relative_to(root).parts[2:]
                    left.append(("/".join(inside), int(kept.get("Size", 0))))
    return left


def _lost(left: Left, found: tuple[BucketMount, ...], seconds: float) -> list[str]:
    lines = []
    for number in sorted({one for one, _ in left}):
        mount = found[number]
        files = sorted(file for one, file in left if one == number)
        prefix = mount.key_prefix
        shown = ", ".join(f"{path.removeprefix(prefix)} ({_size(size)})" for path, size in files[:_NAMED])
        more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
        lines.append(
            f"NOT UPLOADED, and lost: {len(files)} files that were written at {mount.path} are not in "
            f"{buckets.words(mount)} after {seconds:.0f} s: {shown}{more}"
        )
    return lines


def _counted(left: Left) -> str:
    total = sum(size for _, (_, size) in left)
    return f"{len(left)} file{'s' if len(left) > 1 else ''} ({_size(total)})"


def _names(left: Left, found: tuple[BucketMount, ...]) -> str:
    return " and ".join(buckets.words(found[number]) for number in sorted({one for one, _ in left}))


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
