"""A backup as a directory: files copied with their digests, a manifest, and a name that it gets when it is whole.

Blocking: for threads. Nothing here knows a database's tables.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from alight.server.disk import full_disk
from alight.server.services.vault import sync_folder
from alight.wire import errors, ids
from alight.wire.backups import FORMAT, MANIFEST, BackupFile, BackupManifest

_PIECE = 4 << 20
_MANIFEST_MOST = 1 << 30
#: Private keys of the state directory: they go along when they are asked for.
KEYS = ("key", "key.new", "*.key")
#: What of the state directory is no state: logs, uploads that have not ended, journals of databases (copied otherwise).
_LEFT_OUT = ("logs", "*.db", "*.db-wal", "*.db-shm", "*.db-journal", ".*")


class Folder:
    """A backup that is being made, beside the place where it will be. Use as a context: without ``finish`` it goes."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.partial")
        self._files: dict[str, BackupFile] = {}

    def __enter__(self) -> Folder:  # noqa: PYI034  there is one kind
        check_free(self.target)
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():  # of one that was killed
                shutil.rmtree(self.path)
            self.path.mkdir(mode=0o700)
        except OSError as error:
            raise full_disk(error, self.target.parent) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.path.exists():
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def files(self) -> tuple[BackupFile, ...]:
        """What is in it, by path."""
        return tuple(one for _, one in sorted(self._files.items()))

    def copy(self, source: Path, name: str, *, digest: str = "") -> None:
        """Copy a regular file. Raises DataLossError when it is not what ``digest`` says."""
        try:
            with _opened(source) as file:
                try:
                    with self.writing(name) as writing:
                        while piece := file.read(_PIECE):
                            writing.write(piece)
                except OSError as error:
                    raise full_disk(error, self.path) from error
        except OSError as error:
            raise errors.ServiceError(f"{source} could not be read: {error.strerror}") from error
        if digest and self._files[name].sha256 != digest:
            raise errors.DataLossError(
                f"{source} is damaged: its content is not what its name says",
                hint="remove it: whoever needs it sends it again, or deploy the app again that uses it",
            )

    def add(self, name: str) -> None:
        """Take up a file that was written to its place by others."""
        path = self.path / name
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    size += len(piece)
                os.fsync(file.fileno())
        except OSError as error:
            raise full_disk(error, self.path) from error
        self._files[name] = BackupFile(name, size, digest.hexdigest())

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Writing]:
        """A new file, on disk at the end of the block."""
        with _new_file(self.path / name) as file:
            writing = Writing(file)
            yield writing
            os.fsync(file.fileno())
        self._files[name] = BackupFile(name, writing.size, writing.sha256)

    def finish(self, manifest: BackupManifest) -> None:
        """Write the manifest and give the directory its name. Raises AlreadyExistsError when that is taken."""
        try:
            with self.writing(MANIFEST) as file:
                file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
            for folder, _, _ in os.walk(self.path):
                sync_folder(Path(folder))
            check_free(self.target)
            self.path.rename(self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise full_disk(error, self.target.parent) from error


class Writing:
    """A file that is written once, and its digest."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, piece: bytes) -> None:
        """More of it. Raises OSError."""
        self._digest.update(piece)
        self.size += len(piece)
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]

    @property
    def sha256(self) -> str:
        """Of all that was written."""
        return self._digest.hexdigest()


def check_free(target: Path) -> None:
    """Raise AlreadyExistsError unless there is nothing at a path, or an empty directory."""
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise errors.AlreadyExistsError(f"{target} exists already", hint="name a directory that does not exist yet")


def state_files(state: Path, *, keys: bool) -> list[str]:
    """What of the server's directory goes into a backup, by its path there; databases and blobs are not among it."""
    found = []
    for path in sorted(state.iterdir()):
        name = path.relative_to(state)
        private = any(name.match(one) for one in KEYS)
        if path.name == "blobs" or any(name.match(one) for one in _LEFT_OUT) or (private and not keys):
            continue
        found += [str(one.relative_to(state)) for one in _files_below(path)]
    return found


def databases(state: Path) -> list[str]:
    """The databases of the server's directory."""
    return sorted(path.name for path in state.glob("*.db"))


def blobs(state: Path) -> list[tuple[str, str]]:
    """All blobs that are whole: (path below the server's directory, the digest that it must have or "")."""
    found = []
    for folder in sorted((state / "blobs").iterdir()):
        if folder.name != "incoming" and folder.is_dir():
            found += [
                (f"blobs/{folder.name}/{one.name}", "" if folder.name == "given" else one.name)
                for one in sorted(folder.iterdir())
            ]
    return found


def read_manifest(folder: Path) -> BackupManifest:
    """What a backup says of itself. Raises NotFoundError, DataLossError, VersionError."""
    path = folder / MANIFEST
    try:
        with _opened(path) as file:
            text = file.read(_MANIFEST_MOST)
    except FileNotFoundError:
        raise errors.NotFoundError(
            f"{folder} is no backup: there is no {MANIFEST} in it", hint="`alight server backup DIR` makes one"
        ) from None
    except OSError as error:
        raise errors.DataLossError(f"{path} could not be read: {error.strerror}") from error
    try:
        plain = msgspec.json.decode(text, type=dict)
        if isinstance(plain.get("format"), int) and plain["format"] > FORMAT:
            raise errors.VersionError(
                f"{folder} was made by Alight {plain.get('version')}, which writes backups that this one does not know",
                hint="update this one: `pip install --upgrade alight`",
            )
        manifest = msgspec.convert(plain, BackupManifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise errors.DataLossError(f"{path} is damaged: {error}", hint="use another backup") from error
    for one in manifest.files:
        if one.path.startswith("/") or ".." in one.path.split("/") or "\0" in one.path:
            raise errors.DataLossError(f"{path} is damaged: it names {one.path!r}", hint="use another backup")
    there = {one.path for one in manifest.files}
    for volume in manifest.volumes:
        if not ids.is_id(volume.volume_id, ids.VOLUME) or volume.file not in there:
            raise errors.DataLossError(f"{path} is damaged: it names {volume.volume_id!r}", hint="use another backup")
    return manifest


def take(folder: Path, one: BackupFile, into: Path) -> None:
    """Copy a file out of a backup, and check it. Raises DataLossError, ResourceExhaustedError."""
    source = folder / one.path
    try:
        with _opened(source) as file:
            try:
                with _new_file(into) as target:
                    writing = Writing(target)
                    while piece := file.read(_PIECE):
                        writing.write(piece)
                    os.fsync(target.fileno())
            except OSError as error:
                raise full_disk(error, into.parent) from error
    except OSError as error:
        raise errors.DataLossError(
            f"the backup is not whole: {source} cannot be read: {error.strerror}", hint="use another backup"
        ) from error
    if (writing.size, writing.sha256) != (one.size, one.sha256):
        raise errors.DataLossError(
            f"the backup is damaged: {source} is not what was written to it", hint="use another backup"
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A regular file for reading, never by way of a link. Raises OSError, DataLossError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise errors.DataLossError(f"{path} is no regular file")
        yield file


def _new_file(path: Path) -> IO[bytes]:
    """A file that was not there, for its owner alone. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)


def _files_below(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        for one in sorted(path.iterdir()):
            yield from _files_below(one)
    elif path.is_file() and not path.is_symlink():
        yield path
