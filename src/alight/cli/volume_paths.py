"""What commands on volumes have in common: finding a volume, listing, patterns, and names as they are printed."""

from __future__ import annotations

import sys
from pathlib import PurePosixPath
from typing import Iterator, List, Optional, Sequence

from alight.cli import session, volume_globs
from alight.wire.codec import loads_head
from alight.wire.errors import NotFoundError
from alight.wire.stored import VolumeEnsure, VolumeFile, VolumeFiles, VolumeInfo, VolumePath
from alight.wire.transfers import name_in, name_out


def find(name: str, environment: Optional[str]) -> str:
    """The id of a volume. Raises NotFoundError."""
    request = VolumeEnsure(name=name, environment=session.environment(environment))
    try:
        return session.ask("volume.ensure", request, VolumeInfo).volume_id
    except NotFoundError as error:
        if error.hint is None:
            error.hint = "`alight volume list` shows what there is"
        raise


def files(volume_id: str, path: str, *, recursive: bool = False) -> Iterator[VolumeFile]:
    """What lies at a path, as it comes. Raises NotFoundError."""
    request = at(volume_id, path, recursive=recursive)
    for head, _ in session.stream("volume.files", request):
        for file in loads_head(VolumeFiles, head).files:
            yield VolumeFile(name_in(file.path).lstrip("/"), file.kind, file.size, file.mtime, file.version)


def at(volume_id: str, path: str, *, recursive: bool = False, sources: Sequence[str] = ()) -> VolumePath:
    """A path of a volume for the wire."""
    names = tuple(name_out(one) for one in sources)
    return VolumePath(volume_id, name_out(path), recursive=recursive, sources=names)


def expand(volume_id: str, path: str) -> List[str]:
    """The paths that a path or pattern means, sorted. Raises NotFoundError when a pattern means none."""
    found = matching(volume_id, path)
    return [path] if found is None else [file.path for file in found]


def matching(volume_id: str, path: str) -> Optional[List[VolumeFile]]:
    """The entries that a pattern means, sorted by path; None for what is no pattern. Raises NotFoundError."""
    if not volume_globs.is_pattern(path) or _is_there(volume_id, path):
        return None
    base, parts = volume_globs.split(path)
    root = PurePosixPath(base)
    found = []
    for file in files(volume_id, base, recursive=volume_globs.goes_deep(parts)):
        whole = PurePosixPath("/" + file.path)
        if whole != root and volume_globs.matches(parts, str(whole.relative_to(root))):
            found.append(file)
    if not found:
        raise NotFoundError(f"nothing in the volume matches {path!r}")
    return sorted(found, key=lambda file: file.path)


def print_names(names: Iterator[str], end: str = "\n") -> None:
    """Bare names for pipes, with the bytes that they have."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="surrogateescape")
    for name in names:
        sys.stdout.write(name + end)


def shown(name: str) -> str:
    """A name for people: bytes that are no text become question marks."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_there(volume_id: str, path: str) -> bool:
    try:
        next(files(volume_id, path), None)
    except NotFoundError:
        return False
    return True
