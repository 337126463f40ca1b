"""Trees of files by digest: the user's source as layers, and what image recipes copy.

A layer is made once and never changes while it is mounted; a changed file makes another layer. File contents are kept
once per digest and mode and linked into each layer, so an edited script costs one file, not the whole project.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from alight.builder.digest import decode_tree, lay_tree
from alight.node.blobs import Blobs
from alight.wire import errors
from alight.wire.packs import PACKED_MOST
from alight.wire.spec import FileEntry, FilesAt

_AT_ONCE = 16


class Trees:
    """Files from the server, laid out on this machine."""

    def __init__(self, home: Path, blobs: Blobs) -> None:
        self._layers = home / "code"
        self._contents = home / "code" / "contents"
        self._blobs = blobs
        self._busy: dict[str, asyncio.Lock] = {}
        self._contents.mkdir(mode=0o700, parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Remove what a killed agent left half made."""
        for path in self._layers.glob(".new-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._contents.glob(".*"):
            path.unlink(missing_ok=True)

    async def layers(self, files: tuple[FilesAt, ...]) -> tuple[str, ...]:
        """Directories to stack on an image, topmost first: later files win. Fetches what is not here."""
        found = await asyncio.gather(*(self._layer(one) for one in files))
        return tuple(str(path) for path in reversed(found))

    async def lay(self, tree: str, into: Path) -> None:
        """Write a tree's files into a directory (copies, which the caller may change)."""
        entries = await self._entries(tree)
        await self._fetch(entries)
        await asyncio.to_thread(lay_tree, entries, into, self._open)

    async def lend(self, tree: str, into: Path) -> None:
        """The same as links to what is kept here, which the caller only reads."""
        entries = await self._entries(tree)
        await self._fetch(entries)
        await asyncio.to_thread(self._lay_linked, entries, into, into)

    async def _layer(self, files: FilesAt) -> Path:
        name = hashlib.sha256(f"{files.tree}\n{files.path}".encode()).hexdigest()
        path = self._layers / name
        if path.is_dir():
            return path
        async with self._busy.setdefault(name, asyncio.Lock()):
            if not path.is_dir():
                await self._make(files, path)
        self._busy.pop(name, None)
        return path

    async def _make(self, files: FilesAt, path: Path) -> None:
        parts = [part for part in files.path.split("/") if part not in ("", ".")]
        if ".." in parts or not files.path.startswith("/"):
            raise errors.InvalidError(f"files cannot be put at {files.path!r} in a container")
        entries = await self._entries(files.tree)
        await self._fetch(entries)
        new = self._layers / f".new-{os.urandom(8).hex()}"
        try:
            await asyncio.to_thread(self._lay_linked, entries, new, new.joinpath(*parts))
            new.rename(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return  # another agent of this directory made it meanwhile
            raise errors.ResourceExhaustedError(
                f"the files of a function could not be laid out on this machine: {error.strerror or error}",
                hint="free some space on the disk that holds Alight's state directory",
            ) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _lay_linked(self, entries: list[FileEntry], root: Path, at: Path) -> None:
        at.mkdir(parents=True, exist_ok=True)
        os.chmod(root, 0o755)  # it becomes the container's "/"
        plain = [entry for entry in entries if entry.link is not None or entry.directory]
        lay_tree(plain, at, lambda _digest: io.BytesIO())
        folder = os.open(at, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            contents = os.open(self._contents, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            made = {""}
            try:
                for entry in entries:
                    if entry.link is None and not entry.directory:
                        self._link(entry, folder, contents, at, made)
            finally:
                os.close(contents)
        finally:
            os.close(folder)

    def _link(self, entry: FileEntry, folder: int, contents: int, at: Path, made: set[str]) -> None:
        mode = entry.mode & 0o777
        source = f"{entry.digest}-{mode:o}"
        if any(part in ("", ".", "..") for part in entry.path.split("/")):
            raise errors.InvalidError(f"a file manifest holds the path {entry.path!r}")
        try:
            parent = entry.path.rpartition("/")[0]
            if parent not in made:
                # A link of the manifest must not be walked through: whoever wrote it chose both. Links are there
                # already, so that what was found to be a directory stays one.
                _make_folders(folder, parent)
                made.add(parent)
            try:
                os.link(source, entry.path, src_dir_fd=contents, dst_dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    _copy(self._contents / entry.digest, self._contents / source, mode)
                os.link(source, entry.path, src_dir_fd=contents, dst_dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            shutil.copy2(self._contents / source, at / entry.path)

    async def _entries(self, tree: str) -> list[FileEntry]:
        return decode_tree(await self._blobs.read(tree))

    async def _fetch(self, entries: list[FileEntry]) -> None:
        """Bring the contents that are not here, several at a time."""
        contents = str(self._contents)
        missing = {
            entry.digest: entry.size
            for entry in entries
            if entry.link is None and not entry.directory and not os.path.exists(f"{contents}/{entry.digest}")
        }
        for digest in missing:
            if not _is_digest(digest):
                raise errors.InvalidError(f"a file manifest names the content {digest[:80]!r}")
        small = [digest for digest, size in missing.items() if size <= PACKED_MOST]
        turns = asyncio.Semaphore(_AT_ONCE)

        async def bring(digest: str) -> None:
            async with turns:
                await self._blobs.fetch_to(digest, self._contents / digest)

        try:
            if len(small) > 1 and await self._blobs.fetch_small(small, self._contents):
                for digest in small:
                    del missing[digest]
            await asyncio.gather(*(bring(digest) for digest in missing))
        except OSError as error:
            raise errors.ResourceExhaustedError(
                f"files could not be brought to this machine: {error.strerror or error}",
                hint="free some space on the disk that holds Alight's state directory",
            ) from error

    def _open(self, digest: str) -> BinaryIO:
        return (self._contents / digest).open("rb")


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(char in "0123456789abcdef" for char in text)


def _make_folders(root: int, path: str) -> None:
    current = os.dup(root)
    try:
        for part in path.split("/"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=current)
            try:
                deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            except OSError as error:
                raise errors.InvalidError(f"a file manifest uses {part!r} as a directory, and it is none") from error
            os.close(current)
            current = deeper
    finally:
        os.close(current)


def _copy(source: Path, target: Path, mode: int) -> None:
    """The content under a name with its mode: the same file the first time, a copy for each further mode."""
    if source.stat().st_nlink == 1:
        os.link(source, target)
        os.chmod(target, mode)
        return
    new = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        shutil.copyfile(source, new)
        os.chmod(new, mode)
        new.rename(target)
    finally:
        new.unlink(missing_ok=True)
