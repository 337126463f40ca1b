"""A user's script as tests write it: an app once, and a body that runs within ``app.run()`` for each test."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.machine import Machine

HEAD = """
import asyncio
import itertools
import json
import os
import signal
import sys
import threading
import time
import uuid

import alight

app = alight.App("{name}", image=alight.Image.debian_slim(python_version="3.11"))
ME = uuid.uuid4().hex  # tells containers apart: each imports this file once
"""

HELPERS = '''
def until(condition, seconds=20):
    """Whether a condition comes true in time."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def raised(call, *args, **kwargs):
    """[type, message and hint] of what a call raises."""
    try:
        value = call(*args, **kwargs)
    except Exception as error:
        hint = getattr(error, "hint", "")
        return [type(error).__name__, f"{error} ({hint})" if hint else str(error)]
    return ["nothing", repr(value)]


def quiet(function):
    """Whether nothing waits and nothing runs, soon."""
    def nothing():
        stats = function.get_current_stats()
        return stats.backlog == 0 and stats.num_running_inputs == 0
    return until(nothing)
'''


@dataclass
class Script:
    """One app on one instance. Bodies say what they found in ``answer``, which travels as JSON."""

    machine: Machine
    folder: Path
    name: str
    functions: str

    def write(self, body: str, run: str = "app.run()") -> Path:
        """The script with a body, as a file of its own: containers import it as a user's would be."""
        inside = textwrap.indent(textwrap.dedent(body).strip("\n") or "pass", "        ")
        text = (
            f"{HEAD.format(name=self.name)}{HELPERS}{self.functions}\n\n"
            f"if __name__ == '__main__':\n    answer = None\n    with {run}:\n{inside}\n"
            "    print('\\n' + json.dumps(answer))\n"
        )
        path = self.folder / "script.py"
        path.write_text(text)
        return path

    def __call__(self, body: str, *words: str, run: str = "app.run()", timeout: float = 60) -> object:
        """Run it to its end; what it answered."""
        done = self.machine.python(self.write(body, run), *words, timeout=timeout)
        return json.loads(done.stdout.splitlines()[-1])

    def output(self, body: str, timeout: float = 60) -> tuple[object, list[str]]:
        """What it answered, and the lines that its containers wrote until they had ended."""
        path = self.write(f"{textwrap.dedent(body)}\nanswer = [answer, app.app_id]")
        answer, app_id = json.loads(self.machine.python(path, timeout=timeout).stdout.splitlines()[-1])
        settled(lambda: not self.containers(app_id))
        return answer, self.machine.run("app", "logs", app_id, "-n", "1000").stdout.splitlines()

    def containers(self, app_id: str) -> int:
        """How many containers of an app there are."""
        return next(one["containers"] for one in self.machine.json("app", "list") if one["app_id"] == app_id)


class Going:
    """A script that runs while a test does something else. Its stdout is read by line, its errors go to a file."""

    running: ClassVar[list[Going]] = []

    def __init__(self, script: Script, body: str, *words: str, run: str = "app.run()") -> None:
        self.machine = script.machine
        self.errors = script.folder / "stderr"
        path = script.write(body, run)
        with self.errors.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(path), *words],
                env=script.machine.environment(),
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        Going.running.append(self)

    @classmethod
    def end_all(cls) -> None:
        """After each test, however it ended."""
        while cls.running:
            one = cls.running.pop()
            one.process.kill()
            one.process.communicate()

    def until(self, word: str) -> None:
        """Read on until a line says it."""
        while True:
            line = self.process.stdout.readline()
            assert line, f"it ended before it said {word!r}\n{self.errors.read_text()}\n{self.machine.logs()}"
            if word in line:
                return

    def answer(self, timeout: float = 90) -> object:
        """Its answer, once it has ended well."""
        giving_up = threading.Timer(timeout, self.process.kill)
        giving_up.start()
        out = self.process.stdout.read()  # communicate() would pass over what readline() has read ahead
        self.process.wait()
        giving_up.cancel()
        assert self.process.returncode == 0, f"{self.errors.read_text()}\n{self.machine.logs()}"
        return json.loads(out.splitlines()[-1])


def settled(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)
