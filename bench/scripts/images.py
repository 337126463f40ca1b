"""Seconds until images are there, as a client sees it: ``images.py KIND ROUNDS [MORE]``. Prints JSON."""

import contextlib
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import alight

BASE = alight.Image.debian_slim("3.11")
#: Writes five gigabytes that do not compress, brings them to the disk, and says how long that took.
WRITE = (
    "import os, time; began = time.time(); block = os.urandom(100 << 20); os.mkdir('/big')\n"
    "for number in range(51):\n"
    "    with open('/big/%d' % number, 'wb') as file:\n"
    "        file.write(number.to_bytes(4, 'big')); file.write(block); os.fsync(file.fileno())\n"
    "print('WROTE', time.time() - began)"
)


def built(image: alight.Image) -> float:
    """Seconds of ``Image.build()``."""
    began = time.perf_counter()
    image.build()
    return time.perf_counter() - began


def entered(image: alight.Image) -> float:
    """Seconds to enter an app whose function has this image."""
    app = alight.App("bench-images", image=image)
    app.function(serialized=True)(nothing)
    began = time.perf_counter()
    with app.run():
        return time.perf_counter() - began


def nothing() -> None:
    return None


def pip(rounds: int, *packages: str) -> object:
    """A layer of packages, made each time, and the same again with nothing changed."""
    made = [built(BASE.uv_pip_install(*packages, force_build=True)) for _ in range(rounds)]
    image = BASE.uv_pip_install(*packages)
    return {"made": made, "again": [built(image) for _ in range(10)]}


def big(rounds: int) -> object:
    """Five gigabytes written by a command: all seconds, and those of the command itself."""
    found = []
    for _ in range(rounds):
        image = BASE.run_commands(f'python -c "{WRITE}"', force_build=True)
        seconds = built(image)
        wrote = next(line for line in image.logs.fetch(None) if line.startswith("WROTE"))
        found.append((seconds, float(wrote.split()[1])))
    return found


def tree(rounds: int, count: str) -> object:
    """A directory of files of some kilobytes: new, with one changed, as it was; added to apps, copied into images."""
    found: dict[str, list[float]] = {name: [] for name in ("new", "changed", "same", "copied", "changed copy")}
    with contextlib.ExitStack() as stack:
        for _ in range(rounds):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            fill(folder, int(count))
            added = BASE.add_local_dir(folder, "/root/data")
            found["new"].append(entered(added))
            (folder / "0" / "5").write_text(f"changed {time.time()}")
            found["changed"].append(entered(added))
            found["same"].append(entered(added))
            other = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            fill(other, int(count))
            copied = BASE.add_local_dir(other, "/root/data", copy=True)
            found["copied"].append(built(copied))
            (other / "0" / "5").write_text(f"changed {time.time()}")
            found["changed copy"].append(built(copied))
    return found


def fill(folder: Path, count: int) -> None:
    """Files of 1 to 8 KiB that nobody has seen, a hundred to a directory."""
    for number in range(count):
        place = folder / str(number // 100)
        place.mkdir(exist_ok=True)
        (place / str(number % 100)).write_bytes(os.urandom(random.randint(1 << 10, 8 << 10)))


def pull(rounds: int, *tags: str) -> object:
    """Images of a registry, of which nothing is here."""
    del rounds
    return [built(alight.Image.from_registry(tag)) for tag in tags]


def base(rounds: int) -> object:
    """The id of the base, so that others can be given the same."""
    del rounds
    BASE.build()
    return BASE.object_id


if __name__ == "__main__":
    kind, rounds, *more = sys.argv[1:]
    print(json.dumps({"pip": pip, "big": big, "tree": tree, "pull": pull, "base": base}[kind](int(rounds), *more)))
