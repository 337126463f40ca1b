"""``alight image export`` and ``import``: images as files, to carry them to machines that cannot build or fetch them.

An exported image is a tar archive, or a directory, of manifest.json and layers/DIGEST.erofs. Its manifest's digest is
its name. Here only what travels is looked at; the machine that takes an image in checks all of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, Optional, Protocol, Tuple, cast

import click

from alight.cli import session, tables
from alight.sdk import client as sdk_client
from alight.sdk.lost import LostError
from alight.sdk.sync import run
from alight.wire.built import BuiltImageInfo, ImageWork, ImageWorked
from alight.wire.codec import PIECE, loads_head
from alight.wire.errors import AlreadyExistsError, InvalidError
from alight.wire.errors import ConnectionError as LostConnectionError

_MANIFEST = "manifest.json"
_LAYERS = "layers"
_MANIFEST_MOST = 4 << 20


@click.command("export")
@click.argument("image_id")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
def export(image_id: str, target: Path, force: bool) -> None:
    """Write an image to a file (a tar archive), or into a directory that exists.

    Each layer is one EROFS file, named by its sha256: a kernel can mount it as it is. The digest that is printed names
    the whole image; `alight image import --digest` checks it.
    """
    into = None if target.is_dir() else target
    if into is not None and into.exists() and not force:
        raise AlreadyExistsError(f"{target} exists already", hint="--force replaces it")
    coming = session.stream("image.work", ImageWork("export", image_id))
    first = next(coming, None)
    if first is None:
        raise InvalidError("the server ended the export without an image")
    manifest = first[1]
    layers = rows_of(manifest)
    pieces = _Pieces(coming)
    if into is None:
        _to_directory(target, manifest, pieces)
    else:
        _to_archive(into, manifest, pieces)
    total = sum(one["size"] for one in layers)
    print(f"sha256:{hashlib.sha256(manifest).hexdigest()}")
    print(f"Exported {len(layers)} layers, {tables.size(total)}, to {target}", file=sys.stderr)


@click.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--digest", metavar="SHA256", help="Refuse any other image than this one.")
def import_(source: Path, digest: Optional[str]) -> None:
    """Take in an image that `alight image export` wrote, on every machine.

    Prints its id, for Image.from_id(). All of it is checked: the files by their sha256, and what is in them. An image
    runs with the rights of your functions: import what you would run.
    """
    opened: _Source = _Directory(source) if source.is_dir() else _Archive(source)
    try:
        manifest = opened.manifest
        name = hashlib.sha256(manifest).hexdigest()
        if digest is not None and digest.rpartition(":")[2].lower() != name:
            raise InvalidError(f"{source} is the image sha256:{name}, and not {digest}")
        contents = [str(one["content"]) for one in rows_of(manifest)]
        asked = ImageWork("missing", layers=tuple(contents))
        missing = set(session.ask("image.work", asked, ImageWorked).log)
        (info,) = _sent(ImageWork("import", name, layers=tuple(one for one in contents if one in missing)), opened)[:1]
    finally:
        opened.close()
    print(info.ids[0])
    print(f"Imported {source}: {len(missing)} of {len(contents)} layers were new", file=sys.stderr)


def _sent(asked: ImageWork, opened: _Source) -> Tuple[BuiltImageInfo, ...]:
    """Send what is asked for of an image; returns it as the machines have it."""
    conversation = run(sdk_client.default_client().open("image.work", asked, end=False))
    try:
        run(conversation.send(None, opened.manifest))
        wanted = set(asked.layers)
        for row in rows_of(opened.manifest):
            if row["content"] in wanted:
                wanted.discard(row["content"])
                with opened.layer(row["digest"], row["size"]) as file:
                    for piece in iter(lambda file=file: file.read(PIECE), b""):  # type: ignore[misc]
                        run(conversation.send(None, piece))
        conversation.end()
        answer = run(conversation.recv())
    except LostError as lost:
        raise LostConnectionError(
            "the connection to the server was lost during the import",
            hint="run the command again: it goes on from there",
        ) from lost
    if answer is None:
        raise InvalidError("the server ended the import without an answer")
    return loads_head(ImageWorked, answer[0]).images


class _Pieces:
    """The bodies of a stream, cut where the files in them end, with their sha256 looked at."""

    def __init__(self, coming: Iterator[Tuple[bytes, bytes]]) -> None:
        self._coming = coming
        self._left = b""

    def read(self, most: int) -> bytes:
        if not self._left:
            self._left = next((body for _, body in self._coming if body), b"")
        piece, self._left = self._left[:most], self._left[most:]
        return piece

    def layer(self, digest: str, size: int) -> Iterator[bytes]:
        total = hashlib.sha256()
        while size:
            piece = self.read(size)
            if not piece:
                raise InvalidError("the image ended too early")
            size -= len(piece)
            total.update(piece)
            yield piece
        if total.hexdigest() != digest:
            raise InvalidError(f"the layer {digest[:12]} was damaged on its way")


def rows_of(manifest: bytes) -> List[Dict[str, Any]]:
    """The layers that a manifest names: their digest, size and content. Raises InvalidError for one that cannot be."""
    try:
        rows: List[Dict[str, Any]] = json.loads(manifest)["layers"]
        fits = all(
            re.fullmatch("[0-9a-f]{64}", row["digest"])
            and re.fullmatch("[0-9a-f]{64}", row["content"])
            and type(row["size"]) is int
            and row["size"] > 0
            for row in rows
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidError(f"this is no image of Alight's: {error!r}") from error
    if not fits:
        raise InvalidError("this is no image of Alight's: a layer of it has no digest or no size")
    return rows


def _distinct(manifest: bytes) -> Iterator[Tuple[str, int, bool]]:
    """Digest and size of each layer in order, and whether it is the first of its kind."""
    seen = set()
    for row in rows_of(manifest):
        yield row["digest"], row["size"], row["digest"] not in seen
        seen.add(row["digest"])


def _to_directory(target: Path, manifest: bytes, pieces: _Pieces) -> None:
    folder = target / _LAYERS
    folder.mkdir(exist_ok=True)
    for digest, size, first in _distinct(manifest):
        file = folder / f"{digest}.erofs"
        there = not first or (file.is_file() and file.stat().st_size == size)
        temporary = folder / f".{digest}.{os.getpid()}"
        with open(os.devnull if there else temporary, "wb") as opened:
            opened.writelines(pieces.layer(digest, size))
        if not there:
            temporary.replace(file)
    (target / _MANIFEST).write_bytes(manifest)


def _to_archive(target: Path, manifest: bytes, pieces: _Pieces) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(_entry(_MANIFEST, len(manifest)), io.BytesIO(manifest))
            for digest, size, first in _distinct(manifest):
                coming = _Reader(pieces.layer(digest, size))
                if first:
                    archive.addfile(_entry(f"{_LAYERS}/{digest}.erofs", size), coming)
                coming.finish()
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


class _Reader(io.RawIOBase):
    """Pieces as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts: List[bytes] = []
        while size:
            self._left = self._left or next(self._pieces, b"")
            if not self._left:
                break
            part = self._left if size < 0 else self._left[:size]
            self._left = self._left[len(part) :]
            parts.append(part)
            size -= len(part) if size > 0 else 0
        return b"".join(parts)

    def finish(self) -> None:
        """Read what nobody wanted, so that the next file begins where it does."""
        for _ in self._pieces:
            pass


