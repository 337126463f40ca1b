"""What is measured, and how. A case takes the instance and gives readings, through the public API or the CLI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent / "scripts"
TIMEOUT_S = 600


@dataclass
class Reading:
    """One row: samples in a unit, and what the design asks for."""

    what: str
    samples: list[float]
    unit: str
    budget: float | None = None
    more_is_better: bool = False
    note: str = ""


@dataclass
class Bench:
    """An instance of Alight for the length of a run, and a folder for scripts that are generated."""

    home: Path
    folder: Path

    @classmethod
    def start(cls, home: Path) -> Bench:
        """The directory may hold images of an earlier run: they are what makes the second run quick."""
        folder = home / "scripts"
        folder.mkdir(parents=True, exist_ok=True)
        for script in SCRIPTS.glob("*.py"):
            shutil.copy(script, folder)
        bench = cls(home, folder)
        bench.alight("run", "hello.py")  # builds the image, and starts server and node
        return bench

    def alight(self, *words: str) -> float:
        """Run a command; the seconds that the whole process took."""
        began = time.perf_counter()
        self._run([sys.executable, "-m", "alight", *words])
        return time.perf_counter() - began

    def python(self, script: str, *words: str) -> object:
        """Run a script that ends by printing its measurements as one line of JSON."""
        return json.loads(self._run([sys.executable, script, *words]).splitlines()[-1])

    def close(self) -> None:
        """Stop the instance. Its images stay for the next run."""
        self.alight("server", "stop")

    def _run(self, command: list[str]) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ALIGHT_", "MODAL_"))}
        environment |= {"ALIGHT_HOME": str(self.home), "ALIGHT_CONFIG_PATH": str(self.home / "alight.toml")}
        done = subprocess.run(
            command,
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[1:])} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout


def warm(bench: Bench) -> list[Reading]:
    """`f.remote()` of a function that does nothing, in a container that is there."""
    samples = bench.python("warm.py", "2000")
    return [Reading("warm `f.remote()`, no-op", [1e3 * s for s in samples], "ms", 0.3)]


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
    processes = _processes(bench.home)
    before, began = sum(map(_cpu_seconds, processes)), time.monotonic()
    time.sleep(10)
    share = 100 * (sum(map(_cpu_seconds, processes)) - before) / (time.monotonic() - began)
    names = ", ".join(sorted(processes.values()))
    return [
        Reading("server, node and spawner, idle: memory", [sum(map(_resident_mb, processes))], "MB", 150, note=names),
        Reading("server, node and spawner, idle: processor", [share], "% of a core", 1.0),
    ]


CASES: dict[str, Callable[[Bench], list[Reading]]] = {
    "warm": warm,
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


def _processes(home: Path) -> dict[int, str]:
    """Server, node and spawner of an instance, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            name = next((word.decode() for word in words if word.startswith((b"alight.server", b"alight.node"))), "")
            if name and str(home).encode() in b"\0".join(words) + (entry / "environ").read_bytes():
                found[int(entry.name)] = f"{name} {_resident_mb(int(entry.name)):.0f} MB"
    return found


def _resident_mb(pid: int) -> float:
    """Memory of a process, pages that it shares counted in part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
