"""``alight volume history, snapshot, diff, restore``: what a volume was, and how it becomes that again."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

import click

from alight.cli import options, session, tables, volume_paths
from alight.cli.errors import UsageError
from alight.wire.codec import loads_head
from alight.wire.errors import AlreadyExistsError, NotFoundError
from alight.wire.snapshots import (
    Difference,
    Restored,
    Snapshot,
    SnapshotAsked,
    VolumeDifferences,
    VolumeHistory,
    VolumeVersion,
)
from alight.wire.stored import VolumeFile, VolumeFiles, VolumePath
from alight.wire.transfers import name_in

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "mode": "m", "type": "!"}


@click.command()
@click.argument("name")
@click.option("-n", "--limit", default=20, show_default=True, help="How many commits; 0: all that are kept (1000).")
@options.environment
@options.as_json
def history(name: str, limit: int, environment: Optional[str], as_json: bool) -> None:
    """Show commits and snapshots of a volume, newest first."""
    asked = SnapshotAsked(volume_paths.find(name, environment), limit=limit)
    found = session.ask("volume.history", asked, VolumeHistory)
    rows = [(one.at, _version_row(one, as_json=as_json)) for one in found.versions]
    rows += [(one.at, _snapshot_row(one, as_json=as_json)) for one in found.snapshots]
    rows.sort(key=lambda row: -row[0])
    tables.show(
        ("When", "What", "Files", "Bytes", "By"),
        [(tables.when(at), *cells) for at, cells in rows],
        as_json=as_json,
        empty=f"Nothing was committed to {name} yet.",
    )


@click.command()
@click.argument("name")
@click.option("--label", default="", help="A name of your own for it, instead of s1, s2, …")
@click.option("--delete", "delete", metavar="SNAPSHOT", default="", help="Let a snapshot go instead of making one.")
@options.yes
@options.environment
def snapshot(name: str, label: str, delete: str, yes: bool, environment: Optional[str]) -> None:
    """Keep what a volume holds now, to compare with it or to go back to it."""
    volume_id = volume_paths.find(name, environment)
    if delete:
        if label:
            raise UsageError("--label names a new snapshot, and --delete makes none")
        options.confirm(f"Delete the snapshot {delete} of {name}?", yes=yes)
        session.tell("volume.snapshot_delete", SnapshotAsked(volume_id, snapshot=delete))
        return
    made = session.ask("volume.snapshot", SnapshotAsked(volume_id, label=label), Snapshot)
    cost = "sharing blocks with the volume" if made.how == "reflink" else f"{tables.size(made.copied)} copied"
    print(made.name)
    print(f"{_count(made.files)} of {name}, {tables.size(made.size)}, {cost}", file=sys.stderr)
    if made.unsteady:
        print(f"{_count(made.unsteady)} changed each time while copied: they may be mixtures", file=sys.stderr)
    if made.left_out:
        print(f"{made.left_out} sockets, pipes and devices are not in it: they hold no data", file=sys.stderr)


@click.command()
@click.argument("name")
@click.argument("snapshot")
@click.argument("other", default="")
@options.environment
@options.as_json
def diff(name: str, snapshot: str, other: str, environment: Optional[str], as_json: bool) -> None:
    """List what OTHER (a snapshot; without it, the volume as it is now) has otherwise than SNAPSHOT."""
    asked = SnapshotAsked(volume_paths.find(name, environment), snapshot=snapshot, other=other)
    found: List[Difference] = []
    for head, _ in session.stream("volume.diff", asked):
        found.extend(loads_head(VolumeDifferences, head).differences)
    if as_json:
        rows = [(one.kind, one.path, one.size, one.before) for one in found]
        tables.show(("Kind", "Path", "Size", "Before"), rows, as_json=True)
        return
    for one in found:
        print(f"{_SIGNS.get(one.kind, '?')} {volume_paths.shown(one.path)}{_sizes(one)}")
    if not found:
        print("No differences.", file=sys.stderr)


@click.command()
@click.argument("name")
@click.argument("snapshot")
@click.argument("path", default="/")
@click.option("--exact", is_flag=True, help="Also remove what the snapshot does not have.")
@click.option("--to", type=click.Path(path_type=Path), help="Write the files here instead of into the volume.")
@options.yes
@options.environment
def restore(  # noqa: PLR0913, PLR0917  what a command line has
    name: str, snapshot: str, path: str, exact: bool, to: Optional[Path], yes: bool, environment: Optional[str]
) -> None:
    """Put a snapshot's files back into the volume, or the part of it below PATH.

    Containers may go on using the volume: each file is replaced in one step, and who has the old one open keeps it.
    """
    volume_id = volume_paths.find(name, environment)
    if to is not None:
        if exact:
            raise UsageError("--exact removes files of the volume, and --to leaves the volume as it is")
        count = _fetch(volume_id, snapshot, path, to)
        print(f"Wrote {_count(count)} of {snapshot} to {to}", file=sys.stderr)
        return
    what = name if path == "/" else f"{path} in {name}"
    more = ", and remove what is not in it" if exact else ""
    options.confirm(f"Replace {what} by the snapshot {snapshot}{more}?", yes=yes)
    asked = SnapshotAsked(volume_id, snapshot=snapshot, path=path, exact=exact)
    done = session.ask("volume.restore", asked, Restored)
    removed = f", removed {done.removed}" if done.removed else ""
    print(f"Restored {_count(done.files)} ({tables.size(done.size)}){removed}", file=sys.stderr)


def _version_row(one: VolumeVersion, *, as_json: bool) -> Tuple[object, ...]:
    removed = "" if not one.removed else ", some removed" if one.removed < 0 else f", {one.removed} removed"
    function = f"{one.app}.{one.function}" if one.app and one.function else ""
    who = " ".join(part for part in (function, one.container) if part) or one.by
    return f"v{one.version} {one.kind}{removed}", one.files, one.size if as_json else tables.size(one.size), who


def _snapshot_row(one: Snapshot, *, as_json: bool) -> Tuple[object, ...]:
    label = f" ({one.label})" if one.label else ""
    automatic = ", automatic" if one.automatic else ""
    what = f"snapshot {one.name}{label}{automatic}"
    return what, one.files, one.size if as_json else tables.size(one.size), ""


def _sizes(one: Difference) -> str:
    if one.kind == "changed":
        return f"  {tables.size(one.before)} → {tables.size(one.size)}"
    if one.kind == "mode":
        return "  rights or owner"
    return "  another kind of file" if one.kind == "type" else ""


def _fetch(volume_id: str, snapshot: str, path: str, to: Path) -> int:
    """Files of a snapshot into a directory here; refused before anything is written when one exists already."""
    files = [one for one in _files(volume_id, snapshot, path) if one.kind == "file"]
    targets = [to.joinpath(*_parts(one.path)) for one in files]
    existing = [target for target in targets if os.path.lexists(target)]
    if existing:
        raise AlreadyExistsError(f"{existing[0]} exists already", hint="choose another directory for --to")
    for file, target in zip(files, targets):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name[:200]}.part")
        with part.open("wb") as out:
            for _, body in session.stream("volume.read", VolumePath(volume_id, file.path, snapshot=snapshot)):
                out.write(body)
        part.replace(target)
    return len(files)


def _files(volume_id: str, snapshot: str, path: str) -> Iterator[VolumeFile]:
    request = VolumePath(volume_id, path, recursive=True, snapshot=snapshot)
    for head, _ in session.stream("volume.files", request):
        yield from loads_head(VolumeFiles, head).files


def _parts(path: str) -> List[str]:
    parts = [part for part in name_in(path).split("/") if part]
    if any(part in {".", ".."} for part in parts):
        raise NotFoundError(f"the snapshot names a file outside itself: {path}")
    return parts


def _count(files: int) -> str:
    return f"{files} file{'' if files == 1 else 's'}"
