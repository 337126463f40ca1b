"""Seconds of each of N calls of a function that does nothing, after some that don't count."""

import json
import sys
import time

import alight

app = alight.App("bench-warm", image=alight.Image.debian_slim(python_version="3.11"))


@app.function()
def nothing() -> None:
    return None


if __name__ == "__main__":
    samples = []
    with app.run():
        for _ in range(200):
            nothing.remote()
        for _ in range(int(sys.argv[1])):
            began = time.perf_counter()
            nothing.remote()
            samples.append(time.perf_counter() - began)
    print(json.dumps(samples))
