"""`alight serve` as tests drive it: a script that they change, and what the command says."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = """
import alight
from helper import NAME

app = alight.App("served", image=alight.Image.debian_slim(python_version="3.11").add_local_python_source("helper"))


@app.function()
def version():
    return {version}, NAME


@app.function(schedule=alight.Period(hours=1))
def hourly():
    pass
"""


class Served:
    """A command that serves, and what it said so far, line by line."""

    def __init__(self, machine, folder, *words):
        self.machine, self.folder = machine, folder
        self.script = folder / "served.py"
        self.process = machine.start("serve", self.script, *words, cwd=folder)
        self.lines: queue.Queue[str] = queue.Queue()
        self.seen: list[str] = []
        self.threads = [
            threading.Thread(target=self.read, args=(pipe,), daemon=True)
            for pipe in (self.process.stdout, self.process.stderr)
        ]
        for one in self.threads:
            one.start()

    def read(self, pipe):
        with pipe:
            for line in pipe:
                self.lines.put(line)

    def close(self):
        """Its reloaders end with it, and so do its pipes."""
        for one in self.threads:
            one.join(20)
            assert not one.is_alive(), "a process outlives the command"

    def until(self, word, seconds=60):
        ends = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, ends - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"it did not say {word!r}:\n{''.join(self.seen)}") from None
            self.seen.append(line)
            if word in line:
                return line

    def write(self, version, name="one"):
        (self.folder / "helper.py").write_text(f"NAME = {name!r}\n")
        self.script.write_text(SCRIPT.format(version=version))

    def call(self):
        file = self.folder / "program.py"
        file.write_text("import alight\nprint(alight.Function.from_name('served', 'version').remote())\n")
        return self.machine.python(file).stdout.strip()


@contextlib.contextmanager
def serving(machine, folder: Path, script: str = SCRIPT) -> Iterator[Served]:
    """A command that serves this script, with its helper."""
    (folder / "helper.py").write_text("NAME = 'one'\n")
    (folder / "served.py").write_text(script.format(version=1))
    one = Served(machine, folder)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGINT)  # a killed one would leave its app for a while
        try:
            one.process.wait(30)
        finally:
            one.process.kill()
            one.process.wait()
            one.close()
