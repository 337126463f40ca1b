"""kill -9 of every process of ours, at different moments of a call with output: nothing is lost, nothing is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alight.node import cgroups
from alight.node.__main__ import instance_of
from alight.node.network import Names
from tests.system.test_engine_kills import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.machine import Machine

LINES = 60
SCRIPT = f"""
import time
import uuid

import alight

app = alight.App("crashes", image=alight.Image.debian_slim(python_version="3.11"))


@app.function()
def work(ignored: str = "") -> int:
    print("begun", uuid.uuid4(), flush=True)
    for number in range({LINES}):
        print("line", number, flush=True)
        time.sleep(0.03)
    return {LINES}


@app.local_entrypoint()
def main():
    print("result", work.remote(), flush=True)
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crashes") / "job.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def crashing(new_machine) -> Iterator[Machine]:
    """An instance whose processes may be killed, for all tests of this file."""
    machine = new_machine(ALIGHT_HOLDER_GRACE="1")
    machine.run("server", "start")
    yield machine
    nothing_is_left(machine)
    machine.close()


def nothing_is_left(machine: Machine) -> None:
    """After `alight server stop`: no mount, device, control group, firewall table, process or container's directory."""
    import socket
    import subprocess

    machine.run("server", "stop")
    names = Names.of(instance_of(machine.home.resolve()))

    def left() -> list[str]:
        found = [f"group {one}" for tree in cgroups.trees() for one in [f"{tree}{names.group}"] if os.path.exists(one)]
        found += [f"device {name}" for _, name in socket.if_nameindex() if name.startswith(names.prefix)]
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
        found += ["table"] if names.table in tables else []
        found += [f"process {line}" for line in machine.processes().values()]
        found += [f"directory {one}" for one in (machine.home / "node" / "containers").iterdir()]
        for info in Path("/proc").glob("[0-9]*/mountinfo"):
            try:
                found += [f"mount in {info.parent.name}"] if str(machine.home) in info.read_text() else []
            except OSError:
                continue  # it ended meanwhile
        return found

    assert not until(left), left()


def pid_of(machine: Machine, victim: str) -> int:
    wanted = {"server": "-m alight.server ", "node": "-m alight.node ", "spawner": "-m alight.node.spawner "}[victim]
    found = [pid for pid, line in machine.processes().items() if wanted in line]
    # What the spawner forks for templates has its command line.
    found = [pid for pid in found if parent_of(pid) not in found]
    assert len(found) == 1, machine.processes()
    return found[0]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0  # it ended meanwhile


def run_and_kill(machine: Machine, script: Path, victim: str, moment: str) -> tuple[str, str]:
    """`alight run` to its end with one process killed on the way; its output and errors."""
    complaints = script.with_name("stderr")
    with complaints.open("w") as file:
        process = machine.start("run", script, stderr=file)
    seen = ""
    if moment == "start":
        containers = machine.home / "node" / "containers"
        before = set(containers.iterdir()) if containers.exists() else set()
        deadline = time.monotonic() + 20
        while set(containers.iterdir() if containers.exists() else ()) <= before:
            assert time.monotonic() < deadline
            time.sleep(0.002)
    else:
        word = {"begun": "begun", "middle": f"line {LINES // 2}\n", "end": f"line {LINES - 1}\n"}[moment]
        while word not in seen:
            piece = process.stdout.readline()
            assert piece, f"{seen}\n{complaints.read_text()}\n{machine.logs()}"
            seen += piece
    os.kill(pid_of(machine, victim), signal.SIGKILL)
    with process.stdout:
        out = process.stdout.read()
    process.wait(timeout=60)
    errors = complaints.read_text()
    assert process.returncode == 0, f"{seen}{out}\n{errors}\n{machine.logs()}"
    assert "Traceback" not in errors
    return seen + out, errors


def lines_of(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("line ")]


ALL = [f"line {number}" for number in range(LINES)]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start", "begun", "middle", "end"])
@pytest.mark.parametrize("victim", ["server", "node"])
def test_a_killed_server_or_node_costs_nothing(crashing, script, victim, moment):
    out, errors = run_and_kill(crashing, script, victim, moment)
    assert lines_of(out) == ALL, f"{out}\n{errors}\n{crashing.logs()}"
    assert out.count("begun") == 1, f"{out}\n{errors}\n{crashing.logs()}"
    assert out.endswith(f"result {LINES}\n")
    if victim == "server" and moment != "start":
        assert "the server was restarted" in errors


def test_a_killed_spawner_takes_containers_along_and_their_inputs_run_again_saying_so(crashing, script):
    out, errors = run_and_kill(crashing, script, "spawner", "middle")
    assert lines_of(out)[-LINES:] == ALL, f"{out}\n{errors}\n{crashing.logs()}"
    assert out.count("begun") == 2
    assert out.endswith(f"result {LINES}\n")
    told = [line for line in errors.splitlines() if "starts again" in line]
    assert len(told) == 1, errors
    assert "work() starts again (attempt 2): " in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start", "end"])
def test_a_spawner_killed_at_other_moments(crashing, script, moment):
    out, errors = run_and_kill(crashing, script, "spawner", moment)
    assert lines_of(out)[-LINES:] == ALL, f"{out}\n{errors}\n{crashing.logs()}"
    assert out.endswith(f"result {LINES}\n")


@pytest.mark.slow
def test_a_killed_client_leaves_no_container(crashing, script):
    process = crashing.start("run", script)
    while "line 3" not in process.stdout.readline():
        pass
    process.kill()
    process.communicate()
    assert not until(lambda: sum(one["containers"] for one in crashing.json("server", "status")["nodes"]), 20)
    assert crashing.json("app", "list")[0]["state"] == "stopped"


@pytest.mark.slow
def test_all_killed_at_once_start_again_clean(crashing, script):
    process = crashing.start("run", script)
    while "line 3" not in process.stdout.readline():
        pass
    for victim in ("server", "node", "spawner"):
        os.kill(pid_of(crashing, victim), signal.SIGKILL)
    out, errors = process.communicate(timeout=90)
    assert process.returncode == 0, f"{errors}\n{crashing.logs()}"
    assert out.endswith(f"result {LINES}\n")
    assert "starts again" in errors, errors
