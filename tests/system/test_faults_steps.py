"""The server killed at each step of a call: received, committed, dispatched, forwarded, answered, kept, told."""

from __future__ import annotations

import pytest

from alight.server import faults
from tests.system.scripted import Going, Script
from tests.system.test_crashes import nothing_is_left
from tests.system.test_faults import _ended, runs  # noqa: F401  a fixture is used by its name

FUNCTIONS = """
@app.function(max_containers=2)
def step(x):
    print("ran", x)
    return 2 * x
"""


@pytest.fixture(scope="module")
def crashing(new_machine):
    machine = new_machine(ALIGHT_HOLDER_GRACE="3")
    machine.run("server", "start")
    yield machine
    nothing_is_left(machine)
    machine.close()


@pytest.mark.slow
@pytest.mark.parametrize("step", faults.STEPS)
def test_a_server_killed_at_a_step(crashing, tmp_path, step):
    """Killed the third time that it comes to it. Each input runs once, and each result comes once."""
    script = Script(crashing, tmp_path, "test-steps", FUNCTIONS)
    crashing.run("server", "stop")
    crashing.run("server", "start", ALIGHT_TEST="1", ALIGHT_FAULT=f"{step}:3")
    armed = server(crashing)
    going = Going(
        script,
        """
        answer = [[step.remote(x) for x in range(5)], list(step.map(range(5, 900))),
                  [one.get() for one in [step.spawn(x) for x in range(900, 905)]], app.app_id]
    """,
    )
    single, mapped, spawned, app_id = going.answer(60)
    assert single == [2 * x for x in range(5)]
    assert mapped == [2 * x for x in range(5, 900)]
    assert spawned == [2 * x for x in range(900, 905)]
    assert server(crashing) != armed, f"the step {step!r} was not reached three times: nothing was killed"
    assert sorted(runs(crashing, app_id)) == list(range(905))


def server(machine) -> list[int]:
    return [pid for pid, line in machine.processes().items() if "-m alight.server " in line]
