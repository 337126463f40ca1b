"""The same work on files in a container's volume and on the bare disk, one at a word.

Says `ready`, then answers each line on stdin with a line of JSON (seconds, or a list of them):

    inside VERB SIZE        in a container, in its volume
    bare VERB SIZE FOLDER   in this process, in a directory of the same filesystem

Verbs: write and read (SIZE bytes of one file, to and from the disk), small (create and stat SIZE files), commit and
fsync (SIZE bytes are written, then made durable), fill (SIZE empty files, 1,000 to a directory), idle (a commit of
nothing; bare: a walk), spread (SIZE bytes in 1,000 files), touch (one of those is written anew).
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import alight

image = alight.Image.debian_slim(python_version="3.11")
app = alight.App("bench-storage", image=image)
volume = alight.Volume.from_name("bench-storage", create_if_missing=True)
PIECE = os.urandom(1 << 20) * 8


def write(folder, size):
    began = time.perf_counter()
    fd = os.open(folder / "large", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for _ in range(size // len(PIECE)):
        os.write(fd, PIECE)
    os.fsync(fd)
    seconds = time.perf_counter() - began
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    return seconds


def read(folder, size):
    fd = os.open(folder / "large", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    buffer = bytearray(len(PIECE))
    began = time.perf_counter()
    while os.readv(fd, [buffer]):
        pass
    seconds = time.perf_counter() - began
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    return seconds


def small(folder, size):
    place = folder / "small"
    place.mkdir()
    os.sync()
    began = time.perf_counter()
    for number in range(size):
        with open(place / str(number), "wb") as file:
            file.write(b"x" * 1024)
    for number in range(size):
        os.stat(place / str(number))
    seconds = time.perf_counter() - began
    shutil.rmtree(place)
    return seconds


def commit(folder, size):
    return _made_durable(folder, size, lambda fd: volume.commit())


def fsync(folder, size):
    return _made_durable(folder, size, os.fsync)


def _made_durable(folder, size, how):
    os.sync()
    fd = os.open(folder / "committed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for _ in range(size // len(PIECE)):
        os.write(fd, PIECE)
    began = time.perf_counter()
    how(fd)
    seconds = time.perf_counter() - began
    os.close(fd)
    return seconds


def fill(folder, size):
    for number in range(size):
        if number % 1000 == 0:
            (folder / "many" / str(number)).mkdir(parents=True)
        (folder / "many" / str(number - number % 1000) / str(number)).touch()
    return 0.0


def idle(folder, size):
    if folder == Path("/data"):
        volume.commit()
    began = time.perf_counter()
    if folder == Path("/data"):
        volume.commit()
    else:
        for path, _, names in os.walk(folder / "many"):
            for name in names:
                os.lstat(os.path.join(path, name))
    return time.perf_counter() - began


def spread(folder, size):
    (folder / "spread").mkdir()
    for number in range(1000):
        with open(folder / "spread" / str(number), "wb") as file:
            file.writelines(PIECE[: 1 << 20] for _ in range(max(1, size // 1000 // (1 << 20))))
    return 0.0


def touch(folder, size):
    with open(folder / "spread" / str(size % 1000), "r+b") as file:
        file.write(os.urandom(1 << 20))
    return 0.0


def clear(folder, size):
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return 0.0


VERBS = {one.__name__: one for one in (write, read, small, commit, fsync, fill, idle, spread, touch, clear)}


@app.function(volumes={"/data": volume}, timeout=3600, scaledown_window=600)
def inside(verb, size):
    return VERBS[verb](Path("/data"), size)


if __name__ == "__main__":
    with app.run():
        inside.remote("clear", 0)
        print("ready", flush=True)
        for line in sys.stdin:
            where, verb, size, *folder = line.split()
            done = inside.remote(verb, int(size)) if where == "inside" else VERBS[verb](Path(*folder), int(size))
            print(json.dumps(done), flush=True)
