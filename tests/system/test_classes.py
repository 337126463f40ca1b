"""Classes: the order of their lives, pools by parameters, inheritance, concurrency, batches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alight.node import cgroups
from alight.node.__main__ import instance_of
from alight.node.network import Names
from tests.system.scripted import Script, settled

FUNCTIONS = """
print("imported", flush=True)


class Base:
    @alight.enter()
    def first(self):
        print("Base.enter", flush=True)
        self.steps = ["base"]

    @alight.exit()
    def last(self):
        print("Base.exit", flush=True)

    @alight.method()
    def inherited(self):
        return self.steps


@app.cls(scaledown_window=2)
class Life(Base):
    name: str = alight.parameter(default="nobody")
    times: int = alight.parameter(default=1)
    loud: bool = alight.parameter(default=False)
    notes: list = alight.parameter(init=False, default=None)

    @alight.enter(snap=False)
    def second(self):
        print("Life.enter", self.name, flush=True)
        self.steps.append("life")

    @alight.enter()
    async def third(self):
        await asyncio.sleep(0)
        print("Life.enter_async", flush=True)
        self.steps.append("async")

    @alight.method()
    def greet(self, who):
        print("greet", who, flush=True)
        return f"{self.name} greets {who}" * self.times

    @alight.method()
    async def greet_async(self, who):
        await asyncio.sleep(0)
        return self.plain(who)

    @alight.method()
    def through(self, who):
        return [self.greet_local(who), self.helper.remote(who), self.helper.local(who), self.helper(who)]

    @alight.method()
    def helper(self, who):
        return f"{self.name} helps {who}"

    def greet_local(self, who):
        return f"{self.name} knows {who}"

    def plain(self, who):
        return f"{self.name} awaits {who}"

    @alight.method()
    def me(self):
        return ME

    @alight.exit()
    def finish(self):
        print("Life.exit", self.name, flush=True)


@app.cls()
class Broken:
    @alight.enter()
    def load(self):
        raise LookupError("no such weights")

    @alight.method()
    def use(self):
        return "used"


@app.function()
@alight.concurrent(max_inputs=8)
def together(seconds):
    began = time.time()
    time.sleep(seconds)
    return [ME, began, threading.get_ident(), alight.current_input_id()]


@app.function()
@alight.concurrent(max_inputs=100)
async def together_async(seconds):
    await asyncio.sleep(seconds)
    return [ME, alight.current_input_id()]


@app.cls()
@alight.concurrent(max_inputs=4)
class Shared:
    @alight.enter()
    def start(self):
        self.seen = 0

    @alight.method()
    async def use(self, seconds):
        self.seen += 1
        await asyncio.sleep(seconds)
        return [ME, self.seen]


@app.function(max_containers=1)
@alight.batched(max_batch_size=4, wait_ms=500)
def squares(numbers):
    assert isinstance(numbers, list)
    return [[number * number, len(numbers)] for number in numbers]


@app.function(max_containers=1)
@alight.batched(max_batch_size=4, wait_ms=200)
async def all_or_none(numbers):
    if 3 in numbers:
        raise ValueError("three is not liked")
    return numbers


@app.cls()
class Sums:
    @alight.batched(max_batch_size=3, wait_ms=300)
    def add(self, left, right):
        return [a + b for a, b in zip(left, right)]


@app.function(max_containers=1)
@alight.batched(max_batch_size=2, wait_ms=100)
def too_few(numbers):
    return [1]
"""


@pytest.fixture(scope="module")
def script(machine, tmp_path_factory) -> Script:
    return Script(machine, tmp_path_factory.mktemp("classes"), "test-classes", FUNCTIONS)


def test_a_life_in_order(script):
    answer, lines = script.output("""
        life = Life(name="Ada")
        answer = [life.greet.remote("you"), life.greet_async.remote("you"), life.inherited.remote()]
    """)
    assert answer == ["Ada greets you", "Ada awaits you", ["base", "life", "async"]]
    assert lines == [
        "imported",
        "Base.enter",
        "Life.enter Ada",
        "Life.enter_async",
        "greet you",
        "Base.exit",
        "Life.exit Ada",
    ]


@pytest.mark.slow
def test_exit_runs_when_an_idle_container_goes(script):
    answer, lines = script.output("""
        stats = Life().me.get_current_stats
        Life().me.remote()
        answer = [until(lambda: stats().num_total_runners == 0, 8)]
        time.sleep(0.5)
    """)
    assert answer == [True]
    assert lines[-2:] == ["Base.exit", "Life.exit nobody"]


def test_exit_runs_when_the_container_is_told_to_end(script):
    """SIGTERM to the container's own process, as a shutting-down machine sends it."""
    path = script.write("""
        Life().me.remote()
        open(sys.argv[1], "w").write(app.app_id)
        time.sleep(30)
    """)
    mark = script.folder / "running"
    mark.unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, str(path), str(mark)], env=script.machine.environment())
    try:
        settled(lambda: mark.exists() and mark.read_text() != "")
        os.kill(min(pids_in_containers(script.machine)), signal.SIGTERM)
        app_id = mark.read_text()

        def said() -> list[str]:
            return script.machine.run("app", "logs", app_id).stdout.splitlines()

        settled(lambda: "Life.exit nobody" in said())
    finally:
        process.terminate()
        process.wait(30)


