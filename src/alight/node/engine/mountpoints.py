"""The bottom layer of every container: empty targets for what is mounted into it.

Without it the OCI runtime makes them in the container's writable layer, where an image build would keep them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_DIRECTORIES = ("dev", "proc", "sys", "root", "tmp")
_FILES = ("etc/hostname", "etc/hosts", "etc/resolv.conf")


def layer(store: Path, targets: Iterable[tuple[str, bool]]) -> str:
    """The directory of a layer with these targets (path inside, whether it is a directory); made when it is new."""
    directories = {*_DIRECTORIES, *(path.strip("/") for path, is_directory in targets if is_directory)} - {""}
    files = {*_FILES, *(path.strip("/") for path, is_directory in targets if not is_directory)} - {""}
    digest = hashlib.sha256(json.dumps([sorted(directories), sorted(files)]).encode()).hexdigest()[:24]
    final = store / digest
    if not final.exists():
        store.mkdir(parents=True, exist_ok=True)
        _make(final, directories, files)
    return str(final)


def behind_links(layers: Iterable[str]) -> list[tuple[str, bool]]:
    """Targets that an image's links lead to, such as the resolv.conf of a system that runs its own resolver."""
    found: list[tuple[str, bool]] = []
    stack = list(layers)
    for name in _FILES:
        top = next((path for path in (Path(one, name) for one in stack) if os.path.lexists(path)), None)
        if top is not None and top.is_symlink():
            # From the root, and never above it: the link is the image's and means its own files.
            found.append((os.path.normpath(os.path.join("/", os.path.dirname(name), top.readlink())), False))
    return found


def _make(final: Path, directories: set[str], files: set[str]) -> None:
    scratch = Path(tempfile.mkdtemp(dir=final.parent))
    try:
        for one in directories:
            (scratch / one).mkdir(parents=True, exist_ok=True)
        for one in files:
            (scratch / one).parent.mkdir(parents=True, exist_ok=True)
            (scratch / one).touch(exist_ok=False)
        # Whatever the umask of the agent is.
        for path in (scratch, *scratch.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (scratch / "tmp").chmod(0o1777)
        scratch.rename(final)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
        if not final.exists():
            raise
