"""What people see of calls while they wait and run: `alight call list`, `show`, `attach`, `graph`, `cancel`."""

from __future__ import annotations

import pytest

from tests.system.scripted import Going, Script, settled
from tests.system.test_faults import _ended  # noqa: F401  a fixture is used by its name

FUNCTIONS = """
@app.function(max_containers=1)
def nap(seconds, value=None):
    time.sleep(seconds)
    return value


@app.function(gpu="A100-80GB", min_containers=1)
def holds_a_gpu():
    return ME


@app.function(gpu="A100-80GB", memory=256)
def wants_a_gpu():
    return 1


@app.function()
def refuse(x):
    if x % 2:
        raise ValueError(f"no {x} here")
    return x


@app.function()
def through(x):
    return refuse.remote(2 * x)
"""


@pytest.fixture(scope="module")
def seen(new_machine):
    """An instance with one pretended GPU, and nobody else's calls."""
    machine = new_machine()
    machine.run("server", "start", "--fake-gpus", "A100-80GB:1")
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def script(seen, tmp_path_factory) -> Script:
    return Script(seen, tmp_path_factory.mktemp("seen"), "test-seen", FUNCTIONS)


def calls(machine, *words: str) -> list[dict]:
    return machine.json("call", "list", *words)


def test_a_line_and_who_is_in_it(script, seen):
    going = Going(
        script,
        """
        first = nap.spawn(60)
        assert until(lambda: nap.get_current_stats().num_running_inputs == 1)
        many = nap.experimental_spawn_map([0.0] * 5, range(5))
        last = nap.spawn(0.0, "last")
        print("ids", first.object_id, many.object_id, last.object_id, flush=True)
        answer = [raised(first.get)[0], list(many.iter()), last.get()]
    """,
    )
    line = going.process.stdout.readline()
    assert line.startswith("ids"), going.errors.read_text()
    _, first, many, last = line.split()
    listed = {one["call_id"]: one for one in calls(seen)}
    assert [listed[one]["state"] for one in (first, many, last)] == ["running", "waiting", "waiting"]
    assert listed[many]["waiting"] == 5
    assert [one["call_id"] for one in calls(seen, "--state", "running")] == [first]
    shown = seen.run("call", "show", last).stdout
    assert "waits" in shown
    assert "comes first" in shown, shown
    seen.run("call", "cancel", "--yes", first)
    attached = seen.run("call", "attach", "--results", many)
    assert [line.split("\t") for line in attached.stdout.splitlines()] == [[str(n), str(n)] for n in range(5)]
    assert going.answer() == ["RemoteError", [0, 1, 2, 3, 4], "last"]


def test_failures_and_the_graph(script, seen):
    going = Going(
        script,
        """
        many = refuse.experimental_spawn_map(range(4))
        nested = through.spawn(3)
        nested.get()
        quiet(refuse)
        print("ids", many.object_id, nested.object_id, flush=True)
        answer = 0
    """,
    )
    _, many, nested = going.process.stdout.readline().split()
    going.answer()
    shown = seen.run("call", "show", many).stdout
    assert "no 1 here" in shown, shown
    assert "no 3 here" in shown, shown
    assert seen.run("call", "attach", many, status=1).returncode == 1
    graph = seen.run("call", "graph", nested).stdout
    assert graph.index("through()") < graph.index("refuse()")


def test_a_gpu_that_nobody_will_ever_return(script, seen):
    """It is held by a container that is kept: whoever waits is told so, and by whom."""
    going = Going(
        script,
        """
        holds_a_gpu.remote()
        call = wants_a_gpu.spawn()
        print("id", call.object_id, flush=True)
        answer = raised(call.get)[0]
    """,
    )
    _, call_id = going.process.stdout.readline().split()
    shown = seen.run("call", "show", call_id).stdout
    assert "A100-80GB" in shown, shown
    assert "holds_a_gpu" in shown, shown
    assert "nobody will ever return" in shown, shown
    seen.run("call", "cancel", "--yes", call_id)
    assert going.answer() == "RemoteError"


@pytest.mark.slow
def test_a_run_says_why_it_waits(script, seen, tmp_path):
    """On stderr of `alight run`, once it has waited long enough to wonder; and gone from the list afterwards."""
    going = Going(
        script,
        """
        holds_a_gpu.remote()
        print("held", flush=True)
        time.sleep(4)
        answer = 0
    """,
    )
    going.until("held")
    other = Script(seen, tmp_path, "test-seen-other", FUNCTIONS)
    done = seen.run("run", f"{other.write('')}::wants_a_gpu", timeout=60)
    assert "A100-80GB" in done.stderr, done.stderr
    assert "holds_a_gpu" in done.stderr, done.stderr
    assert going.answer() == 0
    settled(lambda: calls(seen, "--state", "waiting") == [])
