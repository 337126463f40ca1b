"""GPUs from the script to the container, on pretended ones: parts, MIG instances, broken ones, and what survives kills.

Every machine here says "fake" of its GPUs; ``test_real_gpus.py`` is for real ones.
"""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.system.scripted import Going, Script, settled
from tests.system.test_faults import _ended  # noqa: F401  a fixture is used by its name

FUNCTIONS = """
FLAG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "flag")
SEEN = ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "ALIGHT_FAKE_GPUS")


def mine():
    import os
    return [os.environ.get(name) for name in SEEN]


@app.function()
def without():
    import os
    return mine(), sorted(name for name in os.listdir("/dev") if name.startswith("nvidia"))


@app.function(gpu="a100:0.5", scaledown_window=2)
def half(seconds=0.0):
    time.sleep(seconds)
    return mine()


@app.function(gpu_memory="15GB", scaledown_window=2)
def fifteen(seconds=0.0):
    time.sleep(seconds)
    return mine()


@app.function(gpu="A100", scaledown_window=2)
def whole(seconds=0.0):
    time.sleep(seconds)
    return mine()


@app.function(gpu="RTX 4090", scaledown_window=2)
def desktop():
    return mine()


@app.function(gpu="H100:0.1")
def instance():
    return mine()
"""


@pytest.fixture(scope="module")
def machine(new_machine):
    # As a setting, for whoever finds the server gone starts it.
    made = new_machine(ALIGHT_FAKE_GPUS="A100-40GB:1,RTX4090,H100/1g.10gb:2")
    made.run("server", "start")
    yield made
    made.close()


@pytest.fixture(scope="module")
def script(machine, tmp_path_factory) -> Script:
    return Script(machine, tmp_path_factory.mktemp("gpus"), "test-gpus", FUNCTIONS)


def gpus_of(machine, function):
    """What containers of a function that are there hold."""
    found = machine.json("container", "list")
    return [tuple(one["gpus"]) for one in found if one["function"] == function]


def test_every_container_gets_what_was_asked_for_and_no_other(script):
    got = script("""
        answer = [without.remote(), half.remote(), desktop.remote(), instance.remote()]
    """)
    (no_env, no_devices), half, desktop, instance = got
    assert no_env == ["void", "", None]
    assert no_devices == []
    assert half[0].startswith("GPU-fake-")
    assert half[0] == half[2]
    assert half[0].endswith("-0")
    assert desktop[0].endswith("-1")
    assert instance[0].startswith("MIG-fake-")


def test_parts_share_one_gpu_and_a_whole_one_waits(script, machine):
    going = Going(
        script,
        """
        first, second = half.spawn(60), fifteen.spawn(60)
        assert until(lambda: half.get_current_stats().num_running_inputs == 1)
        assert until(lambda: fifteen.get_current_stats().num_running_inputs == 1)
        third = whole.spawn()
        print("ids", first.object_id, third.object_id, flush=True)
        second.cancel(terminate_containers=True)
        first.cancel(terminate_containers=True)
        answer = third.get()
    """,
    )
    line = going.process.stdout.readline()
    assert line.startswith("ids"), going.errors.read_text()
    answer = going.answer()
    assert answer[0].startswith("GPU-fake-")


def test_how_a_gpu_is_shared_is_said(script, machine):
    going = Going(script, 'half.remote()\nprint("ran", flush=True)\ntime.sleep(3)\nanswer = 0')
    going.until("ran")
    (one,) = [one for one in machine.json("container", "list") if one["function"] == "half"]
    shown = machine.run("container", "show", one["container_id"]).stdout
    assert "20480 MiB and 50 % of the processors of GPU 0 (A100-40GB (fake))" in shown, shown
    assert "nothing is shared, for it is not there" in shown
    assert going.answer() == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ('gpu="A10O"', "did you mean"),
        ('gpu="A100:0"', "at least 1"),
        ('gpu="A100:9"', "at most 8"),
        ('gpu="A100:1.5"', "a part of a GPU is"),
        ('gpu="A100:2"', "which is not enough"),
        ('gpu=["H200!", "B200!"]', "which is not enough"),
        ('gpu_memory="200GB"', "which is not enough"),
        ('gpu="A100", gpu_memory="lots"', "amount of memory"),
    ],
)
def test_what_cannot_be_is_said_at_once_with_what_there_is(machine, tmp_path, asked, said):
    file = tmp_path / "wrong.py"
    file.write_text(f"import alight\napp = alight.App('wrong')\n\n@app.function({asked})\ndef f():\n    pass\n")
    done = machine.run("run", f"{file}::f", status=None, timeout=60)
    assert done.returncode != 0
    text = " ".join((done.stdout + done.stderr).split())
    assert said in text, text


@pytest.mark.slow
def test_a_broken_gpu_is_not_given_and_everybody_says_why(script, machine):
    path = machine.home / "run" / "fake-gpus.json"
    path.write_text(json.dumps({"1": {"fault": "XID 79: it has fallen off the bus"}}))
    told = machine.home / "run" / "gpus.json"
    settled(lambda: told.exists() and "fallen off the bus" in told.read_text())
    going = Going(
        script,
        """
        call = desktop.spawn()
        print("id", call.object_id, flush=True)
        answer = call.get()
    """,
    )
    _, call_id = going.process.stdout.readline().split()
    # The A100 has the memory of an RTX 4090 and is in service: work goes on there.
    assert going.answer()[0].endswith("-0"), call_id
    doctor = machine.run("doctor", status=None).stdout
    assert "fallen off the bus" in doctor, doctor
    listed = machine.run("gpu", "list").stdout
    assert "fallen off the bus" in listed, listed
    path.unlink()
    broken = next(one["uuid"] for one in machine.json("gpu", "list") if one["index"] == 1)
    machine.run("gpu", "restore", broken)
    settled(lambda: "fallen off the bus" not in machine.run("gpu", "list").stdout)
    assert machine.run("gpu", "restore", broken, status=None).returncode == 1, "it is in service"


@pytest.mark.slow
def test_a_gpu_is_never_given_twice_when_server_and_agent_are_killed(script, machine):
    """Whoever holds it holds it on: it is counted by the server that starts again, and locked by the new agent."""
    going = Going(
        script,
        """
        first = whole.spawn(8)
        assert until(lambda: whole.get_current_stats().num_running_inputs == 1)
        print("holds", flush=True)
        assert until(lambda: os.path.exists(FLAG))
        other = half.spawn()
        time.sleep(1.5)
        early = half.get_current_stats().num_running_inputs
        answer = [early, first.get()[0], other.get()[0]]
    """,
    )
    going.until("holds")
    held = gpus_of(machine, "whole")
    assert len(held) == 1
    for name in ("node", "server"):
        pid = json.loads((machine.home / "run" / f"{name}.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
    machine.run("server", "start")
    settled(lambda: gpus_of(machine, "whole") == held)
    (script.folder / "flag").touch()
    early, first, other = going.answer()
    assert early == 0
    assert first == other == held[0][0]
