"""Ray in the same run: calls and maps of tasks and actors, its ActorPool, payload, nothing running to first result.

Runs as a process of its own, in any interpreter that has Ray; prints rows as JSON.
"""

from __future__ import annotations

import subprocess
import sys
import time

import peers
import ray

FIRST = (
    "import ray; ray.init(num_cpus=1, include_dashboard=False); f = ray.remote(lambda: 1); print(ray.get(f.remote()))"
)
RAY = f"Ray {ray.__version__}"


@ray.remote
def nothing() -> None:
    return None


@ray.remote
def square(x: int) -> int:
    return x * x


@ray.remote
def nap(x: int) -> int:
    time.sleep(0.01)
    return x


@ray.remote
class Actor:
    def nothing(self, data: bytes = b"") -> int:
        return len(data)

    def give(self, size: int) -> bytes:
        return bytes(size)

    def square(self, x: int) -> int:
        return x * x


def main() -> None:
    """All rows."""
    peers.say("Ray from nothing, three times")
    start = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", FIRST], check=True, capture_output=True)
        start.append(time.perf_counter() - began)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    one = Actor.remote()
    peers.say("Ray's warm calls and payload")
    task = peers.latency(lambda: ray.get(nothing.remote()), 1200)
    actor = peers.latency(lambda: ray.get(one.nothing.remote()), 1200)
    data = bytes(100_000_000)
    argument = peers.rates(lambda: ray.get(one.nothing.remote(data)), 0.1, 5)
    result = peers.rates(lambda: ray.get(one.give.remote(100_000_000)), 0.1, 5)
    ray.kill(one)
    peers.say("Ray's maps: tasks, two actors, ActorPool")
    ray.get([square.remote(x) for x in range(1000)])
    tasks = peers.rates(lambda: ray.get([square.remote(x) for x in range(10_000)]), 10_000, 3)
    naps = peers.rates(lambda: ray.get([nap.remote(x) for x in range(1000)]), 500.0, 3)
    actors = [Actor.remote() for _ in range(2)]
    ray.get([each.nothing.remote() for each in actors])
    round_robin = peers.rates(lambda: ray.get([actors[x & 1].square.remote(x) for x in range(10_000)]), 10_000, 3)
    from ray.util import ActorPool

    pool = ActorPool(actors)
    pooled = peers.rates(lambda: list(pool.map(lambda each, x: each.square.remote(x), range(10_000))), 10_000, 3)
    ray.shutdown()
    peers.rows(
        (f"{RAY}: task, no-op", task, "ms"),
        (f"{RAY}: actor call, no-op", actor, "ms"),
        (f"{RAY}: 10,000 tiny tasks", tasks, "inputs/s"),
        (f"{RAY}: 10,000 tiny calls of two actors", round_robin, "inputs/s"),
        (f"{RAY}: ActorPool.map, 10,000 tiny, two actors", pooled, "inputs/s"),
        (f"{RAY}: 1,000 tasks of 10 ms", naps, "% of ideal"),
        (f"{RAY}: 100 MB argument", argument, "GB/s"),
        (f"{RAY}: 100 MB result", result, "GB/s"),
        (f"{RAY}: nothing running to first result", start, "s"),
    )


if __name__ == "__main__":
    main()
