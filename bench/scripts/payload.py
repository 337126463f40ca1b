"""Seconds for 100 MB into a function, and for 100 MB out of one."""

import json
import sys
import time

import alight

app = alight.App("bench-payload", image=alight.Image.debian_slim(python_version="3.11"))
SIZE = 100_000_000


@app.function()
def take(data: bytes) -> int:
    return len(data)


@app.function()
def give(size: int) -> bytes:
    return bytes(size)


if __name__ == "__main__":
    data = bytes(SIZE)
    argument, result = [], []
    with app.run():
        take.remote(b"")
        give.remote(1)
        for _ in range(int(sys.argv[1])):
            began = time.perf_counter()
            assert take.remote(data) == SIZE
            argument.append(time.perf_counter() - began)
            began = time.perf_counter()
            assert len(give.remote(SIZE)) == SIZE
            result.append(time.perf_counter() - began)
    print(json.dumps({"argument": argument, "result": result}))
