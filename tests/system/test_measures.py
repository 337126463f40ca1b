"""What containers use, from the kernel to the command line; GPUs are pretended ones, and say so."""

from __future__ import annotations

import json
import socket
import textwrap
import time

import pytest

SCRIPT = """
import os, socket, time
import alight

app = alight.App("measured")

@app.function(gpu="T4", scaledown_window=300, max_containers=1)
def work(seconds):
    held = bytearray(120 << 20)
    for place in range(0, len(held), 4096):
        held[place] = 1
    until = time.time() + seconds
    while time.time() < until:
        sum(range(20000))
    return len(held)

@app.function(scaledown_window=300, retries=0)
def fails():
    raise ValueError("as it should")

@app.local_entrypoint()
def main():
    print(work.remote(4.0))
    print(list(work.map([0.0] * 5)))
    try:
        fails.remote()
    except ValueError:
        pass
    print(work.get_current_stats())
    print("STATS", work.stats().input_success_count, fails.stats().input_failure_count, app.stats().functions.keys())
    print("INFO", work.info().gpus, sorted(work.metrics.schema()))
    print("WORK", work.object_id, flush=True)
    time.sleep(SLEEP)
"""


@pytest.fixture(scope="module")
def measured(new_machine, tmp_path_factory):
    machine = new_machine()
    machine.run("server", "start", "--fake-gpus", "T4:2")
    script = tmp_path_factory.mktemp("measured") / "measured.py"
    script.write_text(textwrap.dedent(SCRIPT).replace("SLEEP", "600"))
    running = machine.start("run", script)
    lines = []
    for line in running.stdout:
        lines.append(line)
        if line.startswith("WORK "):
            break
    assert "".join(lines[-1:]).startswith("WORK "), "".join(lines) + machine.logs()
    yield machine, "".join(lines), lines[-1].split()[1]
    running.terminate()
    running.communicate(timeout=60)
    machine.close()


def until(machine, words, found, seconds=30):
    """What a command says, as soon as it says what is waited for."""
    end = time.monotonic() + seconds
    while True:
        said = machine.json(*words)
        if found(said) or time.monotonic() > end:
            return said
        time.sleep(0.3)


def test_a_script_asks_what_became_of_its_inputs(measured):
    _, said, _ = measured
    assert "STATS 6 1 dict_keys(['fails', 'work'])" in said
    assert "INFO ('T4',) ['calls', 'containers', 'cpu', 'disk', 'gpu', 'memory', 'network']" in said


def test_the_kernels_numbers_reach_the_command_line(measured):
    machine, _, function_id = measured
    found = machine.json("function", "stats", function_id)
    assert (found["success"], found["failure"], found["started"]) == (6, 0, 1)
    assert found["input_spreads"]["run_time"]["99"] == pytest.approx(4.0, rel=0.2)
    assert 0 < found["container_spreads"]["cold_start"]["50"] < 60
    rows = machine.json("top")
    (row,) = (one for one in rows if one["function"] == "work")
    use = row["usage"]
    assert use["cpu_seconds"] > 0.5
    assert use["memory_peak_bytes"] > 120 << 20
    assert use["memory_byte_seconds"] > 120 << 20
    assert use["gpu_joules"] > 0
    metrics = until(
        machine,
        ("function", "metrics", function_id, "--since", "10m"),
        lambda rows: max(one["cpu_cores_max"] or 0 for one in rows) > 0.1,
    )
    assert max(one["memory_bytes_max"] or 0 for one in metrics) > 100 << 20
    assert sum(one["inputs_success"] for one in metrics) == 6
    assert "cpu_cores" in machine.run("function", "metrics", function_id).stdout
    assert machine.run("function", "metrics", function_id, "--csv").stdout.startswith("time,containers_ready")


def test_machines_and_gpus_say_what_they_do_and_that_they_are_fake(measured):
    machine, _, _ = measured
    gpus = until(machine, ("gpu", "list"), lambda rows: rows[0]["utilization"] is not None)
    assert [one["fake"] for one in gpus] == [True, True]
    assert sum(bool(one["held_by"]) for one in gpus) == 1
    (node,) = until(machine, ("node", "list"), lambda rows: rows[0]["cpu"]["used"] is not None)
    assert node["state"] == "connected"
    assert node["memory"]["used"] > 0
    for words in (("gpu", "list"), ("node", "list"), ("top",)):
        assert "fake" in machine.run(*words).stdout


def test_prometheus_finds_them_on_the_local_socket(measured):
    machine, _, _ = measured
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(machine.home / "run/server.sock"))
        sock.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    assert 'alight_inputs_total{app="measured",function="work",environment="main",outcome="success"} 6' in text
    assert 'alight_containers{app="measured",function="work",environment="main",state="ready"} 1' in text
    assert "alight_store_commit_seconds_count" in text


def test_what_is_not_there_is_said_in_words(measured):
    machine, _, function_id = measured
    said = machine.run("function", "stats", "measured", status=2).stderr
    assert "APP/NAME" in said
    assert "no function 'nothing'" in machine.run("function", "stats", "measured/nothing", status=1).stderr
    assert "7 days" in machine.run("function", "stats", function_id, "--since", "9d", status=1).stderr
    assert json.loads(machine.run("function", "info", "measured/work", "--json").stdout)["name"] == "work"
