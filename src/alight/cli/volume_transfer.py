"""``alight volume put`` and ``get``: files and directories to and from a volume, with their progress on a terminal."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import click

from alight.cli import options, session, terminal, volume_paths
from alight.cli.errors import UsageError
from alight.sdk import client as sdk_client
from alight.sdk import volume_fetch, volume_items, volume_upload
from alight.sdk.sync import run
from alight.wire.codec import PIECE
from alight.wire.errors import AlreadyExistsError, Error
from alight.wire.stored import VolumeFile, VolumePath
from alight.wire.transfers import Uploaded, name_out


@click.command()
@click.argument("name")
@click.argument("remote")
@click.argument("local", default=".")
@click.option("-f", "--force", is_flag=True, help="Replace files that exist here.")
@options.environment
def get(name: str, remote: str, local: str, force: bool, environment: Optional[str]) -> None:
    """Fetch files or directories from a volume. REMOTE may be a pattern; LOCAL - writes files to standard output."""
    volume_id = volume_paths.find(name, environment)
    paths = volume_paths.expand(volume_id, remote)
    if local == "-":
        for path in paths:
            for piece in _pieces_of(volume_id, path):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    into = Path(local)
    if len(paths) > 1:
        if into.exists() and not into.is_dir():
            raise UsageError(f"{local} is a file, and {len(paths)} paths match {remote}")
        into.mkdir(parents=True, exist_ok=True)
    targets: Dict[Path, volume_fetch.Target] = {}
    left_out: List[str] = []
    for path in paths:
        for file, target in _plan_get(volume_id, path, into, left_out):
            if target.exists() and not force:
                raise AlreadyExistsError(f"{target} exists already", hint="--force replaces it")
            targets[target] = volume_fetch.Target(file, target)
    for folder in {target.parent for target in targets}:
        folder.mkdir(parents=True, exist_ok=True)
    total = sum(target.file.size for target in targets.values())
    again = f"the same command goes on where it was: alight volume get {name} {remote} {local}"
    with _progress(f"Fetching from {name}", total, again) as on_bytes:
        odd = fetch_files(volume_id, list(targets.values()), on_bytes)
    for path in left_out:
        print(f"left out: {volume_paths.shown(path)}", file=sys.stderr)
    failed = [one for one in odd if one.failed]
    for one in odd:
        what = one.failed or "changed while it was fetched, twice: what is here may be a mixture"
        print(f"{volume_paths.shown(one.file.path)}: {what}", file=sys.stderr)
    print(f"Fetched {_count(len(targets) - len(failed))} from {name}", file=sys.stderr)
    if failed:
        raise Error(f"{_count(len(failed))} could not be fetched")


@click.command()
@click.argument("name")
@click.argument("local")
@click.argument("remote", default="/")
@click.option("-f", "--force", is_flag=True, help="Replace files that exist there.")
@options.environment
def put(name: str, local: str, remote: str, force: bool, environment: Optional[str]) -> None:
    """Put a file or a directory into a volume. A REMOTE that ends in / is a directory to put it into.

    All files appear together at the end, or none. LOCAL - reads one file from standard input.
    """
    if local == "-":
        _put_input(name, remote, force=force, environment=environment)
        return
    source = Path(local)
    if not source.exists():
        raise UsageError(f"there is no file {local}")
    if not source.is_dir() and not stat.S_ISREG(source.stat().st_mode):
        raise UsageError(f"{local} is neither a file nor a directory", hint="to put what a pipe says: … | put NAME -")
    volume_id = volume_paths.find(name, environment)
    left_out: List[str] = []
    items = list(_plan_put(source, remote, left_out))
    total = sum(_size(item) for item in items)
    again = (
        f"nothing has changed in the volume; what came is kept for a day, and the same command goes on where it was: "
        f"alight volume put {name} {local} {remote}"
    )
    with _progress(f"Putting into {name}", total, again) as on_bytes:
        done = send_files(volume_id, items, force=force, on_bytes=on_bytes)
    if left_out:
        print(volume_items.left_out_words([volume_paths.shown(path) for path in left_out]), file=sys.stderr)
    there = done.files - done.came
    same = f" ({_count(there)} the volume had already)" if there > 0 else ""
    print(f"Put {_count(len(items))} into {name}{same}", file=sys.stderr)


def send_files(
    volume_id: str, items: Sequence[volume_items.Item], *, force: bool, on_bytes: Callable[[int], Any]
) -> Uploaded:
    """Upload, blocking."""
    done: Uploaded = run(
        volume_upload.upload(sdk_client.default_client(), volume_id, items, force=force, on_bytes=on_bytes)
    )
    return done


def fetch_files(
    volume_id: str, targets: Sequence[volume_fetch.Target], on_bytes: Callable[[int], Any]
) -> List[volume_fetch.Target]:
    """Fetch, blocking. Those that could not be fetched, or changed meanwhile."""
    odd: List[volume_fetch.Target] = run(
        volume_fetch.fetch(sdk_client.default_client(), volume_id, targets, on_bytes=on_bytes)
    )
    return odd


def _pieces_of(volume_id: str, path: str) -> Iterator[bytes]:
    for _, body in session.stream("volume.read", volume_paths.at(volume_id, path)):
        yield body


def _put_input(name: str, remote: str, *, force: bool, environment: Optional[str]) -> None:
    if remote.endswith("/"):
        raise UsageError("standard input needs a name there", hint=f"alight volume put {name} - {remote}NAME")
    volume_id = volume_paths.find(name, environment)
    request = VolumePath(volume_id=volume_id, path=name_out(remote), force=force, mode=0o644)
    session.send("volume.write", request, _pieces(sys.stdin.buffer))
    print(f"Put 1 file into {name}", file=sys.stderr)


def _plan_get(volume_id: str, remote: str, local: Path, left_out: List[str]) -> Iterator[Tuple[VolumeFile, Path]]:
    """What to fetch and where to. A file goes into an existing directory, or to the path that was named.

    Directories are made on the way, so that empty ones come, too.
    """
    root = PurePosixPath("/" + remote.strip("/"))
    base = local / root.name if root.name else local
    for file in volume_paths.files(volume_id, str(root), recursive=True):
        path = PurePosixPath("/" + file.path)
        if path == root and file.kind != "directory":
            if file.kind == "other":
                left_out.append(f"{file.path}, which is neither a file nor a directory")
            else:
                yield file, base if local.is_dir() else local
            return
        inside = path.relative_to(root)
        if ".." in inside.parts:
            raise Error(f"the volume names a file outside itself: {file.path}")
        target = base.joinpath(*inside.parts)
        if file.kind == "directory":
            target.mkdir(parents=True, exist_ok=True)
        elif file.kind == "file":
            yield file, target
        else:
            what = "a link" if file.kind == "symlink" else "neither a file nor a directory"
            left_out.append(f"{file.path}, which is {what}")
    base.mkdir(parents=True, exist_ok=True)


def _plan_put(local: Path, remote: str, left_out: List[str]) -> Iterator[volume_items.Item]:
    into = remote.endswith("/")
    base = remote.strip("/")
    if local.is_dir():
        if into and base:
            base = f"{base}/{local.resolve().name}"
        for source, inside in volume_items.files_below(local, left_out=left_out.append):
            yield volume_items.Item(source, f"{base}/{inside}" if base else inside, None)
        return
    if into:
        base = f"{base}/{local.name}" if base else local.name
    yield volume_items.Item(local, base, None)


def _size(item: volume_items.Item) -> int:
    try:
        return item.source.stat().st_size if isinstance(item.source, Path) else 0
    except OSError:
        return 0


@contextlib.contextmanager
def _progress(what: str, total: int, again: str) -> Iterator[Callable[[int], Any]]:
    """A bar on a terminal, nothing elsewhere; and how to go on after Ctrl-C."""
    try:
        if not terminal.is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
            yield lambda count: None
            return
        from rich.console import Console  # noqa: PLC0415  only when it draws
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Interrupted: {again}") from None
    except AlreadyExistsError as error:
        error.hint = error.hint or "--force replaces it"
        raise


def _count(number: int) -> str:
    return f"{number} file{'' if number == 1 else 's'}"


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while True:
        piece = file.read(PIECE)
        if not piece:
            return
        yield piece
