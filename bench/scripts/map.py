"""Maps over two containers: seconds for N tiny inputs, and what the client's memory did meanwhile.

map.py N ROUNDS [CHUNK]      CHUNK: at most so many inputs in a message, instead of the SDK's own choice
"""

import json
import sys
import time

import alight

app = alight.App("bench-map", image=alight.Image.debian_slim(python_version="3.11"))


@app.function(min_containers=2, max_containers=2)
def square(x):
    return x * x


def memory(what: str) -> int:
    """KiB of this process: VmRSS now, VmHWM at most since ``forget``."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what))


def forget() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew


if __name__ == "__main__":
    count, rounds = int(sys.argv[1]), int(sys.argv[2])
    if len(sys.argv) > 3:
        from alight.sdk import inputs

        inputs.CHUNK = int(sys.argv[3])
    seconds, grown = [], []
    with app.run():
        while square.get_current_stats().num_total_runners < 2:
            sum(square.map(range(500)))
        sum(square.map(range(20_000)))
        for _ in range(rounds):
            forget()
            before = memory("VmRSS")
            began = time.perf_counter()
            total = sum(square.map(range(count)))
            seconds.append(time.perf_counter() - began)
            grown.append((memory("VmHWM") - before) / 1024)
            assert total == sum(x * x for x in range(count))
    print(json.dumps({"seconds": seconds, "grown": grown}))
