"""Seconds until `f.spawn()` returns, which is when the call is on disk; beside it the disk's own fsync.

spawn.py N FOLDER      FOLDER: on the disk that holds the server's state
"""

import json
import os
import sys
import time

import alight

app = alight.App("bench-spawn", image=alight.Image.debian_slim(python_version="3.11"))


@app.function(max_containers=1)
def nothing(x):
    return None


def fsync(folder: str, count: int) -> list:
    """Of a page appended to a file, as a write-ahead log grows."""
    samples = []
    path = os.path.join(folder, "fsync-probe")
    with open(path, "wb") as file:
        for _ in range(count):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            samples.append(time.perf_counter() - began)
    os.unlink(path)
    return samples


if __name__ == "__main__":
    count, folder = int(sys.argv[1]), sys.argv[2]
    samples, probes = [], fsync(folder, 100)
    with app.run():
        for number in range(50):
            last = nothing.spawn(number)
        last.get()
        for number in range(count):
            began = time.perf_counter()
            last = nothing.spawn(number)
            samples.append(time.perf_counter() - began)
            if number % 50 == 49:
                probes += fsync(folder, 10)
        last.get()
    print(json.dumps({"spawn": samples, "fsync": probes}))
