"""What is decided about snapshots: which files are copied, which snapshots go, what differs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from alight.node.volume_entries import DIRECTORY, FILE, Entry
from alight.wire.snapshots import Difference, Snapshot

#: Automatic ones that stay: of the last commits, and one an hour for a day.
COMMITS_KEPT = 3
HOURS_KEPT = 24
_HOUR = 3600.0


def unchanged(now: Entry, before: Entry | None) -> bool:
    """Whether an entry is byte by byte what it was. ``ctime`` cannot be set back, so it says more than ``mtime``."""
    return before is not None and now.ctime != 0 and _mark(now) == _mark(before)


def steady(entry: Entry, at: int) -> Entry:
    """An entry as an index keeps it: what may have changed after the snapshot's moment ``at`` never counts as same."""
    if entry.ctime < at:
        return entry
    return replace(entry, ctime=0)


def to_copy(entries: Iterable[Entry], before: Mapping[str, Entry]) -> int:
    """Bytes on the disk that a snapshot by copying would take."""
    seen: set[int] = set()
    total = 0
    for one in entries:
        if one.kind == FILE and one.inode not in seen and not unchanged(one, before.get(one.path)):
            seen.add(one.inode)
            total += one.blocks
    return total


@dataclass(frozen=True)
class Room:
    """What decides whether a snapshot by copying fits. Bytes."""

    copies: int  # what it would copy
    kept: int  # what the volume's snapshots copied already
    volume: int  # what the volume holds now
    free: int  # on the disk
    disk: int


def refusal(room: Room, share: float, spare: float) -> str:
    """Why such a snapshot is not made; "" when it fits.

    Copies of one volume may be ``share`` times what it holds, and ``spare`` of the disk stays free.
    """
    if room.copies == 0:
        return ""
    if room.free - room.copies < room.disk * spare:
        return f"{spare:.0%} of the disk would not stay free"
    if room.kept + room.copies > max(room.volume, room.copies) * share:
        return f"its snapshots would take more than {share:g} times what the volume holds"
    return ""


def outdated(snapshots: Iterable[Snapshot], now: float) -> list[str]:
    """Names of automatic snapshots that are no longer kept. Those that somebody took or labelled stay."""
    automatic = sorted((one for one in snapshots if one.automatic and not one.label), key=lambda one: -one.at)
    kept = {one.name for one in automatic[:COMMITS_KEPT]}
    hours: dict[int, str] = {}
    for one in automatic:
        if now - one.at < HOURS_KEPT * _HOUR:
            hours[int(one.at // _HOUR)] = one.name  # the oldest of its hour is seen last
    kept.update(hours.values())
    return [one.name for one in automatic if one.name not in kept]


def due(snapshots: Iterable[Snapshot], kind: str, now: float, took: float) -> bool:
    """Whether a commit of that kind makes an automatic snapshot. ``took``: seconds that the last one took."""
    newest = max((one.at for one in snapshots if one.automatic), default=0.0)
    pause = max(20 * took, _HOUR if kind == "background" else 0.0)
    return now - newest >= pause


def differences(now: Mapping[str, Entry], before: Mapping[str, Entry]) -> tuple[list[Difference], list[str]]:
    """What differs; and the paths of files for which only their bytes can tell: written since, and looking the same."""
    found: list[Difference] = []
    unsure: list[str] = []
    for path in sorted(now.keys() | before.keys()):
        new, old = now.get(path), before.get(path)
        if path == ".":
            continue
        if old is None:
            assert new is not None
            found.append(Difference(path, "added", new.size))
        elif new is None:
            found.append(Difference(path, "removed", 0, old.size))
        elif new.kind != old.kind:
            found.append(Difference(path, "type", new.size, old.size))
        elif new.kind != DIRECTORY and (new.size != old.size or new.mtime != old.mtime):
            found.append(Difference(path, "changed", new.size, old.size))
        elif (new.mode, new.uid, new.gid) != (old.mode, old.uid, old.gid):
            found.append(Difference(path, "mode", new.size, old.size))
        elif new.kind == FILE and _mark(new) != _mark(old):
            unsure.append(path)
    return found, unsure


def _mark(entry: Entry) -> tuple[str, int, int, int, int]:
    return entry.kind, entry.inode, entry.size, entry.mtime, entry.ctime
