"""Schedules in real containers: they run, they are seen, and a killed server neither loses nor doubles a run."""

from __future__ import annotations

import os
import signal
import time

import pytest

SCRIPT = """
import alight

app = alight.App("timed", image=alight.Image.debian_slim(python_version="3.11"))


@app.function(schedule=alight.Period(seconds=2))
def tick():
    print("tick ran", flush=True)


@app.function(schedule=alight.Cron("0 12 * * *", timezone="Europe/Berlin"))
def noon():
    raise ValueError("the cupboard is bare")
"""


@pytest.fixture(scope="module")
def timed(new_machine, tmp_path_factory):
    machine = new_machine()
    script = tmp_path_factory.mktemp("timed") / "timed.py"
    script.write_text(SCRIPT)
    said = machine.run("deploy", script).stdout
    assert "schedule: noon runs 0 12 * * * Europe/Berlin" in said
    assert "schedule: tick runs every 2 s" in said
    yield machine
    machine.close()


def until(condition, seconds=30.0):
    ends = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < ends
        time.sleep(0.2)


def schedule(machine, function):
    return next(one for one in machine.json("schedule", "list") if one["function"] == function)


def ticks(machine):
    return machine.json("call", "list", "--function", "tick", "--limit", "500")


def test_what_is_scheduled_runs_and_is_seen(timed):
    first = until(lambda: schedule(timed, "tick")["last_status"] == "succeeded" and schedule(timed, "tick"))
    assert first["schedule"] == "every 2 s"
    assert until(lambda: schedule(timed, "tick")["last_call_id"] != first["last_call_id"])
    assert "tick ran" in timed.run("app", "logs", "timed").stdout
    assert "runs every 2 s" in timed.run("app", "info", "timed").stdout
    noon = schedule(timed, "noon")
    assert (noon["last_status"], noon["last_run"]) == (None, None)
    assert noon["next_run"]


def test_a_failed_run_is_seen_with_its_exception(timed):
    call_id = timed.run("schedule", "run-now", "timed/noon").stdout.strip()
    noon = until(lambda: schedule(timed, "noon")["last_status"] == "failed" and schedule(timed, "noon"))
    assert (noon["last_call_id"], noon["last_error"]) == (call_id, "ValueError: the cupboard is bare")
    assert "failed: ValueError: the cupboard is bare" in timed.run("schedule", "list").stdout
    assert "the cupboard is bare" in timed.run("call", "show", call_id).stdout


@pytest.mark.slow
def test_a_paused_schedule_waits_until_it_is_resumed(timed):
    timed.run("schedule", "pause", "timed/tick")
    until(lambda: schedule(timed, "tick")["last_status"] == "succeeded")
    before = schedule(timed, "tick")["last_call_id"]
    time.sleep(3)  # a period and a half in which nothing may happen
    assert schedule(timed, "tick")["last_call_id"] == before
    timed.run("schedule", "resume", "timed/tick")
    until(lambda: schedule(timed, "tick")["last_call_id"] != before)


def server(machine):
    return next((pid for pid, line in machine.processes().items() if "-m alight.server " in line), None)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["", "scheduled:3"])
def test_a_killed_server_neither_loses_nor_doubles_a_run(timed, fault):
    """Killed at any time, and between the moment that a run is written down and its call."""
    if fault:
        timed.run("server", "stop")
        # On a busy machine it is dead before its node is there, which the command says.
        timed.run("server", "start", status=None, ALIGHT_TEST="1", ALIGHT_FAULT=fault)
        until(lambda: server(timed) is None)
    else:
        os.kill(server(timed), signal.SIGKILL)
    time.sleep(5)  # two periods without a server
    timed.run("server", "start")
    count = len(ticks(timed))
    until(lambda: len(ticks(timed)) >= count + 2)
    timed.run("schedule", "pause", "timed/tick")
    runs = until(lambda: all(one["state"] == "done" for one in ticks(timed)) and ticks(timed))
    moments = sorted(one["created_at"] for one in runs)
    # The run that was written down before the kill and one for all moments that were missed may begin together.
    assert all(moments.count(one) <= 2 for one in moments), f"runs that nothing was due for: {moments}"
    assert all(one["verb"] == "schedule" for one in runs)

    def printed():
        return timed.run("app", "logs", "timed", "-n", "10000").stdout.count("tick ran")

    until(lambda: printed() >= len(runs))  # what nobody watches comes to the server within a second
    assert printed() == len(runs), "a call ran twice"
    timed.run("schedule", "resume", "timed/tick")
