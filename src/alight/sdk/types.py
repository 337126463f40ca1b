"""Plain data that calls return, as `alight.types` shows it. Nothing here talks to a server."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Optional

from alight.wire.record import dataclass


class FileEntryType(enum.IntEnum):
    """What a path is."""

    UNSPECIFIED = 0
    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5


@dataclass(frozen=True)
class FileEntry:
    """One path of a volume, relative to its root. ``mtime`` in seconds since 1970, ``size`` in bytes."""

    path: str
    type: FileEntryType
    mtime: int
    size: int


@dataclass(frozen=True)
class VolumeInfo:
    name: Optional[str]
    created_at: datetime
    created_by: Optional[str]


@dataclass(frozen=True)
class SecretInfo:
    name: Optional[str]
    environment_name: Optional[str]
    created_at: datetime
    created_by: Optional[str]
    last_used: Optional[datetime]
