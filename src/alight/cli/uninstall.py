"""``alight uninstall``: stop everything and leave nothing. The package itself is pip's to remove."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import List

import click

from alight.cli import options, service
from alight.sdk import config, local
from alight.wire.errors import ConflictError, PermissionDeniedError


@click.command(short_help="Stop everything and remove Alight's state.")
@click.option("--keep-volumes", is_flag=True, help="Leave the files of volumes where they are.")
@options.yes
def uninstall(keep_volumes: bool, yes: bool) -> None:
    """Stop server, node and containers of this machine, and remove the state directory: images, volumes, secrets, logs.

    The configuration file is removed, too, unless it knows servers elsewhere.
    """
    home = config.home()
    _check_is_ours(home)
    what = "images, secrets and logs" if keep_volumes else "images, volumes, secrets and logs"
    options.confirm(f"Stop everything and remove {home} with its {what}?", yes=yes)
    removed: List[str] = service.remove() if home == service.HOME else []  # the services' state is not elsewhere
    if home.exists():
        local.stop()
        _check_no_mounts(home)
        _remove(home, keep_volumes=keep_volumes)
        removed.append(str(home))
    file = config.path()
    if file.exists() and not any(table.get("server_url") for table in config.read_profiles().values()):
        file.unlink()
        removed.append(str(file))
    cache = config.cache_directory()
    if cache.exists():
        shutil.rmtree(cache)
        removed.append(str(cache))
    print("\n".join(f"Removed {one}" for one in removed) or "Nothing was there", file=sys.stderr)
    print("The package itself: pip uninstall alight", file=sys.stderr)


def _check_is_ours(home: Path) -> None:
    """Never remove a directory just because a variable names it."""
    if not home.exists():
        return
    known = {"server", "node", "run", "log", "lock", "cache"}
    names = {entry.name for entry in home.iterdir()}
    if names and not (names & known and home.resolve() not in {Path("/"), Path.home()}):
        raise ConflictError(f"{home} does not look like a state directory of Alight, so it was left alone")


def _check_no_mounts(home: Path) -> None:
    """Removing files through a mount that is left over would remove somebody else's."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    inside = [words[4] for words in (line.split() for line in lines) if words[4].startswith(f"{home}{os.sep}")]
    if inside:
        raise ConflictError(
            f"something is still mounted in {home}: {inside[0]}", hint=f"umount {inside[0]}, then run this again"
        )


def _remove(home: Path, *, keep_volumes: bool) -> None:
    try:
        if not keep_volumes:
            shutil.rmtree(home)
            return
        for entry in home.iterdir():
            if entry.name != "node":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for entry in (home / "node").iterdir():
            if entry.name != "volumes":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    except PermissionError as error:
        raise PermissionDeniedError(
            f"{error.filename} could not be removed: it belongs to another user", hint="run the same with sudo"
        ) from error
