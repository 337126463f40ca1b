"""``alight volume``: files that outlive their containers, listed, fetched and put without starting one."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Iterator, List, Optional, Tuple

import click

from alight.cli import options, session, tables, terminal
from alight.cli.errors import UsageError
from alight.wire.codec import PIECE, loads_head
from alight.wire.errors import AlreadyExistsError, Error, NotFoundError
from alight.wire.ids import check_name
from alight.wire.stored import (
    NamedList,
    VolumeDelete,
    VolumeEnsure,
    VolumeFile,
    VolumeFiles,
    VolumeInfo,
    VolumeListed,
    VolumePath,
)


@click.group(short_help="Files that outlive their containers.")
def volume() -> None:
    """Files that outlive their containers."""


@volume.command("list")
@options.environment
@options.as_json
def list_(environment: Optional[str], as_json: bool) -> None:
    """List volumes."""
    listed = session.ask("volume.list", NamedList(environment=session.environment(environment)), VolumeListed)
    tables.show(
        ("Name", "Created at"),
        [(one.name, tables.when(one.created_at)) for one in listed.volumes],
        as_json=as_json,
        empty="No volumes yet. `alight volume create NAME` makes one.",
    )


@volume.command()
@click.argument("name")
@click.option("--version", type=click.Choice(["1", "2"]), default="2", help="Accepted for old scripts; without effect.")
@options.environment
def create(name: str, version: str, environment: Optional[str]) -> None:
    """Make a volume."""
    check_name(name, "volume")
    request = VolumeEnsure(
        name=name, environment=session.environment(environment), create=True, exclusive=True, version=int(version)
    )
    session.ask("volume.ensure", request, VolumeInfo)
    print(f"Created the volume {name}. Use it:\n", file=sys.stderr)
    print(f'    @app.function(volumes={{"/data": alight.Volume.from_name("{name}")}})', file=sys.stderr)


@volume.command()
@click.argument("old")
@click.argument("new")
@options.yes
@options.environment
def rename(old: str, new: str, yes: bool, environment: Optional[str]) -> None:
    """Rename a volume. Scripts that use the old name no longer find it."""
    check_name(new, "volume")
    options.confirm(f"Rename the volume {old} to {new}?", yes=yes)
    session.tell("volume.rename", VolumeDelete(name=old, environment=session.environment(environment), new_name=new))


@volume.command()
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="Do not mind when there is none of this name.")
@options.yes
@options.environment
def delete(name: str, allow_missing: bool, yes: bool, environment: Optional[str]) -> None:
    """Delete a volume with everything in it."""
    options.confirm(f"Delete the volume {name} with everything in it?", yes=yes)
    session.tell(
        "volume.delete",
        VolumeDelete(name=name, environment=session.environment(environment), allow_missing=allow_missing),
    )


@volume.command()
@click.argument("name")
@click.argument("path", default="/")
@options.environment
@options.as_json
def ls(name: str, path: str, environment: Optional[str], as_json: bool) -> None:
    """List the files of a volume. In a pipe: their paths, one per line."""
    volume_id = _find(name, environment)
    files = sorted(_files(volume_id, path), key=lambda file: file.path)
    if not as_json and not terminal.is_terminal(sys.stdout):
        print("".join(f"{file.path.lstrip('/')}\n" for file in files), end="")
        return
    rows = [
        (file.path.lstrip("/"), file.kind, tables.when(file.mtime), file.size if as_json else _shown_size(file))
        for file in files
    ]
    tables.show(("Filename", "Type", "Created/Modified", "Size"), rows, as_json=as_json, empty="Nothing there.")


@volume.command()
@click.argument("name")
@click.argument("remote")
@click.argument("local", default=".")
@click.option("-f", "--force", is_flag=True, help="Replace files that exist here.")
@options.environment
def get(name: str, remote: str, local: str, force: bool, environment: Optional[str]) -> None:
    """Fetch a file or a directory from a volume. LOCAL - writes a file to standard output."""
    volume_id = _find(name, environment)
    if local == "-":
        for piece in _read(volume_id, remote):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    count = 0
    for file, target in _plan_get(volume_id, remote, Path(local)):
        if file.kind == "directory":
            target.mkdir(parents=True, exist_ok=True)
            continue
        if file.kind != "file":
            print(f"{file.path} is a {file.kind} and was left out", file=sys.stderr)
            continue
        if target.exists() and not force:
            raise AlreadyExistsError(f"{target} exists already", hint="--force replaces it")
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(volume_id, file.path, target)
        count += 1
    print(f"Fetched {count} file{'' if count == 1 else 's'} from {name}", file=sys.stderr)


@volume.command()
@click.argument("name")
@click.argument("local", type=click.Path(path_type=Path))
@click.argument("remote", default="/")
@click.option("-f", "--force", is_flag=True, help="Replace files that exist there.")
@options.environment
def put(name: str, local: Path, remote: str, force: bool, environment: Optional[str]) -> None:
    """Put a file or a directory into a volume. A REMOTE that ends in / is a directory to put it into."""
    if not local.exists():
        raise UsageError(f"there is no file {local}")
    volume_id = _find(name, environment)
    count = 0
    for source, target in _plan_put(local, remote):
        with source.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            request = VolumePath(volume_id=volume_id, path=target, force=force, mode=mode)
            try:
                session.send("volume.write", request, _pieces(file))
            except AlreadyExistsError as error:
                error.hint = "--force replaces it"
                raise
        count += 1
    print(f"Put {count} file{'' if count == 1 else 's'} into {name}", file=sys.stderr)


@volume.command()
@click.argument("name")
@click.argument("paths", metavar="SOURCE... DESTINATION", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Copy directories, too.")
@options.environment
def cp(name: str, paths: Tuple[str, ...], recursive: bool, environment: Optional[str]) -> None:
    """Copy files within a volume."""
    if len(paths) < 2:
        raise UsageError("there is no destination", hint=f"alight volume cp {name} {paths[0]} DESTINATION")
    request = VolumePath(
        volume_id=_find(name, environment), path=paths[-1], sources=tuple(paths[:-1]), recursive=recursive
    )
    session.tell("volume.copy", request)


@volume.command()
@click.argument("name")
@click.argument("path")
@click.option("-r", "--recursive", is_flag=True, help="Remove a directory with everything in it.")
@options.environment
def rm(name: str, path: str, recursive: bool, environment: Optional[str]) -> None:
    """Remove a file or a directory from a volume."""
    session.tell("volume.remove", VolumePath(volume_id=_find(name, environment), path=path, recursive=recursive))


def _find(name: str, environment: Optional[str]) -> str:
    request = VolumeEnsure(name=name, environment=session.environment(environment))
    try:
        return session.ask("volume.ensure", request, VolumeInfo).volume_id
    except NotFoundError as error:
        if error.hint is None:
            error.hint = "`alight volume list` shows what there is"
        raise


def _files(volume_id: str, path: str, *, recursive: bool = False) -> List[VolumeFile]:
    request = VolumePath(volume_id=volume_id, path=path, recursive=recursive)
    files: List[VolumeFile] = []
    for head, _ in session.stream("volume.files", request):
        files.extend(loads_head(VolumeFiles, head).files)
    return files


def _read(volume_id: str, path: str) -> Iterator[bytes]:
    for _, body in session.stream("volume.read", VolumePath(volume_id=volume_id, path=path)):
        yield body


def _plan_get(volume_id: str, remote: str, local: Path) -> Iterator[Tuple[VolumeFile, Path]]:
    """What to fetch and where to. A file goes into an existing directory, or to the path that was named."""
    root = PurePosixPath("/" + remote.strip("/"))
    files = _files(volume_id, str(root), recursive=True)
    itself = [file for file in files if PurePosixPath("/" + file.path.lstrip("/")) == root and file.kind != "directory"]
    if itself:
        yield itself[0], local / root.name if local.is_dir() else local
        return
    base = local / root.name if root.name else local
    for file in sorted(files, key=lambda one: one.path):
        inside = PurePosixPath("/" + file.path.lstrip("/")).relative_to(root)
        if ".." in inside.parts:
            raise Error(f"the volume names a file outside itself: {file.path}")
        yield file, base.joinpath(*inside.parts)


def _plan_put(local: Path, remote: str) -> Iterator[Tuple[Path, str]]:
    into = remote.endswith("/")
    if local.is_dir():
        base = PurePosixPath("/" + remote.strip("/"))
        if into and remote.strip("/"):
            base /= local.resolve().name
        for source in sorted(local.rglob("*")):
            if source.is_file():
                yield source, str(base.joinpath(*source.relative_to(local).parts))
        return
    target = PurePosixPath("/" + remote.strip("/"))
    yield local, str(target / local.name if into else target)


def _fetch(volume_id: str, path: str, target: Path) -> None:
    """Write beside the target and rename, so that a broken transfer leaves no half file under its name."""
    handle, temporary = tempfile.mkstemp(dir=str(target.parent), prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in _read(volume_id, path):
                file.write(piece)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while True:
        piece = file.read(PIECE)
        if not piece:
            return
        yield piece


def _shown_size(file: VolumeFile) -> str:
    return tables.size(file.size) if file.kind == "file" else ""
