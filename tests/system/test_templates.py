"""Containers as forks of templates, up to the user's line: what is shared, what is not, and what may crash."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.system.scripted import Going, Script, settled

HELP = '''
import random
import socket


def templates(level):
    """The rows of the templates of a level that can be forked."""
    try:
        rows = json.load(open(os.path.join(os.environ["ALIGHT_HOME"], "run", "templates.json")))["templates"]
    except (OSError, ValueError):
        rows = []
    return [row for row in rows if row["level"] == level and row["ready"]]


# Each test is a script of its own, so that its modules have templates of their own: those of earlier tests, which may
# be for functions of the same names, never serve it.
EARLIER = [] if os.environ.get("ALIGHT_IS_REMOTE") else [row["id"] for row in templates(2)]


def waits(level, name="", but=EARLIER):
    """Whether a fork of a template of this level waits, soon; one that was not there before this script."""
    return until(
        lambda: any(row["parked"] and name in row["for"] and row["id"] not in but for row in templates(level)), 30
    )
'''

FUNCTIONS = (
    HELP
    + """
if os.environ.get("ALIGHT_IS_REMOTE"):
    with open("/root/at-import", "a") as file:
        file.write("i")
    drawn_at_import = random.random()
    print("imported", flush=True)


def seen():
    with open("/root/at-import", "a") as file:
        file.write("c")
    return {
        "me": ME,
        "file": open("/root/at-import").read(),
        "random": random.random(),
        "task": os.environ["ALIGHT_TASK_ID"],
        "key": os.environ.get("KEY"),
        "now": time.time(),
        "host": socket.gethostbyname("localhost"),
        "pids": sorted(int(one) for one in os.listdir("/proc") if one.isdigit()),
    }


@app.function(single_use_containers=True)
def once():
    return seen()


@app.function(single_use_containers=True, enable_memory_snapshot=True, secrets=[alight.Secret.from_dict({"KEY": "a"})])
def snapped():
    return seen()


@app.function(single_use_containers=True, enable_memory_snapshot=True, secrets=[alight.Secret.from_dict({"KEY": "b"})])
def other_secret():
    return seen()


@app.function(single_use_containers=True, enable_memory_snapshot=True)
def again():
    return ME


@app.function(enable_memory_snapshot=True)
def slow(seconds):
    time.sleep(seconds)
    return ME


@app.cls(single_use_containers=True, enable_memory_snapshot=True)
class Model:
    @alight.enter(snap=True)
    def load(self):
        self.loaded_by = uuid.uuid4().hex

    @alight.enter()
    def connect(self):
        self.connected_by = uuid.uuid4().hex

    @alight.method()
    def both(self):
        return [self.loaded_by, self.connected_by]
