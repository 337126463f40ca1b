"""The pages' own files: read once, kept in memory, the same for everybody."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

_HERE = Path(__file__).resolve().parent / "static"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
INDEX = "index.html"


class File:
    """One file: its type, its bytes, and a tag that changes with them."""

    __slots__ = ("body", "kind", "tag")

    def __init__(self, kind: str, body: bytes) -> None:
        self.kind = kind
        self.body = body
        self.tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'


def find(path: str) -> File | None:
    """The file at a path below ``static/``; None for what is not one of ours."""
    parts = PurePosixPath(path).parts
    kind = _KINDS.get(PurePosixPath(path).suffix)
    if not parts or kind is None or any(part in {"..", "/"} or part.startswith(".") or "\\" in part for part in parts):
        return None
    place = _HERE.joinpath(*parts)
    try:
        changed = place.stat().st_mtime_ns
    except (OSError, ValueError):
        return None
    if not place.is_file() or _HERE not in place.resolve().parents:
        return None
    return _read(place, kind, changed)


@lru_cache(maxsize=256)
def _read(place: Path, kind: str, changed: int) -> File:
    del changed  # of files that somebody works on
    return File(kind, place.read_bytes())
