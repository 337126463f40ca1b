"""What is measured, and how. A case takes the instance and gives readings, through the public API or the CLI."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import cases_calls
from measured import Bench, Reading, cpu_seconds, processes_of, resident_mb


def cold(bench: Bench) -> list[Reading]:
    """From the call to the first line of the user's function, in a container that is not there yet."""
    script = bench.folder / "cold_many.py"
    script.write_text(_cold_script(20))
    samples = bench.python(script.name)
    return [Reading("cold start, image cached: call to first user line", [1e3 * s for s in samples], "ms", 80)]


def run(bench: Bench) -> list[Reading]:
    """The whole process of `alight run`, with everything running."""
    bench.alight("run", "hello.py")
    samples = [bench.alight("run", "hello.py") for _ in range(10)]
    return [Reading("`alight run hello.py`, server up, whole process", samples, "s", 0.4)]


def start(bench: Bench) -> list[Reading]:
    """From nothing running to the end of the first run."""
    samples = []
    for _ in range(5):
        bench.alight("server", "stop")
        samples.append(bench.alight("run", "hello.py"))
    return [Reading("nothing running to first result, image cached", samples, "s", 1.0)]


def help_text(bench: Bench) -> list[Reading]:
    """What everybody types first; beside it the interpreter alone."""
    bare = []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare.append(time.perf_counter() - began)
    samples = [bench.alight("--help") for _ in range(10)]
    return [
        Reading("`alight --help`", [1e3 * s for s in samples], "ms", 120),
        Reading("`python -c pass`, for comparison", [1e3 * s for s in bare], "ms"),
    ]


def rebuild(bench: Bench) -> list[Reading]:
    """Asking for an image of which everything is there: what `app.run()` costs before its body runs."""
    measured = bench.python("rebuild.py", "10")
    return [
        Reading("image rebuild with nothing changed", [1e3 * s for s in measured["rebuild"]], "ms", 50),
        Reading("entering `app.run()`, image cached", [1e3 * s for s in measured["enter"]], "ms"),
    ]


def payload(bench: Bench) -> list[Reading]:
    """100 MB to a function and 100 MB back, each alone."""
    measured = bench.python("payload.py", "5")
    return [
        Reading("100 MB argument", [0.1 / s for s in measured["argument"]], "GB/s", 1.0, more_is_better=True),
        Reading("100 MB result", [0.1 / s for s in measured["result"]], "GB/s", 1.0, more_is_better=True),
    ]


def idle(bench: Bench) -> list[Reading]:
    """What server, node and spawner use while nobody calls."""
    bench.alight("run", "hello.py")
    time.sleep(3)
    processes = processes_of(bench.home)
    before, began = sum(map(cpu_seconds, processes)), time.monotonic()
    time.sleep(10)
    share = 100 * (sum(map(cpu_seconds, processes)) - before) / (time.monotonic() - began)
    names = ", ".join(sorted(f"{name} {resident_mb(pid):.0f} MB" for pid, name in processes.items()))
    return [
        Reading("server, node and spawner, idle: memory", [sum(map(resident_mb, processes))], "MB", 150, note=names),
        Reading("server, node and spawner, idle: processor", [share], "% of a core", 1.0),
    ]


CASES: dict[str, Callable[[Bench], list[Reading]]] = {
    "warm": cases_calls.warm,
    "map": cases_calls.map_chunked,
    "map-single": cases_calls.map_single,
    "map-naps": cases_calls.map_naps,
    "spawn": cases_calls.spawn,
    "pending": cases_calls.pending,
    "cold": cold,
    "run": run,
    "start": start,
    "help": help_text,
    "rebuild": rebuild,
    "payload": payload,
    "idle": idle,
}


def _cold_script(count: int) -> str:
    """A script with many functions: each gets a container of its own, so each first call is a cold start."""
    lines = [
        "import json, time",
        "import alight",
        'app = alight.App("bench-cold", image=alight.Image.debian_slim(python_version="3.11"))',
    ]
    for number in range(count):
        lines += ["@app.function()", f"def cold{number}():", "    return time.time()"]
    lines += [
        'if __name__ == "__main__":',
        "    samples = []",
        "    with app.run():",
        f"        for one in [{', '.join(f'cold{number}' for number in range(count))}]:",
        "            began = time.time()",
        "            samples.append(one.remote() - began)",
        "    print(json.dumps(samples))",
    ]
    return "\n".join(lines) + "\n"
