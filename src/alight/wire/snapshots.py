"""What is said of versions of volumes, of snapshots and of what differs between them. See ``messages``."""

from __future__ import annotations

from typing import Tuple

from alight.wire.record import dataclass


@dataclass(frozen=True)
class VolumeVersion:
    """One version of a volume's content. node → server: in Report "committed"; and the answer to "sync".

    ``kind``: commit (somebody called it), background, exit (of a container), upload, remove, copy, restore. ``removed``
    -1: some, and nobody counted. ``version`` 0 in what a node says: the server counts them.
    """

    volume_id: str
    kind: str = "commit"
    changed: bool = True
    files: int = 0
    size: int = 0
    removed: int = 0
    container: str = ""
    version: int = 0
    at: float = 0.0
    by: str = ""
    app: str = ""
    function: str = ""


@dataclass(frozen=True)
class Snapshot:
    """``how``: reflink or copy. ``copied`` bytes were copied for it, ``size`` is what its files hold.

    ``unsteady``: files that changed each time while they were copied; what the snapshot has of them may be mixed.
    """

    name: str
    label: str = ""
    at: float = 0.0
    version: int = 0
    files: int = 0
    size: int = 0
    copied: int = 0
    how: str = "copy"
    automatic: bool = False
    unsteady: int = 0
    left_out: int = 0  # sockets, pipes and devices, which are no data


@dataclass(frozen=True)
class VolumeHistory:
    """volume.history → this, newest first."""

    versions: Tuple[VolumeVersion, ...] = ()
    snapshots: Tuple[Snapshot, ...] = ()


@dataclass(frozen=True)
class SnapshotAsked:
    """args of volume.snapshot → Snapshot, volume.diff ⇉ VolumeDifferences, volume.restore → Restored,
    volume.snapshot_delete → {} and volume.history (``limit``); and what a node is asked for the same.

    A snapshot is named by its name ("s3") or its label. ``other`` "": the volume as it is now. ``exact`` has a restore
    remove what the snapshot does not have.
    """

    volume_id: str
    snapshot: str = ""
    other: str = ""
    label: str = ""
    path: str = "/"
    exact: bool = False
    limit: int = 0
    version: int = 0
    automatic: bool = False


@dataclass(frozen=True)
class Difference:
    """``kind``: added, removed, changed, mode (only rights, owner or attributes), type."""

    path: str
    kind: str
    size: int = 0
    before: int = 0


@dataclass(frozen=True)
class VolumeDifferences:
    differences: Tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Restored:
    files: int = 0
    size: int = 0
    removed: int = 0
