"""kill -9 in the middle of maps, generators and spawned work: every result once, in order, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.system.scripted import Going, Script, settled
from tests.system.test_classes import pids_in_containers
from tests.system.test_crashes import nothing_is_left, pid_of
from tests.system.test_full_disk import full, small_machine  # noqa: F401  a fixture is used by its name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.machine import Machine

FUNCTIONS = '''
@app.function(max_containers=2)
def step(x):
    print("ran", x)
    time.sleep(0.0005)
    return 2 * x


@app.function(max_containers=2)
def nap(seconds, value=None):
    time.sleep(seconds)
    return value


@app.function()
def count(stop):
    for number in range(stop):
        yield number
        time.sleep(0.002)


@app.function()
def parent(x):
    return sum(nap.starmap([(0.05, n) for n in range(20)])) + x


@app.function(max_containers=1)
def poison(x):
    if x == "exit":
        os._exit(3)
    if x == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@app.function()
def first_time_is_the_last(x):
    """Says that it began, and waits long enough to be killed from outside."""
    print("begun", flush=True)
    time.sleep(2)
    return x


@app.function(max_containers=1)
def size(data, seconds=0):
    time.sleep(seconds)
    return len(data)


@app.local_entrypoint()
def finishes_alone():
    print("call", nap.experimental_spawn_map([0.05] * 40, range(40)).object_id, flush=True)
    time.sleep(60)


@app.local_entrypoint()
def stops_sending():
    def source():
        yield from [0.05] * 5
        time.sleep(60)
    for seen, _ in enumerate(nap.map(source(), kwargs={"value": 7}), 1):
        print("seen", seen, flush=True)
'''

MAP = """
    expected = 0
    for value in step.map(range(int(sys.argv[1]))):
        assert value == 2 * expected, (value, expected)
        expected += 1
        if expected % 500 == 0:
            print("at", expected, flush=True)
    answer = [expected, app.app_id]