"""
)


@pytest.fixture(scope="module")
def place(new_machine):
    return new_machine(ALIGHT_LOGLEVEL="DEBUG")


@pytest.fixture(scope="module")
def script(place, tmp_path_factory) -> Script:
    return Script(place, tmp_path_factory.mktemp("templates"), "test-templates", FUNCTIONS)


@pytest.fixture(autouse=True)
def _end_what_goes_on():
    yield
    Going.end_all()


def started(machine, function: str) -> list[tuple[str, int]]:
    """How each container of a function came to be, the oldest first."""
    rows = machine.json("container", "list", "--all", "--app", "test-templates")
    return [(row["how"], row["level"]) for row in reversed(rows) if row["function"] == function]


def group_of(name: str) -> list[int]:
    """The processes in the control groups of a container, as the host numbers them."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if name in one.read_text():
                found.append(int(one.parent.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def kill_all(name: str) -> None:
    for pid in group_of(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def template_ids(machine, level: int) -> list[str]:
    rows = json.loads((machine.home / "run" / "templates.json").read_text())["templates"]
    return [row["id"] for row in rows if row["level"] == level and row["ready"]]


def test_after_the_first_start_a_fork_waits(script, place):
    before, one, two = script("""
        answer = [once.remote()]
        assert waits(1)
        answer += [once.remote()]
        assert waits(1)
        answer += [once.remote()]
    """)
    assert before["me"] != one["me"] != two["me"], "code of a container without a snapshot is its own"
    assert {one["file"], two["file"]} == {"ic"}, "and its files, too"
    assert len(one["pids"]) == len(two["pids"]) == 2, "a fork sees itself and the first process alone"
    assert one["host"] == "127.0.0.1"
    ways = started(place, "once")[-2:]
    assert [level for _, level in ways] == [1, 1]
    assert "parked" in {how for how, _ in ways}


def test_what_came_before_the_snapshot_is_shared_and_what_comes_after_is_not(script, place):
    one, two, other = script("""
        snapped.remote()
        assert waits(2, "snapped")
        answer = [snapped.remote(), snapped.remote(), other_secret.remote()]
    """)
    assert one["me"] == two["me"], "the module is imported once"
    assert one["file"] == two["file"] == "ic", "what it wrote is seen by each, and what each writes by none"
    assert one["random"] != two["random"]
    assert one["task"] != two["task"]
    assert one["now"] < two["now"]
    assert one["key"] == two["key"] == "a"
    assert other["key"] == "b"
    assert other["me"] != one["me"], "what has other secrets in it is another template"
    assert [level for _, level in started(place, "snapped")[-2:]] == [2, 2]


def test_the_next_run_of_the_same_code_finds_the_template(script, place):
    body = """
        ours = [row["id"] for row in templates(2) if row["for"] == "test-templates.again"]
        answer = [ours, again.remote()]
        assert waits(2, "again", but=())
        answer.append(again.remote())
    """
    before, _, made = script(body)
    there, first, second = script(body)
    assert not before, "this test alone calls this function"
    assert len(there) == 1, "the end of a run ends no template"
    assert made == first == second
    assert [level for _, level in started(place, "again")] == [1, 2, 2, 2]


def test_snapshot_hooks_run_once_and_others_in_each_container(script):
    one, two = script("""
        Model().both.remote()
        assert waits(2, "Model")
        answer = [Model().both.remote(), Model().both.remote()]
    """)
    assert one[0] == two[0]
    assert one[1] != two[1]


def test_a_killed_template_fails_no_call_and_comes_back(script, place):
    going = Going(
        script,
        """
        snapped.remote()
        assert waits(2, "snapped")
        print("ready", flush=True)
        time.sleep(1)
        answer = [snapped.remote()["key"] for _ in range(4)]
        assert until(lambda: snapped.remote()["key"] == "a" and templates(2), 20)
        """,
    )
    going.until("ready")
    killed = template_ids(place, 1) + template_ids(place, 2)
    assert killed
    for name in killed:
        kill_all(name)
    assert going.answer() == ["a"] * 4
    assert not set(template_ids(place, 2)) & set(killed)


@pytest.mark.slow
def test_templates_that_are_killed_while_twenty_containers_start_fail_no_call(script, place):
    going = Going(
        script,
        """
        snapped.remote()
        assert waits(2, "snapped")
        print("ready", flush=True)
        calls = [snapped.spawn() for _ in range(20)]
        print("asked", flush=True)
        answer = [len({call.get()["task"] for call in calls}), "survived"]
        """,
    )
    going.until("ready")
    first = template_ids(place, 2)
    going.until("asked")
    killed = set()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        for name in [*first, *template_ids(place, 2), *template_ids(place, 1)]:
            killed.add(name)
            kill_all(name)
        time.sleep(0.05)
    assert going.answer() == [20, "survived"]
    assert set(first) <= killed


@pytest.mark.slow
def test_a_killed_agent_leaves_forks_running_and_makes_templates_again(script, place):
    going = Going(
        script,
        """
        slow.remote(0)
        assert waits(2, "slow")
        calls = [slow.spawn(4), slow.spawn(4)]
        assert until(lambda: slow.get_current_stats().num_running_inputs == 2)
        print("running", flush=True)
        answer = [call.get() for call in calls]
        snapped.remote()
        answer.append(waits(2, "snapped"))
        """,
    )
    going.until("running")
    before = template_ids(place, 2)
    os.kill(next(pid for pid, line in place.processes().items() if "-m alight.node " in line), signal.SIGKILL)
    one, two, again = going.answer()
    assert len(one) == len(two) == 32
    assert again
    assert not set(template_ids(place, 2)) & set(before)
    settled(lambda: not any(group_of(name) for name in before))


def test_a_module_that_must_not_be_forked_says_why_and_is_imported_in_a_fork_of_the_runtime(place, tmp_path):
    functions = f"""{HELP}
if os.environ.get("ALIGHT_IS_REMOTE"):
    threading.Thread(target=time.sleep, args=(1000,), name="warmer", daemon=True).start()


@app.function(single_use_containers=True, enable_memory_snapshot=True)
def threaded():
    return ME
"""
    script = Script(place, tmp_path, "test-templates", functions)
    script("""
        threaded.remote()
        assert waits(1)
        log = os.path.join(os.environ["ALIGHT_HOME"], "log", "node.log")
        assert until(lambda: "no template for test-templates.threaded" in open(log).read(), 20)
        answer = threaded.remote()
    """)
    rows = place.json("container", "list", "--all", "--app", "test-templates")
    newest = next(row for row in rows if row["function"] == "threaded")
    assert newest["level"] == 1
    shown = place.run("container", "show", newest["container_id"]).stdout
    assert "thread" in shown, shown


def test_templates_can_be_turned_off(new_machine, tmp_path):
    machine = new_machine(ALIGHT_TEMPLATES="off")
    script = Script(machine, tmp_path, "test-templates", FUNCTIONS)
    script("answer = [snapped.remote()['key'] for _ in range(3)]")
    assert started(machine, "snapped") == [("plain", 0)] * 3
    assert not list((machine.home / "node" / "containers").glob("tp-*"))
    machine.close()


KEPT = """
@app.function(min_containers=2)
def kept():
    return ME


def runners(function):
    return function.get_current_stats().num_total_runners
"""


@pytest.mark.slow
def test_a_floor_of_containers_holds_when_the_server_and_the_agent_are_killed_and_when_one_of_them_is(place, tmp_path):
    script = Script(place, tmp_path, "test-templates", KEPT)
    going = Going(
        script,
        """
        kept.remote()
        answer = [until(lambda: runners(kept) == 2)]
        before = {kept.remote() for _ in range(8)}
        print("kept", flush=True)
        time.sleep(4)
        answer += [until(lambda: runners(kept) == 2), bool({kept.remote() for _ in range(8)} & before)]
        print("again", flush=True)
        time.sleep(8)
        """,
    )
    going.until("kept")
    for words in ("-m alight.server ", "-m alight.node "):
        os.kill(next(pid for pid, line in place.processes().items() if words in line), signal.SIGKILL)
        time.sleep(1)
    going.until("again")

    def those() -> set[str]:
        rows = place.json("container", "list", "--app", "test-templates")
        return {row["container_id"] for row in rows if row["function"] == "kept" and row["state"] == "ready"}

    first = min(those())
    kill_all(first)
    settled(lambda: len(those() - {first}) == 2)
    assert going.answer() == [True] * 3, "two before, two after, and the same ones"
