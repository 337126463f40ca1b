"""The base image that system tests stand on: built once per machine, kept in a cache, given to each home as a link.

The cache (``ALIGHT_TEST_CACHE``) may be deleted at any time. Two test runs at once wait for each other and share the
result. What a test builds on top stays in its own home and goes with it.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from alight.builder import BuiltImage, StepRun

PYTHON = "3.11"  # the one that a suite of Debian brings, so that a mirror is all it needs


def cache() -> Path:
    """Where things are kept between runs, with a short path: sockets lie below it, and their paths may not be long."""
    path = Path(os.environ.get("ALIGHT_TEST_CACHE", "/var/tmp/alight-test-cache"))
    path.mkdir(parents=True, exist_ok=True, mode=0o711)
    return path


def base_image() -> BuiltImage:
    """The base, built if it is not there. Its layers must not be written to."""
    from alight.builder import Builder, HostConfig
    from alight.wire.spec import ImageSpec

    spec = ImageSpec(steps=({"op": "debian_slim", "python": PYTHON},))
    builder = Builder(cache() / "node", _NoRunner(), HostConfig.read(), _no_trees)
    return builder.cached(spec) or asyncio.run(builder.build(spec, {}, lambda event: print(event.line, flush=True)))


def new_home(*, own_base: bool = False) -> Path:
    """A new state directory that holds the base image already. Whoever asked removes it with ``remove_home``.

    Its base layer is a link to the cache's: ten thousand files are slow to link and to unlink for each of fifty homes.
    ``own_base`` has them as hard links, for who removes the base image.
    """
    base_image()
    homes = cache() / "h"
    homes.mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="", dir=homes))
    (home / "node").mkdir(mode=0o711)
    for part in ("layers", "images"):
        (home / "node" / part).mkdir(mode=0o700)
        for one in (cache() / "node" / part).iterdir():
            own = home / "node" / part / one.name
            if not one.is_dir():
                shutil.copy2(one, own)
            elif own_base:
                subprocess.run(["cp", "-al", one, own], check=True)
            else:
                own.symlink_to(one)
    lend_library(home)
    # A server that was killed finds its port again: another home's, which began meanwhile, has not taken it.
    (home / "server").mkdir(mode=0o700)
    (home / "server" / "web.port").write_text(f"{20_000 + zlib.crc32(home.name.encode()) % 10_000}\n")
    return home


def lend_library(home: Path) -> None:
    """Have the node of this state directory find Alight's files for containers compiled already, as a link.

    It takes most of a second of a core, as often as a node starts a container in an empty directory.
    """
    tree = _library()
    folder = home / "node" / "runtime" / tree.parent.name
    folder.mkdir(parents=True)
    (folder / tree.name).symlink_to(tree)


@functools.cache
def _library() -> Path:
    """The tree of this content and this Python, in the cache; older ones go."""
    from alight.node.runtime_files import RuntimeFiles

    with (cache() / "library.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tree = asyncio.run(RuntimeFiles(cache(), None).own())
        os.utime(tree.parent)
        for other in tree.parent.parent.iterdir():
            if other.stat().st_mtime < time.time() - 24 * 3600:
                shutil.rmtree(other)
    return tree


def remove_home(home: Path) -> None:
    """Delete a state directory. Fails when something in it is still mounted, which is a finding."""
    shutil.rmtree(home)


class _NoRunner:
    """The base is made on the machine itself, without a container."""

    async def run(self, step: StepRun, on_output: Callable[[bytes], None]) -> int:
        raise AssertionError(f"the base image runs no step in a container, and asks for {step.argv}")


async def _no_trees(digest: str, into: Path) -> None:
    raise AssertionError(f"the base image has no files of a user's, and asks for {digest} in {into}")