"""


@pytest.fixture(scope="module")
def crashing(new_machine) -> Iterator[Machine]:
    """An instance whose processes may be killed, for all tests of this file."""
    machine = new_machine(ALIGHT_HOLDER_GRACE="3")
    machine.run("server", "start")
    yield machine
    nothing_is_left(machine)
    machine.close()


@pytest.fixture(scope="module")
def script(crashing, tmp_path_factory) -> Script:
    return Script(crashing, tmp_path_factory.mktemp("faults"), "test-faults", FUNCTIONS)


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    Going.end_all()


def kill(machine: Machine, victim: str) -> None:
    os.kill(pid_of(machine, victim), signal.SIGKILL)


def runs(machine: Machine, app_id: str) -> list[int]:
    """Which inputs ran, one entry for every time."""
    lines = machine.run("app", "logs", app_id, "-n", "100000").stdout.splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("ran ")]


@pytest.mark.parametrize(
    ("victim", "inputs"),
    [
        ("server", 3_000),
        pytest.param("server", 10_000, marks=pytest.mark.slow),
        pytest.param("node", 10_000, marks=pytest.mark.slow),
        pytest.param("spawner", 10_000, marks=pytest.mark.slow),
    ],
)
def test_a_kill_in_the_middle_of_a_map(script, victim, inputs):
    going = Going(script, MAP, str(inputs))
    going.until(f"at {inputs // 3 // 500 * 500}")
    kill(script.machine, victim)
    seen, app_id = going.answer()
    assert seen == inputs
    ran = runs(script.machine, app_id)
    if victim != "spawner":
        assert sorted(ran) == list(range(inputs)), "containers ran on, and still inputs ran twice"
    else:
        # What it had not read of the containers' pipes went with it, the results of those inputs did not.
        assert len(set(ran)) > inputs - 2_500
        assert len(ran) < inputs + 2_500, "more ran again than containers held"


@pytest.mark.slow
def test_three_kills_of_the_server_and_one_of_the_node_in_one_map(script):
    going = Going(script, MAP, "10000")
    for at, victim in ((1000, "server"), (2500, "node"), (5000, "server"), (7500, "server")):
        going.until(f"at {at}")
        kill(script.machine, victim)
    seen, app_id = going.answer()
    assert seen == 10_000
    assert sorted(runs(script.machine, app_id)) == list(range(10_000))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "node"])
def test_a_kill_in_the_middle_of_a_generator(script, victim):
    going = Going(
        script,
        """
        expected = 0
        for value in count.remote_gen(2_000):
            assert value == expected, (value, expected)
            expected += 1
            if expected % 100 == 0:
                print("at", expected, flush=True)
        answer = expected
    """,
    )
    going.until("at 500")
    kill(script.machine, victim)
    assert going.answer() == 2_000


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "node"])
def test_a_kill_while_parents_wait_for_children(script, victim):
    going = Going(
        script,
        """
        calls = [parent.spawn(n) for n in range(3)]
        print("spawned", flush=True)
        answer = [call.get() for call in calls]
    """,
    )
    going.until("spawned")
    time.sleep(0.5)
    kill(script.machine, victim)
    assert going.answer() == [190, 191, 192]


def test_spawned_work_survives_the_server(script):
    """Results that were there, inputs that ran and inputs that waited: all there for another process afterwards."""
    machine = script.machine
    going = Going(
        script,
        """
        done = nap.spawn(0, "done")
        done.get()
        many = nap.experimental_spawn_map([0.1] * 20, range(20))
        print("ids", done.object_id, many.object_id, app.app_id, flush=True)
        answer = 0
    """,
        run="app.run(detach=True)",
    )
    line = ""
    while not line.startswith("ids"):
        line = going.process.stdout.readline()
        assert line, going.errors.read_text()
    _, done, many, app_id = line.split()
    going.answer()
    kill(machine, "server")
    script_after = Script(machine, script.folder, "test-faults-after", "")
    answer = script_after(
        """
        call = alight.FunctionCall.from_id(sys.argv[2])
        answer = [alight.FunctionCall.from_id(sys.argv[1]).get(), list(call.iter()), call.num_inputs()]
    """,
        done,
        many,
    )
    machine.run("app", "stop", "--yes", app_id)
    assert answer == ["done", list(range(20)), 20]


def test_a_killed_client_of_a_detached_run_and_who_takes_it_up(script):
    machine = script.machine
    path = script.write("")
    client = machine.start("run", "--detach", f"{path}::finishes_alone")
    line = client.stdout.readline()
    assert line.startswith("call "), line + client.stderr.read()
    client.kill()
    client.communicate()
    call_id = line.split()[1]
    attached = machine.run("call", "attach", call_id, timeout=60)
    assert "40" in attached.stdout + attached.stderr
    answer = Script(machine, script.folder, "test-faults-after", "")(
        "answer = list(alight.FunctionCall.from_id(sys.argv[1]).iter())", call_id
    )
    assert answer == list(range(40))
    machine.run("app", "stop", "--yes", "test-faults")


@pytest.mark.slow
def test_what_a_killed_client_never_sent_is_said(script):
    machine = script.machine
    path = script.write("")
    client = machine.start("run", "--detach", f"{path}::stops_sending")
    while "seen 5" not in client.stdout.readline():
        pass
    client.kill()
    client.communicate()

    def call() -> dict[str, object]:
        return machine.json("call", "list", "--app", "test-faults", "--limit", "1")[0]

    settled(lambda: call()["state"] == "incomplete")
    shown = machine.run("call", "show", str(call()["call_id"])).stdout
    assert re.search(r"\b5\b", shown), shown
    attached = machine.run("call", "attach", str(call()["call_id"]), status=None)
    assert "sent" in attached.stdout + attached.stderr, attached
    machine.run("app", "stop", "--yes", "test-faults")


def test_a_poison_input_fails_alone_after_some_tries(script):
    answer = script("""
        began = time.monotonic()
        inputs = [*range(10), "exit", *range(10, 20), "kill", *range(20, 30)]
        found = list(poison.map(inputs, return_exceptions=True))
        answer = [[one if isinstance(one, int) else type(one).__name__ for one in found],
                  [str(one) for one in found if not isinstance(one, int)], time.monotonic() - began]
    """)
    assert answer[0] == [*range(10), "RemoteError", *range(10, 20), "RemoteError", *range(20, 30)]
    exited, killed = answer[1]
    assert "3" in exited, exited
    assert "kill" in killed.lower() or "9" in killed, killed
    assert answer[2] < 45


@pytest.mark.slow
def test_a_container_that_is_killed_from_outside_costs_no_retry_of_the_users(script):
    going = Going(script, "answer = [first_time_is_the_last.remote(5), app.app_id]")
    settled(lambda: len(pids_in_containers(script.machine)) > 0)
    settled(lambda: begun(script.machine) == 1)
    for pid in pids_in_containers(script.machine):
        with contextlib.suppress(ProcessLookupError):  # one that went with the one before it
            os.kill(pid, signal.SIGKILL)
    value, app_id = going.answer()
    assert value == 5
    assert script.machine.run("app", "logs", app_id).stdout.splitlines().count("begun") == 2


def begun(machine: Machine) -> int:
    """How many inputs of the newest app have said that they began."""
    newest = machine.json("app", "list")[0]["app_id"]
    return machine.run("app", "logs", newest, status=None).stdout.splitlines().count("begun")


@pytest.mark.slow
def test_a_full_disk_accepts_nothing_and_loses_nothing(small_machine, tmp_path):  # noqa: F811  the fixture
    """What was accepted is there when space returns; what was not is said in a sentence."""
    script = Script(small_machine, tmp_path, "test-faults-disk", FUNCTIONS)
    going = Going(
        script,
        """
        holder = size.spawn(b"", 600)  # the others wait behind it: what runs would give its room back
        assert until(lambda: size.get_current_stats().num_running_inputs == 1)
        print("ready", flush=True)
        while not os.path.exists(sys.argv[1] + "/full"):
            time.sleep(0.02)
        accepted, said = [], None
        for number in range(200):
            try:
                accepted.append(size.spawn(bytes(1_000_000 + number)))
            except Exception as error:
                said = [type(error).__name__, str(error)]
                break
        print("told", flush=True)
        while os.path.exists(sys.argv[1] + "/full"):
            time.sleep(0.02)
        holder.cancel()
        answer = [said, [call.get(timeout=30) for call in accepted], size.remote(b"after")]
    """,
        str(tmp_path),
    )
    going.until("ready")
    with full(small_machine, 20 << 10):
        (tmp_path / "full").touch()
        going.until("told")
    (tmp_path / "full").unlink()
    said, sizes, after = going.answer()
    assert said is not None, "two hundred megabytes were taken by a disk of twenty"
    assert said[0] in {"ResourceExhaustedError", "ServiceError"}, said
    assert "disk" in said[1] or "space" in said[1], said
    assert sizes == [1_000_000 + number for number in range(len(sizes))]
    assert after == 5
