"""What a measurement is, and the instance that it is taken on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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
class Talk:
    """A script that says when something is to be looked at, and goes on when it is told to."""

    process: subprocess.Popen[str]
    errors: Path
    seen: list[str] = field(default_factory=list)

    def until(self, word: str) -> None:
        """Wait for this line."""
        for line in self.process.stdout or ():
            self.seen.append(line)
            if line.strip() == word:
                return
        raise RuntimeError(f"it ended before it said {word!r}: {self.errors.read_text()[-2000:]}")

    def answer(self) -> object:
        """Let it go on to its end; what its last line says."""
        out, _ = self.process.communicate("\n", timeout=TIMEOUT_S)
        if self.process.returncode:
            raise RuntimeError(self.errors.read_text()[-2000:])
        return json.loads(out.splitlines()[-1])


@dataclass
class Bench:
    """An instance of Alight for the length of a run, and a folder for scripts that are generated."""

    home: Path
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, home: Path, **settings: str) -> Bench:
        """The directory may hold images of an earlier run: they are what makes the second run quick. ``settings`` are
        environment variables of the instance and its clients."""
        folder = home / "scripts"
        folder.mkdir(parents=True, exist_ok=True)
        for script in SCRIPTS.glob("*.py"):
            shutil.copy(script, folder)
        bench = cls(home, folder, settings)
        bench.say("starting an instance; its image is built when it is not there")
        bench.alight("run", "hello.py")  # builds the image, and starts server and node
        return bench

    def say(self, text: str) -> None:
        """What is waited for."""
        print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def alight(self, *words: str) -> float:
        """Run a command; the seconds that the whole process took."""
        began = time.perf_counter()
        self._run([sys.executable, "-m", "alight", *words])
        return time.perf_counter() - began

    def python(self, script: str, *words: str) -> object:
        """Run a script that ends by printing its measurements as one line of JSON."""
        return json.loads(self._run([sys.executable, str(self.folder / script), *words]).splitlines()[-1])

    @contextlib.contextmanager
    def talk(self, script: str, *words: str) -> Iterator[Talk]:
        """Run a script that stops on the way, to be looked at."""
        errors = self.folder / "stderr"
        with errors.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, str(self.folder / script), *words],
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        try:
            yield Talk(process, errors)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def close(self) -> None:
        """Stop the instance. Its images stay for the next run."""
        self.alight("server", "stop")

    def environment(self) -> dict[str, str]:
        """What its commands get: none of the caller's own settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ALIGHT_", "MODAL_"))}
        own = {"ALIGHT_HOME": str(self.home), "ALIGHT_CONFIG_PATH": str(self.home / "alight.toml")}
        return kept | own | self.settings

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            env=self.environment(),
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


def processes_of(home: Path) -> dict[int, str]:
    """Server, node and spawner of an instance: their modules, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                around = b"\0".join(words) + (entry / "environ").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            name = next((word.decode() for word in words if word.startswith((b"alight.server", b"alight.node"))), "")
            if name and str(home).encode() in around:
                found[int(entry.name)] = name
    return found


def resident_mb(pid: int) -> float:
    """Memory of a process, pages that it shares counted in part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def cpu_seconds(pid: int) -> float:
    """What a process has used of a processor so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