def pids_in_containers(machine) -> list[int]:
    """The processes in containers of this instance, as this machine counts them."""
    group = Names.of(instance_of(machine.home.resolve())).group
    found = set()
    for tree in cgroups.trees():
        for file in Path(f"{tree}{group}").glob("**/cgroup.procs"):
            found.update(int(pid) for pid in file.read_text().split())
    return sorted(found)


def test_parameters_make_pools(script):
    answer = script("""
        one, other, same = Life(name="a"), Life(name="b"), Life(name="a")
        answer = [one.greet.remote("x"), Life(name="a", times=2).greet.remote("x"),
                  one.me.remote() == same.me.remote(), one.me.remote() == other.me.remote(),
                  one.helper.remote("y"), list(one.helper.map(["u", "v"]))]
        wrong = [raised(lambda: Life(nme="a").me.remote()), raised(lambda: Life(times="many").me.remote()),
                 raised(lambda: Life("a")), raised(lambda: Life.greet.remote("x"))]
        answer.append([kind for kind, _ in wrong])
    """)
    assert answer == [
        "a greets x",
        "a greets xa greets x",
        True,
        False,
        "a helps y",
        ["a helps u", "a helps v"],
        ["InvalidError", "InvalidError", "InvalidError", "AttributeError"],
    ]


def test_methods_within_a_container_and_here(script):
    answer = script("""
        life = Life(name="Ada")
        answer = [life.through.remote("you"), life.helper.local("me"), life.inherited.local()[:2]]
    """)
    assert answer == [["Ada knows you", *["Ada helps you"] * 3], "Ada helps me", ["base", "life"]]


def test_an_enter_that_fails_is_the_callers_exception(script):
    answer = script("""
        began = time.monotonic()
        answer = [raised(Broken().use.remote), raised(list, Broken().use.starmap([()] * 5)), time.monotonic() - began]
    """)
    assert answer[:2] == [["LookupError", "no such weights"]] * 2
    assert answer[2] < 30


def test_another_app_finds_a_class_by_name_and_changes_its_options(script):
    path = script.write("answer = 1", run="app.run(detach=True)")
    script.machine.python(path)
    looking = Script(script.machine, script.folder, "test-classes-looking", "")
    try:
        answer = looking("""
            found = alight.Cls.from_name("test-classes", "Life")
            variant = found.with_options(env={"WHOSE": "variant"}, max_containers=1)
            answer = [found(name="far").greet.remote("you"), variant(name="near").greet.remote("you"),
                      found(name="far").me.remote() != variant(name="far").me.remote()]
            answer.append(raised(lambda: alight.Cls.from_name("test-classes", "Lofe")().me.remote())[0])
        """)
    finally:
        script.machine.run("app", "stop", "--yes", "test-classes")
    assert answer == ["far greets you", "near greets you", True, "NotFoundError"]


def test_concurrent_inputs_share_a_container(script):
    answer = script("""
        began = time.monotonic()
        threads = list(together.map([0.5] * 8))
        first = time.monotonic() - began
        began = time.monotonic()
        tasks = list(together_async.map([0.5] * 100))
        answer = [
            len({one[0] for one in threads}), len({one[2] for one in threads}), len({one[3] for one in threads}), first,
            len({one[0] for one in tasks}), len({one[1] for one in tasks}), time.monotonic() - began,
        ]
        shared = list(Shared().use.map([0.3] * 4))
        answer += [len({one[0] for one in shared}), max(one[1] for one in shared)]
    """)
    assert answer[:3] == [1, 8, 8], "eight inputs: one container, a thread and an id for each"
    assert answer[3] < 2.5, "they ran one after another"
    assert answer[4:6] == [1, 100]
    assert answer[6] < 3
    assert answer[7:] == [1, 4]


@pytest.mark.slow
def test_more_concurrent_inputs_than_one_container_takes(script):
    assert script("""
        found = list(together.with_options(max_containers=2).map([0.4] * 16))
        answer = [len({one[0] for one in found}) <= 2, len({one[3] for one in found})]
    """) == [True, 16]


def test_batches_are_gathered_and_taken_apart(script):
    answer = script("""
        answer = [list(squares.map(range(8))), squares.remote(5), list(Sums().add.starmap([(1, 2), (3, 4), (5, 6)]))]
    """)
    assert [value for value, _ in answer[0]] == [number * number for number in range(8)]
    assert max(size for _, size in answer[0]) == 4, "no batch was ever full"
    assert answer[1] == [25, 1]
    assert answer[2] == [3, 7, 11]


def test_one_bad_input_fails_its_batch_and_a_wrong_length_is_said(script):
    answer = script("""
        found = list(all_or_none.map([1, 2, 3, 4], return_exceptions=True))
        answer = [[type(one).__name__ for one in found], list(all_or_none.map([5, 6]))]
        answer.append(raised(list, too_few.map([1, 2])))
    """)
    assert answer[0] == ["ValueError"] * 4
    assert answer[1] == [5, 6]
    assert answer[2][0] in {"InvalidError", "ExecutionError", "ValueError"}, answer[2]
    assert "2" in answer[2][1], answer[2]
    assert "1" in answer[2][1], answer[2]
