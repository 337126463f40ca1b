"""`alight server stop` leaves nothing running, whatever was killed before: no process, mount, group, device or rule."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.machine import Machine
from tests.system.test_crashes import nothing_is_left, pid_of
from tests.system.test_engine_kills import until

SCRIPT = """
import time

import alight

app = alight.App("stopping", image=alight.Image.debian_slim(python_version="3.11"))


@app.function()
def hold():
    print("holding", flush=True)
    time.sleep(600)


@app.local_entrypoint()
def main():
    hold.remote()
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stopping") / "hold.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def holding(fresh_machine: Machine, script: Path):
    """An instance with a container in a long input, and nobody who would start what is killed again."""
    begin(fresh_machine, script)
    return fresh_machine


def begin(machine: Machine, script: Path) -> None:
    process = machine.start("run", "--detach", script, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    while (line := process.stdout.readline()) and "holding" not in line:
        pass
    process.kill()
    process.communicate()
    assert line, machine.logs()


def kill(machine: Machine, *victims: str) -> None:
    pids = [pid_of(machine, one) for one in victims]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert not until(lambda: set(pids) & set(machine.processes()))


@pytest.mark.parametrize(
    "victims", [["node"], ["server", "node"], ["server", "node", "spawner"]], ids=lambda those: "+".join(those)
)
def test_what_killed_processes_left_is_ended_and_named(holding: Machine, victims: list[str]):
    kill(holding, *victims)

    said = holding.run("server", "stop").stderr

    # A server may have started the node again, which then ends all by itself; and a spawner's forks die with it.
    if victims == ["server", "node"]:
        assert "Ended what an earlier node had left: spawner (pid" in said
        assert "1 container" in said
    assert not any("spawner" in one for one in holding.processes().values())
    empty_containers(holding)
    nothing_is_left(holding)
    assert "Nothing runs" in holding.run("server", "stop").stderr


def test_a_node_that_the_server_is_starting_again_ends_with_it(holding: Machine):
    before = pid_of(holding, "node")
    kill(holding, "node")
    assert not until(lambda: [] if any(pid != before for pid in nodes(holding)) else ["no node is started again"])

    holding.run("server", "stop")

    assert nodes(holding) == []
    assert not any("spawner" in one for one in holding.processes().values())
    empty_containers(holding)
    nothing_is_left(holding)


def test_a_node_without_a_server_ends(holding: Machine):
    kill(holding, "server")

    assert "node (pid" in holding.run("server", "stop").stderr

    empty_containers(holding)
    nothing_is_left(holding)


@pytest.mark.slow
def test_a_spawner_that_answers_nobody_is_killed(holding: Machine):
    os.kill(pid_of(holding, "spawner"), signal.SIGSTOP)

    holding.run("server", "stop")

    assert holding.processes() == {}


def test_bare_processes_end(new_machine, script: Path):
    machine = new_machine(ALIGHT_ENGINE="process")
    begin(machine, script)
    try:
        kill(machine, "server", "node")
        assert len(machine.processes()) == 1
        assert "Ended what an earlier node had left: 1 container\n" in machine.run("server", "stop").stderr
        assert not until(machine.processes)
    finally:
        machine.close()


def test_forks_that_wait_end_without_a_warning(new_machine, tmp_path: Path):
    script = tmp_path / "short.py"
    script.write_text(SCRIPT.replace("time.sleep(600)", "pass"))
    machine = new_machine(ALIGHT_TEMPLATES="on", ALIGHT_PARKED="1")
    log = machine.home / "log" / "node.log"
    try:
        machine.run("run", script)
        assert not until(lambda: not any(one["parked"] for one in templates(machine)), 60)
        machine.run("server", "stop")
        assert "all containers end" in log.read_text()
        assert "a fork that waited has died" not in log.read_text()
        assert "was killed" not in (log.parent / "spawner.log").read_text()
    finally:
        machine.close()


def test_the_end_of_an_app_interrupts_what_runs(holding: Machine):
    (app,) = holding.json("app", "list")
    began = time.monotonic()

    holding.run("app", "stop", "--yes", app["app_id"])
    assert not until(lambda: holding.json("container", "list"), 30)

    assert time.monotonic() - began < 6, holding.logs()


def templates(machine: Machine) -> list[dict[str, Any]]:
    try:
        return json.loads((machine.home / "run" / "templates.json").read_text())["templates"]
    except FileNotFoundError:
        return []


def nodes(machine: Machine) -> list[int]:
    return [pid for pid, line in machine.processes().items() if "-m alight.node " in line]


def empty_containers(machine: Machine) -> None:
    """What ended containers say stays on the disk for the next node: no business of these tests."""
    import shutil

    for path in (machine.home / "node" / "containers").iterdir():
        shutil.rmtree(path)
