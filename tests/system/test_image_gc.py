"""Clearing up images by age and by size, with real layers: fast, and never what a container stands on."""

from __future__ import annotations

import os
import time

import pytest

pytestmark = pytest.mark.slow

MIB = 1 << 20
SCRIPT = """
import time
import alight

app = alight.App("clearing")
BASE = alight.Image.debian_slim("3.11")
IMAGES = [BASE.run_commands(f"head -c {20 << 20} /dev/urandom > /filler-{number}") for number in range(3)]


if __name__ == "before":  # an app that is there needs the images of all its functions

    @app.function(image=IMAGES[0])
    def oldest():
        return "done"

    @app.function(image=IMAGES[1])
    def older():
        return "done"

else:

    @app.function(image=IMAGES[2], timeout=600)
    def running():
        while True:
            time.sleep(0.2)
            print("read", len(open("/filler-2", "rb").read(100)), flush=True)
"""


def test_what_was_not_used_goes_and_what_runs_stays(fresh_machine, tmp_path):
    machine = fresh_machine
    script, live = tmp_path / "before.py", tmp_path / "live.py"
    script.write_text(SCRIPT)
    live.write_text(SCRIPT)
    for name in ("oldest", "older"):
        machine.run("run", f"{script}::{name}")
    followed = machine.start("run", f"{live}::running")
    try:
        _wait_for(lambda: _output(machine).count("read 100") > 2)
        _age(machine, {0: 3, 1: 2, 2: 9})

        begun = time.monotonic()
        machine.run("image", "prune", "--older-than", "60h", "-y")
        assert time.monotonic() - begun < 15
        assert _there(machine) == {1, 2}  # the one that runs is the oldest, and needed

        before = _bytes(machine)
        machine.run("image", "prune", "--keep", "1M", "-y")
        assert _there(machine) == {2}
        assert before - _bytes(machine) > 15 * MIB

        seen = _output(machine).count("read 100")
        _wait_for(lambda: _output(machine).count("read 100") > seen + 3)
        assert followed.poll() is None
    finally:
        followed.terminate()
        followed.communicate(timeout=60)
    machine.run("run", f"{script}::oldest")  # is built again


def _there(machine) -> set[int]:
    titles = [one["title"] for one in machine.json("image", "list")]
    return {number for number in range(3) for title in titles if f"filler-{number}" in title}


def _age(machine, days: dict[int, int]) -> None:
    """As if the images had been used that many days ago."""
    for one in machine.json("image", "list"):
        for number, ago in days.items():
            if f"filler-{number}" in one["title"]:
                when = time.time() - ago * 86400
                os.utime(machine.home / "node/images" / f"{one['digest']}.used", (when, when))


def _bytes(machine) -> int:
    files = [os.lstat(path) for path in (machine.home / "node/layers").rglob("filler-*")]
    return sum(one.st_blocks * 512 for one in files)


def _output(machine) -> str:
    logs = sorted((machine.home / "node/containers").glob("*/output.log"), key=os.path.getmtime)
    return logs[-1].read_bytes().decode(errors="replace") if logs else ""


def _wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
