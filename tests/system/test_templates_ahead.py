"""Protects the first start of a deployed function: its template is made when it is deployed, and by a new agent."""

from __future__ import annotations

import json
import os
import signal
import time

from tests.system.test_crashes import pid_of

APP = """
import alight

app = alight.App("ahead", image=alight.Image.debian_slim(python_version="3.11"))

@app.function(enable_memory_snapshot=True)
def snapped():
    return 1

@app.function()
def plain():
    return 2
"""


def _parked(machine, wanted: dict[int, int]) -> None:
    """Wait until so many forks of templates of each level wait."""
    until = time.monotonic() + 60
    while True:
        found: dict[int, int] = {}
        try:
            rows = json.loads((machine.home / "run" / "templates.json").read_text())["templates"]
        except FileNotFoundError:
            rows = []
        for row in rows:
            found[row["level"]] = found.get(row["level"], 0) + row["parked"]
        if all(found.get(level, 0) >= count for level, count in wanted.items()):
            return
        assert time.monotonic() < until, f"{rows}\n{machine.logs()}"
        time.sleep(0.1)


def test_the_first_start_of_a_deployed_function_is_a_fork_that_waits(fresh_machine, tmp_path):
    script = tmp_path / "ahead.py"
    script.write_text(APP)
    fresh_machine.run("deploy", script)
    _parked(fresh_machine, {1: 1, 2: 1})
    (tried,) = fresh_machine.json("container", "list", "--all")  # the deploy's, which proved that it can be imported
    fresh_machine.run("container", "stop", tried["container_id"], "--yes")
    _parked(fresh_machine, {1: 1, 2: 1})
    call = tmp_path / "call.py"
    call.write_text(
        "import alight\nprint(*[alight.Function.from_name('ahead', one).remote() for one in ('snapped', 'plain')])\n"
    )
    assert fresh_machine.python(call).stdout == "1 2\n"
    rows = [one for one in fresh_machine.json("container", "list", "--all") if one["created_at"] > tried["created_at"]]
    assert {(one["function"], one["how"], one["level"]) for one in rows} == {
        ("snapped", "parked", 2),
        ("plain", "parked", 1),
    }
    os.kill(pid_of(fresh_machine, "node"), signal.SIGKILL)
    (fresh_machine.home / "run" / "templates.json").unlink()  # what the killed one said
    _parked(fresh_machine, {1: 1, 2: 1})
