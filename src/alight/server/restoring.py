"""``python -m alight.server.restoring``: a backup becomes the state of a directory that has none.

Everything is brought beside its place and checked there; the directory of the server gets its name last. Killed on the
way it leaves nothing that a server would take for its state, and the next one begins anew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alight.server.disk import full_disk
from alight.server.services import backup_folder
from alight.server.services.backup import DATABASE
from alight.server.services.secrets import Secrets
from alight.server.services.vault import KEY_BYTES, Vault, sync_folder
from alight.server.settings import default_home
from alight.store.copying import newest_schema
from alight.store.sqlite import open_store
from alight.wire import errors, ids
from alight.wire.backups import BackupManifest
from alight.wire.version import __version__

_LIMITS = ".limits"  # in the volumes' directory: what the node knows of limits, by id
_NEW = ".restoring"
_MOVED = ".restoring"  # names the volumes that are being put in their places: without it they are somebody's


class _Found(NamedTuple):
    """What a database holds: secrets that cannot be opened, volumes by their ids, and those that lost their limit."""

    unreadable: tuple[str, ...]
    volumes: dict[str, str]
    unlimited: tuple[str, ...]


def main() -> int:
    """Parse, lock, restore. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m alight.server.restoring")
    parser.add_argument("source", type=Path)
    parser.add_argument("--home", type=Path, default=None, help="state directory (ALIGHT_HOME)")
    parser.add_argument("--key", type=Path, default=None, help="the key of the secrets, where the backup has none")
    parser.add_argument("--without-secrets", action="store_true", help="go on when the values of secrets are lost")
    options = parser.parse_args()
    home = (options.home or default_home()).absolute()
    try:
        with _locked(home):
            for line in restore(options.source.absolute(), home, options.key, lossy=options.without_secrets):
                sys.stdout.write(f"{line}\n")
    except errors.Error as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"{error}{hint}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{full_disk(error, home)}\n")
        return 1
    return 0


def restore(source: Path, home: Path, key: Path | None, *, lossy: bool = False) -> list[str]:
    """Make the state of ``home`` from a backup; returns what there is to say.

    Raises NotFoundError, DataLossError, VersionError, AlreadyExistsError where there is state already, and InvalidError
    when secrets could not be read and ``lossy`` does not allow that.
    """
    manifest = backup_folder.read_manifest(source)
    if manifest.schema > newest_schema():
        raise errors.VersionError(
            f"{source} was made by Alight {manifest.version}, and its database is too new for {__version__}",
            hint="update this one: `pip install --upgrade alight`",
        )
    if DATABASE not in {one.path for one in manifest.files}:
        raise errors.DataLossError(f"{source} has no database in it", hint="use another backup")
    state, volumes = home / "server", _volumes(home)
    _check_none(home, [state / DATABASE])
    _finish_killed(home, volumes)
    _check_none(home, [place for one in manifest.volumes for place in _places(volumes, one.volume_id)])
    if state.is_dir() and any(state.iterdir()):  # of a server that never got as far as a database
        _check_none(home, [next(state.iterdir())])
    new_state, new_volumes = _beside(state), _beside(volumes / "volumes")
    try:
        found = _bring(source, manifest, new_state, new_volumes, key, lossy=lossy)
        places = (volumes, new_volumes)
        empty = [name for one, name in found.volumes.items() if not any((at / one).is_dir() for at in places)]
        moved = [one.volume_id for one in manifest.volumes]
        (home / _MOVED).write_text(json.dumps(moved))
        sync_folder(home)
        for name in moved:
            (new_volumes / name).rename(volumes / name)
        sync_folder(volumes)
        new_state.rename(state)  # from here on it is restored
        sync_folder(home)
        (home / _MOVED).unlink()
        for one in found.volumes:  # deleted here after the backup: it is there again
            (volumes / ".gone" / one).unlink(missing_ok=True)
    finally:
        for left in (new_state, new_volumes):
            shutil.rmtree(left, ignore_errors=True)
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.made_at))
    how_many = f"{len(manifest.volumes)} volume{'' if len(manifest.volumes) == 1 else 's'}"
    said = [f"Restored the server of {made} into {home}: {len(manifest.files)} files, {how_many}"]
    if manifest.volumes and volumes != home / "node" / "volumes":
        said.append(f"The volumes lie in {volumes}, which ALIGHT_VOLUMES has to name when the node is started, too")
    if found.unreadable:
        said.append(f"These secrets have no values: {', '.join(found.unreadable)}. Make them anew with --force")
    if empty:
        said.append(f"The files of these volumes are not in the backup, so they are empty: {', '.join(sorted(empty))}")
    if found.unlimited:
        said.append(
            f"These volumes had a size limit and have none now: {', '.join(found.unlimited)}. A limit is set when a "
            "volume is made: copy the files into one made with `alight volume create --size`"
        )
    return said + list(manifest.notes)


