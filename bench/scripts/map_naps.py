"""Seconds for 1,000 inputs of 10 ms each in two containers that are there. Alone they would take five seconds."""

import json
import sys
import time

import alight

app = alight.App("bench-map-naps", image=alight.Image.debian_slim(python_version="3.11"))


@app.function(min_containers=2, max_containers=2)
def nap(x):
    time.sleep(0.01)
    return x


if __name__ == "__main__":
    seconds = []
    with app.run():
        while nap.get_current_stats().num_total_runners < 2:
            list(nap.map(range(20)))
        for _ in range(int(sys.argv[1])):
            began = time.perf_counter()
            assert sum(nap.map(range(1000))) == 499_500
            seconds.append(time.perf_counter() - began)
    print(json.dumps(seconds))
