"""Logs of real containers: whose lines they are, 50,000 a second, kill -9 in between, floods, and from Python."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.system.scripted import Going, Script, settled
from tests.system.test_crashes import nothing_is_left, pid_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.machine import Machine

FUNCTIONS = '''
@app.function(max_containers=1)
def say(word, seconds=0.0):
    time.sleep(seconds)
    print("out", word, flush=True)
    print("err", word, file=sys.stderr, flush=True)
    time.sleep(seconds)
    return word


@app.function(max_containers=1)
def chatter(lines, seconds):
    """So many lines, evenly over so many seconds."""
    began = time.monotonic()
    block = 500
    for start in range(0, lines, block):
        for number in range(start, min(lines, start + block)):
            print(f"line {number:07d} of the chatter, which is as long as lines usually are")
        ahead = start / lines * seconds - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
    return time.monotonic() - began


@app.function(max_containers=1)
def quick():
    return 1


@app.function(max_containers=1)
def flood(mib):
    block = b"x" * 1023 + b"\\\\n"
    for _ in range(mib):
        os.write(1, block * 1024)
    return mib


@app.function(max_containers=1)
@alight.concurrent(max_inputs=4)
def together(word, seconds):
    print("began", word, flush=True)
    time.sleep(seconds)
    print("ended", word, flush=True)
'''


@pytest.fixture(scope="module")
def noisy(new_machine) -> Iterator[Machine]:
    """An instance whose processes may be killed, for all tests of this file."""
    machine = new_machine(ALIGHT_OUTPUT_MIB="16")
    machine.run("server", "start")
    yield machine
    nothing_is_left(machine)
    machine.close()


@pytest.fixture(scope="module")
def script(noisy, tmp_path_factory) -> Script:
    return Script(noisy, tmp_path_factory.mktemp("logs"), "test-logs", FUNCTIONS)


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    Going.end_all()


def lines_of(machine: Machine, *words: str) -> list[str]:
    return machine.run(*words).stdout.splitlines()


def test_lines_are_found_by_call_function_container_source_and_text(noisy, script):
    app_id, calls = script(
        """
        calls = [say.spawn(word, 0.3) for word in ("a", "b", "c")]
        for call in calls:
            call.get()
        answer = [app.app_id, [call.object_id for call in calls]]
        """
    )
    settled(lambda: not script.containers(app_id))
    logs = ("app", "logs", app_id)
    assert lines_of(noisy, *logs, "--source", "stdout") == ["out a", "out b", "out c"]
    assert sorted(noisy.run(*logs, "--call", calls[1]).stdout.splitlines()) == ["out b"]
    assert "err b" in noisy.run(*logs, "--call", calls[1]).stderr
    assert lines_of(noisy, *logs, "--search", "OUT C") == ["out c"]
    assert lines_of(noisy, *logs, "--source", "stdout", "-n", "1") == ["out c"]
    shown = lines_of(
        noisy, *logs, "--source", "stdout", "--show-container-id", "--show-function-call-id", "--timestamps"
    )
    stamps = [line.split() for line in shown]
    assert [one[3] for one in stamps] == calls
    box = stamps[0][2]
    assert lines_of(noisy, "container", "logs", box, "--source", "stdout") == ["out a", "out b", "out c"]
    words = noisy.run("container", "logs", box, "--source", "system").stderr
    for said in (f"{box} starts for say() on ", f"{box} is ready after", f"{box} has ended"):
        assert said in words
    assert noisy.run(*logs, "--since", "1h", "--until", "30m").stdout == ""
    assert "is no moment" in noisy.run(*logs, "--since", "soonish", status=2).stderr
    assert "there is no app" in noisy.run("app", "logs", "nothing-of-that-name", status=1).stderr


def test_lines_of_inputs_that_run_together_are_shown_for_each_that_ran(noisy, script):
    calls, app_id = script(
        """
        calls = [together.spawn("long", 1.5), together.spawn("short", 0.2)]
        for call in calls:
            call.get()
        answer = [[call.object_id for call in calls], app.app_id]
        """
    )
    settled(lambda: not script.containers(app_id))
    assert "ended long" not in lines_of(noisy, "app", "logs", app_id, "--call", calls[1])
    assert {"began long", "ended long"} <= set(lines_of(noisy, "app", "logs", app_id, "--call", calls[0]))
    assert {"began short", "ended short"} <= set(lines_of(noisy, "app", "logs", app_id, "--call", calls[1]))


def test_python_reads_the_same_lines(noisy, script):
    answer = script(
        """
        since = time.time()
        call = say.spawn("hello", 0.2)
        call.get()
        until(lambda: len(list(call.logs.tail())) >= 2)
        entries = list(call.logs.fetch())
        of_app = [entry.message for entry in app.logs.fetch(since=since, source="stdout")]
        of_function = [entry.message for entry in say.logs.fetch(since=since, search_text="HELLO")]
        streamed = []
        threading.Timer(0.5, lambda: say.spawn("streamed")).start()
        for entry in say.logs.stream(timeout=15):
            streamed.append(entry.message)
            if "err streamed" in entry.message:
                break
        answer = [
            [[one.message, one.source, one.object_id, sorted(one.context_ids)] for one in entries],
            of_app, sorted(of_function), [one for one in streamed if "streamed" in one], call.object_id,
            [one.message for one in call.logs.tail(1)],
        ]
        """
    )
    entries, of_app, of_function, streamed, call, last = answer
    known = ["container_id", "function_call_id", "function_id", "input_id"]
    assert entries == [["out hello", "stdout", call, known], ["err hello", "stderr", call, known]]
    assert of_app == ["out hello"]
    assert of_function == ["err hello", "out hello"]
    assert streamed == ["out streamed", "err streamed"]
    assert last == ["err hello"]


@pytest.mark.slow
def test_fifty_thousand_lines_a_second_are_all_kept_and_hold_nobody_up(noisy, script):
    answer = script(
        """
        def median(count):
            took = []
            for _ in range(count):
                began = time.perf_counter()
                quick.remote()
                took.append(time.perf_counter() - began)
            return sorted(took)[count // 2], sorted(took)[int(count * 0.99)]

        quick.remote()
        alone = median(300)
        call = chatter.spawn(400_000, 8.0)
        until(lambda: any(True for _ in call.logs.tail(1)))
        beside = median(300)
        answer = [alone, beside, call.get(), app.app_id, call.object_id]
        """,
        timeout=120,
    )
    alone, beside, took, app_id, call = answer
    measured = f"alone {alone}, beside {beside}, 400,000 lines in {took} s"
    assert beside[0] < 20 * alone[0] + 0.05, measured
    settled(lambda: not script.containers(app_id))
    expected = [f"line {number:07d} of the chatter, which is as long as lines usually are" for number in range(400_000)]
    assert lines_of(noisy, "app", "logs", app_id, "--all", "--source", "stdout") == expected
    assert lines_of(noisy, "app", "logs", app_id, "--call", call, "--source", "stdout", "-n", "100") == expected[-100:]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "node"])
def test_a_kill_in_the_middle_loses_no_line_and_shows_none_twice(noisy, script, victim):
    going = Going(script, "print('app', app.app_id, flush=True)\nanswer = [chatter.remote(60_000, 6.0), app.app_id]")
    going.until("app ap-")
    app_id = next(one["app_id"] for one in noisy.json("app", "list") if one["state"] == "running")
    settled(lambda: len(lines_of(noisy, "app", "logs", app_id, "--source", "stdout")) > 50)
    with (script.folder / "followed").open("w") as file:
        following = noisy.start("app", "logs", "-f", "--all", "--source", "stdout", app_id, stdout=file)
    settled(lambda: (script.folder / "followed").stat().st_size > 0)
    os.kill(pid_of(noisy, victim), signal.SIGKILL)
    _, app_id = going.answer()
    expected = [f"line {number:07d} of the chatter, which is as long as lines usually are" for number in range(60_000)]
    settled(lambda: not script.containers(app_id))
    assert lines_of(noisy, "app", "logs", app_id, "--all", "--source", "stdout") == expected
    _, errors = following.communicate(timeout=60)
    assert following.returncode == 0, errors
    assert (script.folder / "followed").read_text().splitlines() == expected


def test_a_flood_is_limited_and_told_in_its_own_log(noisy, script):
    _, app_id = script("answer = [flood.remote(400), app.app_id]", timeout=120)
    settled(lambda: not script.containers(app_id))
    told = [line for line in noisy.run("app", "logs", app_id, "--source", "stderr", "--all").stderr.splitlines()
            if line.startswith("[alight]")]  # fmt: skip
    folder = noisy.home / "server" / "logs"
    kept = sum(file.stat().st_size for box in folder.iterdir() if box.name.startswith("ta-") for file in box.iterdir())
    assert told
    assert "lines were dropped" in told[0]
    assert kept < 200 << 20
