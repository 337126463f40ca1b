"""Names of steps, layers and images, and trees of files laid into a directory.

A name says what was asked for, not what the network served on the day of the build. Changing ``FORMAT`` renames every
layer, so that all images are built again: do it only when a step makes something else than before.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from alight.wire.errors import InvalidError
from alight.wire.spec import FileEntry

FORMAT = "alight-layers-1"

#: The name of nothing at all: what the first step stands on.
ROOT = hashlib.sha256(FORMAT.encode()).hexdigest()


def step_key(parent: str, what: Mapping[str, Any]) -> str:
    """The name of a step on top of ``parent``. The digest of a tree that is copied is in ``what`` already."""
    return _hash([FORMAT, parent, what])


def renewed_key(key: str, nonce: str) -> str:
    """The name of what a forced rebuild of ``key`` made; steps above it get new names through it."""
    return _hash([FORMAT, "renewed", key, nonce])


def decode_tree(manifest: bytes) -> list[FileEntry]:
    """The entries of a manifest written by ``wire.spec.encode_tree``. Raises InvalidError when it is not one."""
    try:
        rows = json.loads(manifest)
        return [FileEntry(**row) for row in rows]
    except (ValueError, TypeError) as error:
        raise InvalidError(f"a file manifest cannot be read: {error}") from error


def lay_tree(entries: list[FileEntry], into: Path, open_blob: Callable[[str], BinaryIO]) -> None:
    """Make the files of ``entries`` under the directory ``into``, each checked against its digest.

    Nothing is written outside ``into``, whatever the manifest says: every step of a path is opened by descriptor
    without following links, and links are made last. Owner is the caller; times are now.
    Raises: InvalidError for a path or content that cannot be right, OSError for the disk.
    """
    root = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for entry in sorted(entries, key=lambda entry: (entry.link is not None, entry.path)):
            _lay_entry(root, entry, open_blob)
    finally:
        os.close(root)


def _lay_entry(root: int, entry: FileEntry, open_blob: Callable[[str], BinaryIO]) -> None:
    parts = entry.path.split("/")
    if not all(part and part not in (".", "..") and "\0" not in part for part in parts):
        raise InvalidError(f"a file manifest holds the path {entry.path!r}")
    if entry.directory:
        folder = _open_folder(root, parts)
        try:
            os.fchmod(folder, stat.S_IMODE(entry.mode) & 0o777 | 0o700)
        finally:
            os.close(folder)
        return
    folder = _open_folder(root, parts[:-1])
    try:
        if entry.link is not None:
            os.symlink(entry.link, parts[-1], dir_fd=folder)
        else:
            _write_file(folder, parts[-1], entry, open_blob)
    except FileExistsError as error:
        raise InvalidError(f"a file manifest holds {entry.path!r} twice") from error
    finally:
        os.close(folder)


def _open_folder(root: int, parts: list[str]) -> int:
    folder = os.dup(root)
    for part in parts:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise InvalidError(f"a file manifest uses {part!r} as a directory, and it is none") from error
        finally:
            os.close(folder)
        folder = deeper
    return folder


def _write_file(folder: int, name: str, entry: FileEntry, open_blob: Callable[[str], BinaryIO]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open_blob(entry.digest) as source, os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as target:
        checked = _Hashing(target)
        shutil.copyfileobj(source, checked, 1 << 20)
        if checked.hexdigest() != entry.digest:
            raise InvalidError(f"the content of {entry.path!r} is not what its manifest says")
        os.fchmod(target.fileno(), stat.S_IMODE(entry.mode) & 0o777)


class _Hashing:
    """A file to write to that knows the digest of what went through."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._hash = hashlib.sha256()

    def write(self, piece: bytes) -> int:
        self._hash.update(piece)
        return self._target.write(piece)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