class _Source(Protocol):
    """An image as files."""

    manifest: bytes

    def layer(self, digest: str, size: int) -> BinaryIO: ...

    def close(self) -> None: ...


class _Directory:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            with (folder / _MANIFEST).open("rb") as file:
                self.manifest = file.read(_MANIFEST_MOST)
        except OSError as error:
            raise InvalidError(f"{folder} holds no image: {_MANIFEST}: {error.strerror}") from error

    def layer(self, digest: str, size: int) -> BinaryIO:
        path = self._folder / _LAYERS / f"{digest}.erofs"
        try:
            if path.stat().st_size != size:
                raise InvalidError(f"{path} has another size than its image says")
            return path.open("rb")
        except OSError as error:
            raise InvalidError(f"{path} cannot be read: {error.strerror}") from error

    def close(self) -> None:
        pass


class _Archive:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = tarfile.open(path, "r:")  # noqa: SIM115  `close` closes it
            self.manifest = self._file(_MANIFEST, None).read(_MANIFEST_MOST)
        except (tarfile.TarError, OSError) as error:
            raise InvalidError(f"{path} is no image that `alight image export` wrote: {error}") from error

    def layer(self, digest: str, size: int) -> BinaryIO:
        return self._file(f"{_LAYERS}/{digest}.erofs", size)

    def close(self) -> None:
        self._archive.close()

    def _file(self, name: str, size: Optional[int]) -> BinaryIO:
        """A plain file of the archive, read where it lies: nothing is unpacked."""
        try:
            member = self._archive.getmember(name)
        except KeyError as error:
            raise InvalidError(f"{self._path} has no {name}") from error
        file = self._archive.extractfile(member) if member.isreg() else None
        if file is None or (size is not None and member.size != size):
            raise InvalidError(f"{self._path}: {name} is not what its image says")
        return cast("BinaryIO", file)
