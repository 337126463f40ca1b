"""Many containers of one function asked for at once: all come up, none fails, and how long that took is printed."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_S = 240
#: Every input waits until as many run as there are: one container each, or it never ends well.
SCRIPT = """
import json
import os
import time

import alight

app = alight.App("storm", image=alight.Image.debian_slim(python_version="3.11"))
meeting = alight.Volume.from_name("storm", create_if_missing=True)


@app.function(max_containers=200, memory=64, timeout=600, volumes={"/meeting": meeting})
def meet(number, count, limit):
    began = time.monotonic()
    open(f"/meeting/{count}-{number}", "w").close()
    while len([name for name in os.listdir("/meeting") if name.startswith(f"{count}-")]) < count:
        if time.monotonic() - began > limit:
            return None
        time.sleep(count / 200)  # looking is work, too
    return began, os.environ["ALIGHT_TASK_ID"]


@app.local_entrypoint()
def main(count: int, limit: float):
    called = time.monotonic()
    rows = [(number, count, limit) for number in range(count)]
    met = list(meet.starmap(rows, return_exceptions=True))
    print(json.dumps([[one[0] - called, one[1]] if isinstance(one, (list, tuple)) else repr(one) for one in met]))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("storm") / "storm.py"
    path.write_text(SCRIPT)
    return path


SLOW = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.parametrize(
    ("count", "templates"),
    [(12, "on"), pytest.param(100, "on", marks=SLOW), pytest.param(100, "off", marks=SLOW)],
)
def test_containers_that_are_asked_for_at_once_all_come_up(new_machine, script, count, templates, capsys):
    machine = new_machine(ALIGHT_TEMPLATES=templates)
    try:
        machine.run("server", "start")
        done = machine.run("run", script, "--count", count, "--limit", LIMIT_S, timeout=LIMIT_S + 60)
        met = json.loads(done.stdout.splitlines()[-1])
        logs = machine.logs()
    finally:
        machine.close()
    assert all(isinstance(one, list) for one in met), f"{met}\n{logs}"
    assert len({container for _, container in met}) == count, "an input had to wait for another's container"
    lines = sorted(seconds for seconds, _ in met)
    p50, p95 = lines[count // 2], lines[int(0.95 * count)]
    with capsys.disabled():
        sys.stdout.write(f"\n{count} at once, templates {templates}: first lines after {p50:.2f} s, p95 {p95:.2f} s\n")
