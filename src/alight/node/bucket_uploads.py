"""What a container wrote into its buckets and rclone has not uploaded yet, by what rclone writes down of its cache.

rclone keeps a small file beside each cached one that says whether the bucket has it. That is all that is known of an
upload without asking rclone, and it is there also when rclone is not.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from alight.wire.spec import BucketMount


@dataclass(frozen=True)
class Waiting:
    """One file that is not in its bucket."""

    number: int
    """Of the bucket, among those of the container."""
    path: str
    """Inside, from the root."""
    size: int


class Uploads:
    """Those of one container. ``folder`` is the container's directory."""

    def __init__(self, folder: Path, mounts: Sequence[BucketMount]) -> None:
        self._caches = [
            (number, one.path.rstrip("/"), folder / "buckets" / str(number) / "vfsMeta", one.key_prefix.count("/"))
            for number, one in enumerate(mounts)
            if not one.read_only
        ]
        self._seen: dict[str, tuple[int, Waiting | None]] = {}

    def waiting(self) -> list[Waiting]:
        """All, sorted. Blocks for the disk: what has not changed since the last look costs a look at its date."""
        seen: dict[str, tuple[int, Waiting | None]] = {}
        for number, target, root, prefix in self._caches:
            for folder, _, names in os.walk(root):
                for name in names:
                    path = Path(folder, name)
                    try:
                        changed = path.stat().st_mtime_ns
                        known = self._seen.get(str(path))
                        if known is None or known[0] != changed:
                            # Below the root: the remote's name, the bucket's, the prefix.
                            inside = "/".join(path.relative_to(root).parts[2 + prefix :])
                            known = changed, _read(path, number, f"{target}/{inside}")
                    except FileNotFoundError:
                        continue
                    seen[str(path)] = known
        self._seen = seen
        return sorted((one for _, one in seen.values() if one is not None), key=lambda one: (one.number, one.path))


def open_files(processes: Iterable[int]) -> set[str]:
    """The paths that these have open, as they see them."""
    found: set[str] = set()
    for pid in processes:
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # it has ended
        for one in descriptors:
            try:
                found.add(os.readlink(f"/proc/{pid}/fd/{one}"))
            except OSError:
                continue
    return found


def _read(path: Path, number: int, inside: str) -> Waiting | None:
    try:
        kept = json.loads(path.read_bytes())
        return Waiting(number, inside, int(kept.get("Size", 0))) if kept.get("Dirty") else None
    except (ValueError, TypeError, AttributeError):
        return Waiting(number, inside, 0)  # half written: it is just being changed