def _bring(
    source: Path, manifest: BackupManifest, state: Path, volumes: Path, key: Path | None, *, lossy: bool
) -> _Found:
    """Lay out all of it beside its place; returns what is in it."""
    limits = volumes.parent / _LIMITS
    for folder in (state, volumes):
        folder.mkdir(mode=0o700, parents=True)
    archives = {one.file: one.volume_id for one in manifest.volumes}
    packed = [one for one in manifest.files if one.path in archives]
    for one in manifest.files:
        if one.path not in archives:
            backup_folder.take(source, one, state / one.path)
    if key is not None:
        _take_key(key, state / "key")
    found = asyncio.run(_settle(state, source, limits))
    lost = found.unreadable
    if lost and not lossy:
        there = (state / "key").exists()
        why = "its key is another one" if there else "there is no key in it"
        raise errors.InvalidError(
            f"the values of {len(lost)} secrets of this backup cannot be read, since {why}: {', '.join(lost)}",
            hint="--key FILE names the file server/key of where it was made; --without-secrets goes on without them",
        )
    for one in packed:
        copy = volumes / f".{archives[one.path]}.tar"
        backup_folder.take(source, one, copy)
        _unpack(copy, volumes / archives[one.path] / "data")
        copy.unlink()
    return found


async def _settle(state: Path, source: Path, limits: Path) -> _Found:
    """Bring the database up to date and end what was only true where it comes from; what is in it."""
    store = await open_store(state / DATABASE)
    try:
        why = f"it was on the machine that the backup {source} is of"
        await store.write([("containers_left_behind", {"now": time.time(), "why": why})])
        rows = await store.read("volumes_all")
        volumes = {str(row["volume_id"]): str(row["name"]) for row in rows}
        # A limit is the filesystem's to keep, where the volume was made; what is no more must not be shown.
        lost = [row for row in rows if row["size_limit"] and not (limits / row["volume_id"]).exists()]
        await store.write([("volume_limit", {"volume_id": row["volume_id"], "size": 0}) for row in lost])
        unlimited = tuple(str(row["name"]) for row in lost)
        return _Found(await Secrets(store, Vault(state / "key")).unreadable(), volumes, unlimited)
    finally:
        await store.close()


def _take_key(file: Path, into: Path) -> None:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise errors.InvalidError(f"the key {file} could not be read: {error.strerror}") from error
    if len(content) != KEY_BYTES:
        raise errors.InvalidError(
            f"{file} is no key: it has {len(content)} bytes and not {KEY_BYTES}",
            hint="it is the file server/key of the state directory that the backup is of",
        )
    into.unlink(missing_ok=True)
    descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        target.write(content)
        target.flush()
        os.fsync(descriptor)


def _unpack(archive: Path, into: Path) -> None:
    """Lay out the archive of a volume. Raises DataLossError for one that would write elsewhere."""
    into.mkdir(parents=True, mode=0o755)

    def checked(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
        # Refuses what would be written outside; modes stay as they were (a container mounts it nosuid and nodev).
        safe = tarfile.tar_filter(member, path).replace(mode=member.mode, deep=False)
        if not (safe.isfile() or safe.isdir() or safe.issym() or safe.islnk()):
            raise errors.DataLossError(f"{archive} holds what no backup does: {member.name!r}")
        return safe

    try:
        with tarfile.open(archive, "r:") as tar:
            tar.extractall(into, numeric_owner=True, filter=checked)  # noqa: S202  each member is checked
    except tarfile.TarError as error:
        raise errors.DataLossError(
            f"the archive of a volume cannot be read: {error}", hint="use another backup"
        ) from error


def _volumes(home: Path) -> Path:
    """The directory of all volumes, as a node of this state directory has it."""
    chosen = os.environ.get("ALIGHT_VOLUMES", "")
    path = Path(chosen) if chosen else home / "node" / "volumes"
    if not path.is_absolute():
        raise errors.InvalidError(f"ALIGHT_VOLUMES={chosen} is no absolute path", hint="name a directory from /")
    try:
        path.mkdir(mode=0o711, parents=not chosen, exist_ok=True)
    except OSError as error:
        raise errors.InvalidError(
            f"the directory of the volumes, {path}, cannot be used: {error.strerror}",
            hint="mount its filesystem first, let root write to it, or unset ALIGHT_VOLUMES",
        ) from error
    return path


def _places(volumes: Path, volume_id: str) -> list[Path]:
    """Where a volume is, and what else a node knows of it: an image would be mounted over its files."""
    return [volumes / volume_id, volumes / ".images" / f"{volume_id}.ext4", volumes / _LIMITS / volume_id]


def _finish_killed(home: Path, volumes: Path) -> None:
    """Take away the volumes that a restore which was killed had put in their places."""
    marker = home / _MOVED
    if marker.exists():
        for name in json.loads(marker.read_text()):
            if ids.is_id(name, ids.VOLUME) and (volumes / name).is_dir():
                shutil.rmtree(volumes / name)
        marker.unlink()


def _check_none(home: Path, places: list[Path]) -> None:
    for one in places:
        if one.exists():
            raise errors.AlreadyExistsError(
                f"{home} has state already: {one}",
                hint="restore into an empty directory: ALIGHT_HOME=DIR alight server restore …",
            )


def _beside(place: Path) -> Path:
    beside = place.with_name(f".{place.name}{_NEW}")
    if beside.exists():  # of one that was killed
        shutil.rmtree(beside)
    return beside


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """The lock of the state directory, which a server holds while it runs. Raises ConflictError."""
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise errors.ConflictError(
            f"a server is running for {home}", hint="`alight server stop` ends it, or use another ALIGHT_HOME"
        ) from None
    else:
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
