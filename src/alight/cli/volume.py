"""``alight volume``: files that outlive their containers, listed, fetched and put without starting one."""

from __future__ import annotations

import sys
from typing import Iterator, Optional, Tuple

import click

from alight.cli import dashboard as pages
from alight.cli import options, session, sizes, tables, terminal, volume_history, volume_paths, volume_transfer
from alight.cli.errors import UsageError
from alight.wire.ids import check_name
from alight.wire.stored import NamedList, VolumeDelete, VolumeEnsure, VolumeFile, VolumeInfo, VolumeListed


@click.group(short_help="Files that outlive their containers.")
def volume() -> None:
    """Files that outlive their containers."""


@volume.command("list")
@options.environment
@options.as_json
def list_(environment: Optional[str], as_json: bool) -> None:
    """List volumes: how large they are, when something was last committed, and who has them mounted."""
    request = NamedList(environment=session.environment(environment), details=True)
    listed = session.ask("volume.list", request, VolumeListed).volumes
    columns = ("Name", "Created at", "Size", "Files", "Last commit", "Mounted by", "Limit")
    rows = [(one.name, tables.when(one.created_at), *(_numbers(one) if as_json else _words(one))) for one in listed]
    tables.show(columns, rows, as_json=as_json, empty="No volumes yet. `alight volume create NAME` makes one.")


@volume.command()
@click.argument("name")
@click.option("--version", type=click.Choice(["1", "2"]), default="2", help="Accepted for old scripts; without effect.")
@click.option("--size", callback=sizes.option, help="The most that it may hold, as 20GB or 500MiB. Default: no limit.")
@options.environment
def create(name: str, version: str, size: int, environment: Optional[str]) -> None:
    """Make a volume."""
    check_name(name, "volume")
    request = VolumeEnsure(
        name=name,
        environment=session.environment(environment),
        create=True,
        exclusive=True,
        version=int(version),
        size=size,
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
@click.option("-r", "--recursive", is_flag=True, help="List directories below, too.")
@click.option("-l", "--long", is_flag=True, help="Show types, times and sizes in a pipe, too.")
@click.option("-0", "--null", is_flag=True, help="End names with a zero byte, for `xargs -0`.")
@options.environment
@options.as_json
def ls(  # noqa: PLR0913, PLR0917  what a command line has
    name: str, path: str, recursive: bool, long: bool, null: bool, environment: Optional[str], as_json: bool
) -> None:
    """List the files of a volume. PATH may be a pattern. In a pipe: their paths, one per line."""
    volume_id = volume_paths.find(name, environment)
    if not as_json and not long and (null or not terminal.is_terminal(sys.stdout)):
        volume_paths.print_names((file.path for file in _listed(volume_id, path, recursive)), "\0" if null else "\n")
        return
    rows = [
        (
            file.path if as_json else volume_paths.shown(file.path),
            file.kind,
            tables.when(file.mtime),
            file.size if as_json else _shown_size(file),
        )
        for file in sorted(_listed(volume_id, path, recursive), key=lambda file: file.path)
    ]
    tables.show(("Filename", "Type", "Created/Modified", "Size"), rows, as_json=as_json, empty="Nothing there.")


volume.add_command(volume_transfer.get)
volume.add_command(volume_transfer.put)
for _command in (volume_history.history, volume_history.snapshot, volume_history.diff, volume_history.restore):
    volume.add_command(_command)


@volume.command()
@click.argument("name")
@click.argument("paths", metavar="SOURCE... DESTINATION", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Copy directories, too.")
@options.environment
def cp(name: str, paths: Tuple[str, ...], recursive: bool, environment: Optional[str]) -> None:
    """Copy files within a volume. Sources may be patterns."""
    if len(paths) < 2:
        raise UsageError("there is no destination", hint=f"alight volume cp {name} {paths[0]} DESTINATION")
    volume_id = volume_paths.find(name, environment)
    sources = [one for path in paths[:-1] for one in volume_paths.expand(volume_id, path)]
    session.tell("volume.copy", volume_paths.at(volume_id, paths[-1], recursive=recursive, sources=sources))


@volume.command()
@click.argument("name")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="Remove a directory with everything in it.")
@options.environment
def rm(name: str, paths: Tuple[str, ...], recursive: bool, environment: Optional[str]) -> None:
    """Remove files or directories from a volume. Paths may be patterns."""
    volume_id = volume_paths.find(name, environment)
    for one in [one for path in paths for one in volume_paths.expand(volume_id, path)]:
        session.tell("volume.remove", volume_paths.at(volume_id, one, recursive=recursive))


@volume.command("dashboard")
@click.argument("name")
@pages.browser_option
@options.environment
def dashboard_(name: str, browser: Optional[bool], environment: Optional[str]) -> None:
    """Open a volume's page of the dashboard."""
    pages.show(volume_paths.find(name, environment), browser=browser)


def _listed(volume_id: str, path: str, recursive: bool) -> Iterator[VolumeFile]:
    """What a path or pattern shows: of a directory what is in it, of a pattern what matches."""
    matching = volume_paths.matching(volume_id, path)
    if matching is None:
        yield from volume_paths.files(volume_id, path, recursive=recursive)
        return
    for file in matching:
        yield file
        if recursive and file.kind == "directory":
            yield from volume_paths.files(volume_id, file.path, recursive=True)


def _numbers(one: VolumeInfo) -> Tuple[object, ...]:
    size, files = (one.size, one.files) if one.size >= 0 else (None, None)
    return size, files, tables.when(one.committed_at), list(one.mounted), one.limit or None


def _words(one: VolumeInfo) -> Tuple[object, ...]:
    size, files = (tables.size(one.size), str(one.files)) if one.size >= 0 else ("?", "?")
    committed = tables.when(one.committed_at) or "never"
    return size, files, committed, ", ".join(one.mounted), tables.size(one.limit) if one.limit else ""


def _shown_size(file: VolumeFile) -> str:
    return tables.size(file.size) if file.kind == "file" else ""
