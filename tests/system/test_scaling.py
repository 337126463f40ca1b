"""How many containers, when, and whose turn it is."""

from __future__ import annotations

import os

import pytest

from tests.system.scripted import Script, settled

FUNCTIONS = """
@app.function(scaledown_window=2)
def nap(seconds, value=None):
    time.sleep(seconds)
    return [ME, value]


@app.function(min_containers=2, scaledown_window=2)
def kept(seconds):
    time.sleep(seconds)
    return ME


@app.function(max_containers=1)
def alone(seconds):
    time.sleep(seconds)
    return ME


@app.function(buffer_containers=2, scaledown_window=2)
def buffered(seconds):
    time.sleep(seconds)
    return ME


@app.function(cpu=4.0 * os.cpu_count())
def greedy():
    return "ran"


@app.function(max_containers=2)
def two_at_most(seconds):
    time.sleep(seconds)
    return seconds


@app.function()
def when():
    return time.time()


def runners(function):
    return function.get_current_stats().num_total_runners
"""


@pytest.fixture(scope="module")
def script(machine, tmp_path_factory) -> Script:
    return Script(machine, tmp_path_factory.mktemp("scaling"), "test-scaling", FUNCTIONS)


def containers(machine) -> int:
    return sum(node["containers"] for node in machine.json("server", "status")["nodes"])


def test_from_zero_to_many_and_back(script):
    answer = script("""
        before = runners(nap)
        seen = len({me for me, _ in nap.map([1.0] * 4)})
        most, ended = runners(nap), time.monotonic()
        gone = until(lambda: runners(nap) == 0, 8)
        answer = [before, seen, most, gone, time.monotonic() - ended]
    """)
    assert answer[:4] == [0, 4, 4, True]
    assert 1.0 < answer[4] < 6, "two seconds of idling, and not much more"


@pytest.mark.slow
def test_a_floor_a_ceiling_and_a_buffer(script):
    answer = script("""
        kept.remote(0)
        floor = until(lambda: runners(kept) == 2)
        time.sleep(4)
        stays = runners(kept)
        began = time.monotonic()
        ceiling = len(set(alone.map([0.3] * 4)))
        line = time.monotonic() - began
        call = buffered.spawn(3)
        spare = until(lambda: runners(buffered) == 3, 3)
        call.get()
        goes = until(lambda: runners(buffered) == 0, 10)
        answer = [floor, stays, ceiling, line > 1.1, spare, goes]
    """)
    assert answer == [True, 2, 1, True, True, True]


@pytest.mark.slow
def test_settings_change_while_it_runs(script):
    answer = script("""
        first = nap.autoscaler.settings()
        nap.remote(0)
        nap.autoscaler.update(min_containers=3, scaledown_window=2)
        grown = until(lambda: runners(nap) == 3, 10)
        now = nap.autoscaler.settings()
        nap.autoscaler.update(max_containers=1, min_containers=0)
        shrunk = until(lambda: runners(nap) <= 1, 12)
        last = nap.autoscaler.settings()
        nap.autoscaler.update(max_containers=None)
        answer = [first.min_containers or 0, grown, now.min_containers, now.scaledown_window, shrunk,
                  last.max_containers, nap.autoscaler.settings().max_containers]
    """)
    assert answer == [0, True, 3, 2, True, 1, None]


def test_options_make_a_pool_of_their_own(script):
    answer = script("""
        other = nap.with_options(max_containers=1, env={"X": "1"})
        same = nap.with_options(max_containers=1, env={"X": "1"})
        answer = [nap.remote(0)[0] == nap.remote(0)[0], nap.remote(0)[0] == other.remote(0)[0],
                  other.remote(0)[0] == same.remote(0)[0], len({me for me, _ in other.map([0.1] * 5)})]
    """)
    assert answer == [True, False, True, 1]


def test_cores_are_soft(script):
    assert script("answer = greedy.remote()") == "ran"


def test_counts_of_the_moment(script):
    answer = script("""
        call = two_at_most.experimental_spawn_map([2.0] * 7)
        def counted():
            now = two_at_most.get_current_stats()
            return [now.backlog, now.num_total_runners, now.num_running_inputs] == [5, 2, 2]
        answer = [until(counted, 5), two_at_most.get_current_stats().input_headroom]
        call.cancel()
    """)
    assert answer == [True, 0]


@pytest.mark.slow
def test_one_long_input_does_not_hold_others_behind_it(script):
    """Quick inputs let many be given ahead; those behind a slow one go to whoever is idle."""
    answer = script("""
        list(two_at_most.map([0.001] * 300))
        began, times = time.monotonic(), {}
        for seconds in two_at_most.map([0.001] * 100 + [4.0] + [0.001] * 300, order_outputs=False):
            times[seconds] = time.monotonic() - began
        answer = [times[0.001], times[4.0]]
    """)
    assert answer[0] < 3, f"a quick input waited {answer[0]:.1f} s behind a slow one"
    assert answer[1] >= 4


def test_a_map_that_fills_the_machine_lets_another_apps_call_through(script, machine, tmp_path):
    """Bound: 100 ms or twice the running inputs' duration. Beside it a container's start and a slow machine."""
    other = Script(machine, tmp_path, "test-scaling-other", FUNCTIONS)
    answer = script(
        """
        import subprocess
        mapped = nap.experimental_spawn_map([0.1] * 5_000)
        assert until(lambda: runners(nap) >= 2)
        time.sleep(1)
        other = subprocess.run([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, text=True, check=True)
        backlog = nap.get_current_stats().backlog
        mapped.cancel()
        answer = [json.loads(other.stdout.splitlines()[-1]), backlog]
    """,
        str(
            other.write("""
        answer = []
        for _ in range(3):
            began = time.time()
            answer.append(when.remote() - began)
    """)
        ),
    )
    waits, backlog = answer
    assert backlog > 0, "the map was over before the other call came"
    assert waits[0] < 1.5, f"another app's first call began after {waits[0]:.2f} s"
    assert max(waits[1:]) < 0.5, waits


@pytest.mark.slow
def test_a_map_that_holds_all_memory_makes_room(script, machine, tmp_path):
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    functions = (
        FUNCTIONS
        + f"""

@app.function(memory={total // 5})
def heavy(seconds):
    time.sleep(seconds)
    return time.time()
"""
    )
    filling = Script(machine, tmp_path, "test-scaling-full", functions)
    (tmp_path / "other").mkdir()
    other = Script(machine, tmp_path / "other", "test-scaling-full-other", functions)
    waited, backlog = filling(
        """
        import subprocess
        mapped = heavy.experimental_spawn_map([1.0] * 200)
        assert until(lambda: runners(heavy) >= 3)
        time.sleep(1.5)
        other = subprocess.run([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, text=True, check=True)
        answer = [json.loads(other.stdout.splitlines()[-1]), heavy.get_current_stats().backlog]
        mapped.cancel()
    """,
        str(
            other.write("""
        began = time.time()
        answer = heavy.remote(0) - began
    """)
        ),
        timeout=120,
    )
    assert backlog > 0
    assert waited < 2 * 1.0 + 1.5, f"another app's call began after {waited:.1f} s"


@pytest.mark.slow
def test_nothing_is_left_when_apps_are_over(script, machine):
    script("answer = [nap.remote(0)[0] != '', kept.remote(0) != '']")
    settled(lambda: containers(machine) == 0)
