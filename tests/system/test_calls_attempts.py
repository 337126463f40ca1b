"""Attempts: retries of the user's, timeouts, starts that take too long or fail, containers for one input."""

from __future__ import annotations

import pytest

from tests.system.scripted import Script

FUNCTIONS = '''
TIMES = {}


def tries(key):
    """How often this container was asked for a key, this time included; when, for the caller."""
    TIMES.setdefault(key, []).append(time.time())
    return len(TIMES[key])


@app.function(retries=2, max_containers=1)
def third_time(key):
    if tries(key) < 3:
        raise ConnectionError(f"not yet {key}")
    return [b - a for a, b in zip(TIMES[key], TIMES[key][1:])]


@app.function(retries=alight.Retries(max_retries=3, initial_delay=0.2, backoff_coefficient=2.0), max_containers=1)
def backing_off(key, needed):
    if tries(key) < needed:
        raise ConnectionError(f"not yet {key}")
    return [b - a for a, b in zip(TIMES[key], TIMES[key][1:])]


@app.function(timeout=1)
def slow(seconds):
    time.sleep(seconds)
    return [seconds, ME]


@app.function(timeout=1)
async def slow_async(seconds):
    await asyncio.sleep(seconds)
    return seconds


@app.function(timeout=1, retries=alight.Retries(max_retries=1, initial_delay=0.0))
def slow_twice(path):
    print("an attempt began", flush=True)
    time.sleep(30)


@app.function(timeout=20, max_containers=1)
def hard_head(seconds):
    """Does not hear signals while it runs."""
    time.sleep(seconds)
    return seconds


@app.function(single_use_containers=True)
def once():
    return ME


@app.cls(startup_timeout=1)
class Late:
    @alight.enter()
    def wait(self):
        time.sleep(30)

    @alight.method()
    def use(self):
        return "used"


@app.function(retries=1)
def refuses(x):
    print("refuses", x, flush=True)
    raise ValueError(f"always {x}")
'''


@pytest.fixture(scope="module")
def script(machine, tmp_path_factory) -> Script:
    return Script(machine, tmp_path_factory.mktemp("attempts"), "test-attempts", FUNCTIONS)


@pytest.mark.slow
def test_retries_as_a_number_are_a_second_apart(script):
    gaps = script("answer = third_time.remote('a')")
    assert len(gaps) == 2
    assert all(0.9 < gap < 2.5 for gap in gaps), gaps


def test_retries_back_off(script):
    answer = script("""
        answer = [backing_off.remote("a", 4), raised(backing_off.remote, "b", 9)]
        answer.append(list(backing_off.map(["c", "d"], [1, 2])))
    """)
    gaps = answer[0]
    assert len(gaps) == 3
    for gap, least in zip(gaps, [0.2, 0.4, 0.8]):
        assert least * 0.95 < gap < least + 0.8, gaps
    assert answer[1] == ["ConnectionError", "not yet b"]
    assert answer[2][0] == []
    assert len(answer[2][1]) == 1


def test_every_input_of_a_map_has_its_own_retries(script):
    answer, lines = script.output("""
        answer = [type(one).__name__ for one in refuses.map(range(3), return_exceptions=True)]
    """)
    assert answer == ["ValueError"] * 3
    assert sorted(line for line in lines if line.startswith("refuses")) == sorted(
        f"refuses {x}" for x in range(3) for _ in range(2)
    )


def test_a_timeout_costs_its_input_alone(script):
    answer = script("""
        began = time.monotonic()
        found = list(slow.map([0.01, 0.01, 30.0, 0.01, 0.01, 0.01], return_exceptions=True))
        answer = [[one[0] if isinstance(one, list) else type(one).__name__ for one in found]]
        answer += [raised(slow.remote, 30)[0], raised(slow_async.remote, 30)[0], time.monotonic() - began]
    """)
    assert answer[0] == [0.01, 0.01, "FunctionTimeoutError", 0.01, 0.01, 0.01]
    assert answer[1:3] == ["FunctionTimeoutError"] * 2
    assert answer[3] < 15


@pytest.mark.slow
def test_waiting_in_line_is_not_running(script):
    """The attempt's time counts from when user code begins: four of half a second each, in one container."""
    assert (
        script("""
        one = slow.with_options(max_containers=1)
        answer = [seconds for seconds, _ in one.map([0.5] * 4)]
    """)
        == [0.5] * 4
    )


@pytest.mark.slow
def test_timeouts_are_tried_again(script):
    answer, lines = script.output("answer = raised(slow_twice.remote, 'x')[0]")
    assert answer == "FunctionTimeoutError"
    assert lines.count("an attempt began") == 2


def test_a_container_for_one_input(script):
    assert script("""
        answer = [len(set(once.starmap([()] * 5))), once.remote() != once.remote()]
    """) == [5, True]


def test_a_start_that_takes_too_long_says_so(script):
    answer = script("""
        began = time.monotonic()
        answer = [*raised(Late().use.remote), time.monotonic() - began]
    """)
    assert "start" in answer[1], answer
    assert "1 s" in answer[1] or "startup_timeout" in answer[1], answer
    assert answer[2] < 20


def test_an_import_that_fails_is_the_callers_exception(script):
    broken = Script(
        script.machine,
        script.folder,
        "test-attempts-broken",
        """
@app.function()
def never():
    return 1

if not alight.is_local():
    raise LookupError("no such weights")
""",
    )
    answer = broken("""
        began = time.monotonic()
        answer = [raised(never.remote), raised(list, never.starmap([()] * 5)), time.monotonic() - began]
    """)
    assert answer[0] == ["LookupError", "no such weights"]
    assert answer[1] == ["LookupError", "no such weights"]
    assert answer[2] < 30
