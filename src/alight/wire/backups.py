"""What is said about backups, and the manifest that a backup holds. See ``messages`` for the notation."""

from __future__ import annotations

from typing import Dict, Tuple

from alight.wire.record import dataclass, field

FORMAT = 1  # of the directory; a reader refuses what is newer
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class BackupMake:
    """server.backup ⇉ BackupSaid while it goes, BackupMade at the end.

    ``path`` is a directory of the server's machine that does not exist yet, or is empty. ``volumes``: names of the
    environment, or "*" for all volumes of all environments.
    """

    path: str
    with_key: bool = False
    volumes: Tuple[str, ...] = ()
    environment: str = ""


@dataclass(frozen=True)
class BackupSaid:
    """So much of a part has been copied."""

    doing: str
    bytes: int = 0


@dataclass(frozen=True)
class BackupMade:
    """``unkeyed``: secrets whose key is not in the backup. ``notes``: what is not as whole as it might seem."""

    path: str
    files: int
    bytes: int
    secrets: int = 0
    unkeyed: int = 0
    key_file: str = ""
    volumes: Tuple[str, ...] = ()
    notes: Tuple[str, ...] = ()


@dataclass(frozen=True)
class BackupFile:
    """One file of a backup, by its path below it. ``sha256`` in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class BackupVolume:
    """A volume in a backup: ``file`` is a tar archive of its content."""

    volume_id: str
    name: str
    environment: str
    file: str
    entries: int = 0


@dataclass(frozen=True)
class BackupManifest:
    """manifest.json. ``schema``: of the database. ``secrets``: how many each key has sealed, by the key's id."""

    format: int
    version: str
    schema: int
    server_id: str
    made_at: float
    home: str = ""
    secrets: Dict[str, int] = field(default_factory=dict)
    files: Tuple[BackupFile, ...] = ()
    volumes: Tuple[BackupVolume, ...] = ()
    notes: Tuple[str, ...] = ()


@dataclass(frozen=True)
class VolumePack:
    """node.pack ⇉ the bytes of a tar archive, in bodies; the last message is VolumePacked."""

    volume_id: str


@dataclass(frozen=True)
class VolumePacked:
    """``skipped``: sockets, pipes and devices. ``changed``: files that were written to while they were read."""

    entries: int
    skipped: int = 0
    changed: Tuple[str, ...] = ()
