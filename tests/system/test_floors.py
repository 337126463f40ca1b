"""Protects what is kept ready: floors of deployed apps hold from the deploy on, whatever ends meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.system.test_crashes import pid_of

APP = """
import time
import alight

app = alight.App("floors", image=alight.Image.debian_slim(python_version="3.11"))
VERSION = {version}

@app.function(min_containers=2)
def kept():
    return VERSION

@app.function(buffer_containers=1, scaledown_window=2)
def busy(seconds):
    time.sleep(seconds)
"""
#: Prints, for as long as it runs, how few ready containers it has seen of the function at a time.
WATCH = """
import sys, threading, time
from alight.sdk.client import default_client
from alight.sdk.sync import run
from alight.wire.starts import ContainerList, ContainerListed

async def look():
    listed = await default_client().call("container.list", ContainerList(app="floors"), ContainerListed)
    return [one.container_id for one in listed.containers if one.state == "ready"]

over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
seen, fewest = set(), 1000
print("watching", flush=True)
while not over.is_set():
    found = run(look())
    seen.update(found)
    fewest = min(fewest, len(found))
    time.sleep(0.01)
print(len(seen), fewest)
"""


class Floors:
    """The deployed app, and its containers that are ready."""

    def __init__(self, machine, folder) -> None:
        self.machine, self.folder = machine, folder

    def deploy(self, version: int) -> None:
        script = self.folder / "floors.py"
        script.write_text(APP.format(version=version))
        self.machine.run("deploy", script)

    def ready(self) -> set[str]:
        rows = self.machine.json("container", "list")
        return {one["container_id"] for one in rows if one["state"] == "ready" and one["app"] == "floors"}

    def settles(self, count: int, without: set[str] = frozenset()) -> set[str]:
        """So many, and none of those ``without``: soon, and without a call."""
        until = time.monotonic() + 60
        while True:
            found = self.ready()
            if len(found) == count and not found & without:
                return found
            assert time.monotonic() < until, f"{found} of {count}\n{self.machine.logs()}"
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        os.kill(pid_of(self.machine, name), signal.SIGKILL)


@pytest.fixture(scope="module")
def floors(new_machine, tmp_path_factory):
    return Floors(new_machine(), tmp_path_factory.mktemp("floors"))


def test_a_floor_holds_from_the_deploy_on_whichever_process_is_killed(floors):
    floors.deploy(1)
    first = floors.settles(2)
    floors.kill("server")
    floors.machine.run("server", "start")
    assert floors.settles(2) == first, "they ran on, and there are no more than before"
    floors.kill("node")
    assert floors.settles(2) == first
    floors.kill("spawner")
    floors.settles(2, without=first)


def test_a_changed_version_takes_the_floor_over_without_a_gap(floors):
    floors.deploy(1)
    first = floors.settles(2)
    floors.deploy(1)
    assert floors.ready() == first, "nothing changed, so nothing was replaced"
    program = floors.folder / "watch.py"
    program.write_text(textwrap.dedent(WATCH))
    watcher = subprocess.Popen(
        [sys.executable, str(program)],
        env=floors.machine.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout.readline() == "watching\n"
    floors.deploy(2)
    second = floors.settles(2, without=first)
    said, _ = watcher.communicate(timeout=60)
    seen, fewest = (int(one) for one in said.split())
    assert seen == 4
    assert fewest >= 1, "there was always one that could serve"
    assert not first & second


def test_a_buffer_is_there_while_a_call_runs_whichever_process_is_killed(floors):
    before = floors.ready()
    floors.deploy(3)
    floors.settles(2, without=before)
    script = floors.folder / "calls.py"
    script.write_text("import alight\nalight.Function.from_name('floors', 'busy').spawn(40)\n")
    floors.machine.python(script)
    first = floors.settles(4)
    floors.kill("server")
    floors.machine.run("server", "start")
    assert floors.settles(4) == first
    floors.kill("node")
    assert floors.settles(4) == first
