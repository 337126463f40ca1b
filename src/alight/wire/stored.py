"""What clients and the server say to each other about volumes and secrets. See ``messages``."""

from __future__ import annotations

from typing import Dict, Optional, Tuple

from alight.wire.record import dataclass


@dataclass(frozen=True)
class VolumeEnsure:
    """volume.ensure → VolumeInfo; volume.info (of a VolumePath) → VolumeInfo.

    Without ``create`` a missing one is NotFoundError; ``exclusive`` refuses an existing one.
    """

    name: str
    environment: str = ""
    create: bool = False
    exclusive: bool = False
    version: int = 2
    ephemeral: bool = False  # a new, nameless one that lives while ephemeral.keep comes
    size: int = 0  # bytes that it may hold, when it is made; 0: as many as its disk has


@dataclass(frozen=True)
class VolumeInfo:
    volume_id: str
    name: str
    environment: str
    created_at: float = 0.0
    version: int = 0  # of the content: counts commits
    created_by: str = ""
    committed_at: float = 0.0  # 0: never
    mounted: Tuple[str, ...] = ()  # by which functions' containers, now: "app.function"
    size: int = -1  # bytes of its files; -1: not known
    files: int = -1
    limit: int = 0  # bytes; 0: none but the disk's


@dataclass(frozen=True)
class NamedList:
    """volume.list → VolumeListed, secret.list → SecretListed."""

    environment: str = ""
    limit: int = 0
    details: bool = False  # of volumes: what their machines know, too


@dataclass(frozen=True)
class VolumeMeasured:
    """node.volume "measure" → what a machine knows of a volume's files."""

    volume_id: str
    size: int = -1
    files: int = -1
    limit: int = 0


@dataclass(frozen=True)
class VolumeListed:
    volumes: Tuple[VolumeInfo, ...] = ()


@dataclass(frozen=True)
class VolumeDelete:
    """volume.delete → {}. volume.rename uses ``new_name``."""

    name: str = ""
    volume_id: str = ""
    environment: str = ""
    allow_missing: bool = False
    new_name: str = ""


@dataclass(frozen=True)
class VolumePath:
    """volume.files → VolumeFiles; volume.read ⇉ bodies; volume.remove → {}; volume.commit/reload → VolumeInfo (path
    unused).

    volume.write: a stream of bodies then END → VolumeFile. ``force`` overwrites; without it an existing file is
    AlreadyExistsError. volume.copy: ``sources`` to ``path``. volume.upload and volume.fetch: see ``transfers``.
    """

    volume_id: str
    path: str = "/"
    recursive: bool = False
    force: bool = False
    mode: Optional[int] = None
    sources: Tuple[str, ...] = ()
    snapshot: str = ""  # of volume.files, read and fetch: as it was then
    upload: str = ""  # of volume.upload: made up by the client, so that it may ask again when an answer was lost


@dataclass(frozen=True)
class VolumeFile:
    path: str
    kind: str  # file | directory | symlink | other
    size: int = 0
    mtime: float = 0.0
    version: str = ""  # of a file: another text when its bytes may be others


@dataclass(frozen=True)
class VolumeFiles:
    """Paths as ``wire.transfers.name_out`` makes them."""

    files: Tuple[VolumeFile, ...] = ()


# Secrets: values only ever travel towards the server.

SECRET_KEY_MOST = 16_384  # characters
SECRET_VALUE_MOST = 32_768  # characters
SECRET_BYTES_MOST = 131_000  # of a key and its value: Linux gives no process a longer variable


@dataclass(frozen=True)
class SecretCreate:
    """secret.create → SecretInfo. Without a name: anonymous, for ``app_id`` alone, deleted with it."""

    values: Dict[str, str]
    name: str = ""
    environment: str = ""
    app_id: str = ""
    overwrite: bool = False
    merge: bool = False  # Secret.update


@dataclass(frozen=True)
class SecretLookup:
    """secret.lookup → SecretInfo; NotFoundError, or InvalidError naming required keys that it lacks.

    secret.delete → {}.
    """

    name: str
    environment: str = ""
    required_keys: Tuple[str, ...] = ()
    allow_missing: bool = False


@dataclass(frozen=True)
class SecretInfo:
    secret_id: str
    name: str
    environment: str
    created_at: float = 0.0
    created_by: str = ""
    last_used_at: Optional[float] = None
    keys: Tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyRotated:
    """secret.rotate ({}) → this: so many secrets are sealed with a new key, known by its id."""

    secrets: int = 0
    key_id: str = ""


@dataclass(frozen=True)
class SecretListed:
    secrets: Tuple[SecretInfo, ...] = ()
