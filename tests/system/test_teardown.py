"""Containers come and go by the thousand, and processes of ours are killed: what the kernel counts for us stays so."""

# ruff: noqa: F811 fixtures are imported and then asked for by name
from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from alight.node.__main__ import instance_of
from alight.node.network import Names
from tests.system import holdings
from tests.system.lab import Lab, short_home  # noqa: F401 a fixture
from tests.system.test_engine_kills import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.machine import Machine

AT_ONCE = 4
#: Containers that take one input each, so that a map of so many inputs starts so many.
SCRIPT = """
import time

import alight

app = alight.App("teardown", image=alight.Image.debian_slim(python_version="3.11"))


@app.function(single_use_containers=True, max_containers=4)
def square(x):
    return x * x


@app.local_entrypoint()
def main(count: int):
    for number, value in enumerate(square.map(range(count), order_outputs=False)):
        print("done", number, flush=True)
"""
FEW, MANY = 15, 1000


def many(count: int) -> object:
    """A parameter: so many starts and stops, slow when they are many."""
    return pytest.param(count, marks=[pytest.mark.slow, pytest.mark.timeout(1500)] if count > FEW else [])


@pytest.mark.parametrize("count", [many(FEW), many(MANY)])
def test_an_engine_that_started_and_removed_many_holds_what_it_held_before(base_layers, short_home, count):
    lab = Lab(base_layers, short_home)
    try:
        _start_and_remove(lab, AT_ONCE)  # what the first container needs stays for those after it
        pids = {"agent": os.getpid(), "spawner": _parent(lab)}
        names = Names.of(str(short_home))
        before = holdings.of(short_home, names, pids)

        _start_and_remove(lab, count)
        grown = holdings.grown(before, lambda: holdings.of(short_home, names, pids))
    finally:
        lab.close()
    assert not grown


def _start_and_remove(lab: Lab, count: int) -> None:
    async def some() -> None:
        while plans:
            plan = plans.pop()
            await lab.engine.start(plan)
            await lab.engine.wait(plan.id)
            await lab.engine.remove(plan.id)

    async def all_of_them() -> None:
        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    plans = [lab.plan("true") for _ in range(count)]
    lab.loop.run_until_complete(all_of_them())


def _parent(lab: Lab) -> int:
    """The spawner, as the parent of a container."""
    plan = lab.plan("sh", "-c", "echo up; exec sleep 1000")
    pid = lab.started(plan).pid
    found = holdings.parent(pid)
    lab.run(lab.engine.remove(plan.id))
    return found


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teardown") / "many.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(params=["plain", "forked", "parked"])
def instance(request, new_machine):
    """An instance of one test, by the way in which its containers start."""
    settings = {"ALIGHT_TEMPLATES": "off" if request.param == "plain" else "on", "ALIGHT_HOLDER_GRACE": "1"}
    machine = new_machine(**settings, ALIGHT_PARKED="1" if request.param == "parked" else "0")
    yield machine
    machine.close()


MODULES = {"server": "alight.server", "node": "alight.node", "spawner": "alight.node.spawner"}


def pid_of(machine: Machine, name: str) -> int:
    """Of one of the three; a spawner's children have its command line until they are something else."""
    found = [pid for pid, line in machine.processes().items() if f"-m {MODULES[name]} " in line]
    (pid,) = [one for one in found if holdings.parent(one) not in found]
    return pid


def settled(machine: Machine, script: Path) -> holdings.Holdings:
    """What it holds once it has run containers, and has what it keeps between runs: a template, a fork that waits."""
    wanted = []
    if machine.env["ALIGHT_TEMPLATES"] == "on":
        wanted = ["tp-", *["sh-"] * int(machine.env["ALIGHT_PARKED"])]
    for _ in range(2):  # the template is made at the first run
        machine.run("run", script, "--count", "8")
        until(lambda: [name[:3] for name in sorted(held(machine)["control groups"], reverse=True)] != wanted, 20)
    found = held(machine)
    kinds = [name[:3] for name in sorted(found["control groups"], reverse=True)]
    assert kinds == wanted, f"{found['control groups']}\n{machine.logs()}"
    return found


def held(machine: Machine) -> holdings.Holdings:
    """With the processes that there are now."""
    pids = {name: pid_of(machine, name) for name in MODULES}
    return holdings.of(machine.home, Names.of(instance_of(machine.home.resolve())), pids)


@pytest.mark.parametrize("count", [many(FEW), many(MANY)])
def test_runs_with_many_containers_leave_an_instance_with_what_it_had_before(instance, script, count):
    before = settled(instance, script)

    done = instance.run("run", script, "--count", count, timeout=1400)

    assert done.stdout.count("done") == count
    assert not holdings.grown(before, lambda: held(instance)), instance.logs()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["node", "spawner"])
def test_a_process_killed_among_starts_and_stops_leaves_nothing_behind(instance, script, victim):
    before = settled(instance, script)

    process = instance.start("run", script, "--count", 3 * FEW)
    seen = 0
    while seen < FEW:
        line = process.stdout.readline()
        assert line, f"{process.stderr.read()}\n{instance.logs()}"
        seen += line.startswith("done")
    os.kill(pid_of(instance, victim), signal.SIGKILL)
    out, errors = process.communicate(timeout=200)

    assert process.returncode == 0, f"{errors}\n{instance.logs()}"
    assert seen + out.count("done") == 3 * FEW
    # The next agent, or the next spawner, has swept: it serves more runs, and then everything is as it was.
    settled(instance, script)
    assert not holdings.grown(before, lambda: held(instance)), instance.logs()
