"""Files of a volume that processes of containers have mapped for writing: what they write so makes no event.

Its time does change, though, when a page of it is written to for the first time since the disk has it. So a look at
the times of the mapped files, which are few, says which of them count as changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def changed(volume_id: str, data: Path, since: int) -> int:
    """How many mapped files have a time of ``since`` (ns, as files are stamped) or later."""
    device = os.stat(data).st_dev
    places: dict[str, tuple[str, ...]] = {}
    found: set[tuple[int, int]] = set()
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        with contextlib.suppress(OSError):  # it ended while we looked
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in places:
                text = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape")
                places[namespace] = tuple(mount_points(text, volume_id, device))
            if not places[namespace]:
                continue
            maps = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape")
            for address in mapped(maps, places[namespace]):
                info = os.stat(f"/proc/{pid}/map_files/{address}")
                if info.st_ctime_ns >= since:
                    found.add((info.st_dev, info.st_ino))
    return len(found)


def mount_points(mountinfo: str, volume_id: str, device: int) -> Iterator[str]:
    """Where a volume is mounted, by the text of ``/proc/PID/mountinfo``. Pure."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) < 5 or fields[2] != wanted:
            continue
        root = f"{fields[3]}/"
        if f"/{volume_id}/data/" in root or root.startswith("/data/"):
            yield fields[4]


def mapped(maps: str, places: tuple[str, ...]) -> Iterator[str]:
    """Address ranges of shared, writable mappings of files below ``places``, by the text of ``/proc/PID/maps``."""
    beginnings = tuple(f"{place.rstrip('/')}/" for place in places)
    for line in maps.splitlines():
        address, rights, _, _, _, *path = line.split(None, 5)
        if rights[1:2] == "w" and rights[3:4] == "s" and path and f"{path[0]}/".startswith(beginnings):
            yield address
