"""Patterns for paths in a volume, as shells have them: `*`, `?`, `[…]` within a name, `**` across directories. Pure."""

from __future__ import annotations

import fnmatch
from typing import List, Sequence, Tuple

_SPECIAL = "*?["


def is_pattern(path: str) -> bool:
    """Whether a path has to be matched. A file may have such a name all the same: who asks tries that first."""
    return any(character in path for character in _SPECIAL)


def split(pattern: str) -> Tuple[str, List[str]]:
    """The directory to list, and the parts that its entries have to match."""
    parts = [part for part in pattern.split("/") if part]
    fixed = 0
    while fixed < len(parts) and not is_pattern(parts[fixed]):
        fixed += 1
    return "/" + "/".join(parts[:fixed]), parts[fixed:]


def goes_deep(parts: Sequence[str]) -> bool:
    """Whether entries of directories below have to be looked at."""
    return len(parts) > 1 or "**" in parts


def matches(parts: Sequence[str], path: str) -> bool:
    """Whether a path, relative to the listed directory, fits. Names that begin with a dot have to be meant."""
    return _match(list(parts), [part for part in path.split("/") if part])


def _match(parts: List[str], names: List[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(
            _match(parts[1:], names[start:])
            for start in range(len(names) + 1)
            if not any(name.startswith(".") for name in names[:start])
        )
    if not names or (names[0].startswith(".") and not parts[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(names[0], parts[0]) and _match(parts[1:], names[1:])
