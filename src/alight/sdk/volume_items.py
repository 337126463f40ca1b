"""What is to be uploaded: collected in a block, found in directories, and opened to be read more than once."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from alight.sdk import progress
from alight.wire import errors
from alight.wire.codec import PIECE


class Item:
    """One file that is to have a path in the volume."""

    __slots__ = ("mode", "path", "seen", "source", "start")

    def __init__(self, source: Union[Path, BinaryIO], path: str, mode: Optional[int]) -> None:
        self.source = source
        self.path = path
        self.mode = mode
        self.start = 0  # where an open file stood: what lies before is not meant
        self.seen: Any = None  # how a file looked when its digest was taken

    def __repr__(self) -> str:
        return str(self.source) if isinstance(self.source, Path) else self.path


class VolumeUpload:
    """What a ``batch_upload`` block collects."""

    def __init__(self) -> None:
        self.collected: Dict[str, Item] = {}

    def put_file(
        self,
        local_file: Union[str, os.PathLike[str], BinaryIO, io.BytesIO],
        remote_path: Union[str, PurePosixPath],
        mode: Optional[int] = None,
    ) -> None:
        """Upload one file (a path, or an open binary file) to ``remote_path``. ``mode``: its permissions."""
        remote = str(remote_path)
        if remote.endswith("/"):
            raise errors.InvalidError(f"remote_path {remote!r} names a directory; put_file() needs the file's own path")
        if hasattr(local_file, "read"):
            self._add(Item(local_file, remote, mode))  # type: ignore[arg-type]  # it reads
            return
        local = Path(os.fspath(local_file))
        if not local.is_file():
            if local.exists() and not local.is_dir():
                raise errors.InvalidError(f"{local} is not a regular file: it cannot be uploaded")
            raise FileNotFoundError(f"there is no file {local} to upload")
        self._add(Item(local, remote, mode))

    def put_directory(
        self,
        local_path: Union[str, os.PathLike[str]],
        remote_path: Union[str, PurePosixPath],
        recursive: bool = True,
    ) -> None:
        """Upload the files of a directory (with ``recursive`` those below it too) under ``remote_path``."""
        local, remote = Path(local_path), str(remote_path).rstrip("/")
        if not local.is_dir():
            raise FileNotFoundError(f"there is no directory {local} to upload")
        left: List[str] = []
        for path, inside in files_below(local, recursive=recursive, left_out=left.append):
            self._add(Item(path, f"{remote}/{inside}", None))
        if left:
            progress.current().note(left_out_words(left))

    def _add(self, item: Item) -> None:
        item.path = _normal(item.path)
        self.collected[item.path] = item  # the last one for a path is the one that is meant


def files_below(
    local: Path, *, recursive: bool = True, left_out: Callable[[str], Any] = lambda path: None
) -> Iterator[Tuple[Path, str]]:
    """The files of a directory with their paths in it, sorted. Links to files count as files.

    Links to directories, devices, pipes and sockets are told to ``left_out``.
    """
    pending = [""]
    while pending:
        inside = pending.pop()
        below: List[str] = []
        for name in sorted(os.listdir(local / inside)):
            path = f"{inside}/{name}" if inside else name
            full = os.path.join(local, path)
            try:
                mode = os.stat(full).st_mode
            except OSError:
                left_out(full)  # a link that leads nowhere, or it went away
                continue
            if stat.S_ISREG(mode):
                yield Path(full), path
            elif stat.S_ISDIR(mode) and not os.path.islink(full):
                below.append(path)
            else:
                left_out(full)
        if recursive:
            pending.extend(reversed(below))


def left_out_words(paths: Sequence[str]) -> str:
    """What is said of entries that are neither files nor directories."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"left out, since neither a file nor a directory of its own: {', '.join(paths[:3])}{more}"


class opened:  # noqa: N801  reads as a statement
    """An item's file, to be read. Ours is closed at the end, the caller's own stays open."""

    def __init__(self, item: Item) -> None:
        self._item = item
        self._file: Any = None

    def __enter__(self) -> Any:
        source = self._item.source
        if not isinstance(source, Path):
            return source
        try:
            # Not blocking: it may have become a pipe since it was looked at.
            fd = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise errors.InvalidError(f"{source} cannot be read: {error.strerror}") from error
        self._file = os.fdopen(fd, "rb", buffering=0)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            self._file.close()
            raise errors.InvalidError(f"{source} is not a regular file: it cannot be uploaded")
        return self._file

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def look_of(status: os.stat_result) -> Tuple[int, ...]:
    """Another value when a file's bytes may be others."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def make_readable(item: Item, kept: List[BinaryIO]) -> None:
    """Let an open file be read more than once: what cannot go back is copied to a temporary file, added to ``kept``."""
    if isinstance(item.source, Path):
        return
    source = item.source
    try:
        item.start = source.tell()
        source.seek(item.start)
    except (OSError, AttributeError, io.UnsupportedOperation):
        copy = tempfile.TemporaryFile()  # noqa: SIM115  as long as the upload, which closes it
        kept.append(copy)
        while True:
            piece = source.read(PIECE)
            if not piece:
                break
            copy.write(piece)
        item.source, item.start = copy, 0


def _normal(path: str) -> str:
    """A path in the volume as the volume will have it. Raises InvalidError for what leads upwards or nowhere."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise errors.InvalidError(f"the path {path!r} leads upwards", hint="name the file from the volume's root")
    if not parts or "\0" in path:
        raise errors.InvalidError(f"{path!r} cannot be the path of a file in a volume")
    return "/".join(parts)
