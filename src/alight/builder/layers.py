"""The layer store of one machine: directories by name, a record per step, locks, temporary places.

    layers/<layer>/       what a step wrote, as overlayfs writes it; read-only from the rename on
    layers/<key>.json     the record of a step: the layers it added, and what it learned
    layers/tmp-*/         a step being built; its builder holds a lock in it, which tells a sweep the living
    images/<digest>.json  an image: its layers and settings, for people and for clearing up

A layer appears by one rename after its content is on disk, and its record after that. So a machine that loses power or
a build that is killed leaves a whole layer or none. Nothing here knows what a layer is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Paths that an engine mounts over in any container; a mount point made for one is no part of a layer.
MOUNT_POINTS = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
    "/proc",
    "/sys",
    "/dev",
    "/opt/alight/lib",
    "/run/alight",
)

_TEMPORARY = "tmp-"


@dataclass(frozen=True)
class Record:
    """What a step made: ``layers`` that it added (ids, the topmost first), ``key`` that later steps build on, facts."""

    key: str
    title: str
    layers: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    made_at: float = 0.0


@dataclass(frozen=True)
class Workspace:
    """Where one step is built: ``upper`` becomes the layer, ``scratch`` never does. Runners may add beside them."""

    path: Path

    @property
    def upper(self) -> Path:
        return self.path / "upper"

    @property
    def scratch(self) -> Path:
        return self.path / "scratch"


class LayerStore:
    """Layers and records under ``home`` (the node's directory). Many processes may use one store."""

    def __init__(self, home: Path) -> None:
        self._layers = home / "layers"
        self._images = home / "images"
        for folder in (home, self._layers, self._images):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, layer: str) -> Path:
        """The directory of a layer."""
        return self._layers / layer

    def record(self, key: str) -> Record | None:
        """What the step of that name made, or None when it (or a layer of it) is not here."""
        try:
            raw = json.loads((self._layers / f"{key}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        record = Record(**{**raw, "layers": tuple(raw["layers"])})
        return record if all(self.path(layer).is_dir() for layer in record.layers) else None

    def keep_record(self, name: str, record: Record) -> None:
        """Remember what the step called ``name`` made. Its layers must be kept already."""
        _write_durably(self._layers / f"{name}.json", asdict(record))

    def keep_image(self, digest: str, description: dict[str, Any]) -> None:
        """Remember an image, unless it is known as it is."""
        path = self._images / f"{digest}.json"
        content = json.loads(json.dumps(description))
        with contextlib.suppress(FileNotFoundError, ValueError):
            if json.loads(path.read_bytes()) == content:
                return
        _write_durably(path, content)

    def keep_layer(self, workspace: Workspace, layer: str) -> None:
        """Make the workspace's upper directory the layer of that name, durably."""
        _sync_filesystem(workspace.upper)
        target = self.path(layer)
        if target.exists():  # left by a crash between this rename and the record: nobody can be using it
            _remove(target)
        workspace.upper.rename(target)
        _sync_directory(self._layers)

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """A place to build a step in; gone afterwards, whatever happened, but for an upper that became a layer."""
        path = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._layers))
        lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            space = Workspace(path)
            space.upper.mkdir()
            space.upper.chmod(0o755)  # it is the container's "/"
            space.scratch.mkdir(mode=0o755)
            yield space
        finally:
            _remove(path)
            os.close(lock)

    def sweep(self) -> int:
        """Remove what killed builds left; return how many. Safe while other builds run."""
        swept = 0
        for path in self._layers.glob(_TEMPORARY + "*"):
            try:
                lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                # Being made this instant, or half removed: only the second stays without a lock file.
                if _age(path) > 60:
                    _remove(path)
                    swept += 1
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                _remove(path)
                swept += 1
            finally:
                os.close(lock)
        return swept

    @contextlib.asynccontextmanager
    async def alone(self, key: str, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Hold the right to build the step of that name; ``on_wait`` is called once when somebody else holds it."""
        lock = os.open(self._layers / f"{key}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            waited = False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waited:
                        waited = True
                        on_wait()
                    # A blocking flock in a thread could not be cancelled.
                    await asyncio.sleep(0.1)
            yield
        finally:
            os.close(lock)


def clear_mount_points(upper: Path, lowers: Iterable[Path], targets: Iterable[str]) -> None:
    """Take out of ``upper`` the empty files and directories that mounting over ``targets`` left in it.

    What a lower layer has too, and what is not empty, stays. Never follows a link: a step may have made any.
    """
    below = tuple(lowers)
    for target in targets:
        parts = [part for part in target.split("/") if part]
        for depth in range(len(parts), 0, -1):
            inside = "/".join(parts[:depth])
            if any(os.path.lexists(lower / inside) for lower in below):
                break
            if not _remove_if_empty(upper, parts[:depth]):
                break


def _remove_if_empty(root: Path, parts: list[str]) -> bool:
    """True when the thing is gone, or was never there."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = deeper
        found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(parts[-1], dir_fd=folder)
            return True
        if stat.S_ISREG(found.st_mode) and found.st_size == 0:
            os.unlink(parts[-1], dir_fd=folder)
            return True
        return False
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    finally:
        os.close(folder)


def _remove(path: Path) -> None:
    # rmtree is safe against links here: CPython uses descriptors where the platform has them.
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _age(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return max(0.0, time.time() - path.stat().st_mtime)
    return 0.0


def _write_durably(path: Path, content: dict[str, Any]) -> None:
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(content, file, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sync_filesystem(path: Path) -> None:
    # One call for thousands of files, and no time spent on other filesystems as sync(2) would.
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(folder) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(folder)
