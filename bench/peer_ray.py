"""Ray, measured in the same run: warm task and actor call, payload, nothing running to first result."""

from __future__ import annotations

import subprocess
import sys
import time

import ray  # run.py says so when it is not installed
from cases import Reading

FIRST = (
    "import ray; ray.init(num_cpus=1, include_dashboard=False); f = ray.remote(lambda: 1); print(ray.get(f.remote()))"
)


def readings() -> list[Reading]:
    """Ray's rows."""
    start = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", FIRST], check=True, capture_output=True)
        start.append(time.perf_counter() - began)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        task, actor, argument = _calls()
    finally:
        ray.shutdown()
    return [
        Reading(f"Ray {ray.__version__}: task, no-op", task, "ms"),
        Reading(f"Ray {ray.__version__}: actor call, no-op", actor, "ms"),
        Reading(f"Ray {ray.__version__}: 100 MB argument", argument, "GB/s", more_is_better=True),
        Reading(f"Ray {ray.__version__}: nothing running to first result", start, "s"),
    ]


def _calls() -> tuple[list[float], list[float], list[float]]:
    @ray.remote
    def nothing() -> None:
        return None

    @ray.remote
    class Nothing:
        def nothing(self, data: bytes = b"") -> int:
            return len(data)

    one, data = Nothing.remote(), bytes(100_000_000)
    samples: tuple[list[float], list[float], list[float]] = ([], [], [])
    for call, into in ((nothing.remote, samples[0]), (one.nothing.remote, samples[1])):
        for number in range(1200):
            began = time.perf_counter()
            ray.get(call())
            if number >= 200:
                into.append(1e3 * (time.perf_counter() - began))
    for _ in range(5):
        began = time.perf_counter()
        ray.get(one.nothing.remote(data))
        samples[2].append(0.1 / (time.perf_counter() - began))
    return samples
