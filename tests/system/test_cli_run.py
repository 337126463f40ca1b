"""`alight run` and its neighbours as a user types them, against a real server, node and containers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.machine import Machine

SCRIPT = '''
import os
import sys
import time

import modal

image = modal.Image.debian_slim(python_version="3.11")
app = modal.App("cli-test", image=image)
data = modal.Volume.from_name("cli-test-data", create_if_missing=True)


@app.function()
def greet(name: str = "you", times: int = 1) -> str:
    """Say hello, some times."""
    for _ in range(times):
        print("hello", name)
    print("to stderr", file=sys.stderr)
    return "greeted " + name


@app.function()
def fail(number: int):
    print("before the end")
    inner(number)


def inner(number):
    raise ValueError(f"no {number} here")


@app.function(gpu="a100-40gb")
def wants_gpu() -> str:
    return "no GPU needed after all"


@app.function()
def bar():
    for percent in range(0, 101, 25):
        print(f"{percent}%", end="\\r", flush=True)
    os.write(1, b"\\xff\\x00 raw")


@app.function()
def table() -> dict:
    return {}


@app.function()
def sleep():
    print("sleeping", flush=True)
    time.sleep(600)


@app.function(volumes={"/data": data})
def store(text: str):
    with open("/data/note.txt", "w") as file:
        file.write(text)


@app.function()
def unpicklable():
    import threading

    return threading.Lock()


@app.local_entrypoint()
def main(name: str = "everybody", code: int = 0):
    print("result:", greet.remote(name))
    if code:
        sys.exit(code)
'''


#: Picks its GPU while it runs.
LARGER = """
@app.local_entrypoint()
def larger():
    print(wants_gpu.with_options(gpu="H200:2").remote())
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script that a user has written."""
    path = tmp_path_factory.mktemp("cli") / "job.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module", autouse=True)
def _settings(machine: Machine) -> Iterator[None]:
    """Volumes of this file go with it."""
    yield
    machine.run("volume", "delete", "--yes", "--allow-missing", "cli-test-data", status=None)


def test_an_entrypoint(machine, script):
    done = machine.run("run", script)
    assert done.stdout == "hello everybody\nresult: greeted everybody\n"
    assert "to stderr\n" in done.stderr


def test_a_function_with_arguments(machine, script):
    done = machine.run("run", f"{script}::greet", "--name", "you two", "--times=2")
    assert done.stdout == "hello you two\nhello you two\n"


def test_quiet_and_its_result_in_a_file(machine, script, tmp_path):
    done = machine.run("run", "-q", "-w", tmp_path / "result", f"{script}::greet")
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "result").read_text() == "greeted you"


def test_a_result_that_is_no_text(machine, script, tmp_path):
    done = machine.run("run", "-w", tmp_path / "result", f"{script}::table", status=1)
    assert "writes str or bytes" in done.stderr


def test_bytes_arrive_as_they_were_written(machine, script):
    done = subprocess.run(
        [sys.executable, "-m", "alight", "run", f"{script}::bar"],
        env=machine.environment(),
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"0%\r25%\r50%\r75%\r100%\r\xff\x00 raw"


def test_an_exception_comes_home_with_its_traceback(machine, script):
    done = machine.run("run", f"{script}::fail", "--number=7", status=1)
    assert done.stdout == "before the end\n"
    assert re.search(r"in container ta-\w{22}", done.stderr)
    assert 'File "/root/job.py"' in done.stderr
    assert "inner(number)" in done.stderr
    assert 'raise ValueError(f"no {number} here")' in done.stderr
    assert done.stderr.rstrip().endswith("ValueError: no 7 here")
    assert "alight/" not in done.stderr


def test_a_gpu_that_nobody_has(machine, script):
    started = time.monotonic()
    done = machine.run("run", f"{script}::wants_gpu", status=1)
    assert "--gpu none" in done.stderr
    assert "a100-40gb" in done.stderr.lower()
    assert time.monotonic() - started < 10
    machine.run("run", "--gpu", "none", f"{script}::wants_gpu")
    picky = script.with_name("picky.py")
    picky.write_text(SCRIPT + LARGER)
    machine.run("run", "--gpu", "none", f"{picky}::larger")  # what a variant asks for is replaced, too


def test_the_scripts_own_exit_status(machine, script):
    assert machine.run("run", script, "--code", "5", status=5).stdout.startswith("hello everybody\n")


def test_what_cannot_be_pickled_is_said(machine, script):
    done = machine.run("run", f"{script}::unpicklable", status=1)
    assert "pickle" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_on_standard_input(machine):
    text = SCRIPT.replace('"cli-test"', '"cli-stdin"')
    done = subprocess.run(
        [sys.executable, "-m", "alight", "run", "-", "--name", "stdin"],
        env=machine.environment(),
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "hello stdin" in done.stdout


def test_a_module(machine, script):
    assert "hello m" in machine.run("run", "-m", "job::greet", "--name=m", cwd=script.parent).stdout


def test_a_plain_script(machine, script):
    text = SCRIPT + "\nif __name__ == '__main__':\n    with app.run():\n        print(greet.remote(sys.argv[1]))\n"
    plain = script.with_name("plain.py")
    plain.write_text(text)
    assert machine.run("python", plain, "me").stdout == "greeted me\n"


def wait_for(process, word):
    """Read a process's stdout until a word has come."""
    seen = ""
    while word not in seen:
        piece = process.stdout.readline()
        assert piece, f"it ended before it said {word!r}: {seen}\n{process.stderr.read()}"
        seen += piece


def containers(machine):
    return sum(node["containers"] for node in machine.json("server", "status")["nodes"])


def wait_for_no_containers(machine):
    deadline = time.monotonic() + 20
    while containers(machine):
        assert time.monotonic() < deadline, machine.json("server", "status")
        time.sleep(0.1)


def test_an_interrupt_leaves_nothing_behind(machine, script):
    process = machine.start("run", f"{script}::sleep")
    wait_for(process, "sleeping")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted: the app was stopped" in errors
    assert "Traceback" not in errors
    wait_for_no_containers(machine)


def test_a_polite_kill_leaves_nothing_behind(machine, script):
    process = machine.start("run", f"{script}::sleep")
    wait_for(process, "sleeping")
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    wait_for_no_containers(machine)


def test_an_impatient_interrupt_leaves_nothing_behind(machine, script):
    process = machine.start("run", f"{script}::sleep")
    wait_for(process, "sleeping")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    wait_for_no_containers(machine)


def test_an_interrupt_of_a_detached_run_only_leaves(machine, script):
    process = machine.start("run", "--detach", "-n", "cli-detached", f"{script}::sleep")
    wait_for(process, "sleeping")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    app_id = re.search(r"alight app stop (ap-\w+)", errors)[1]
    listed = {one["app_id"]: one for one in machine.json("app", "list")}
    assert listed[app_id]["state"] == "detached"
    assert machine.run("app", "logs", app_id).stdout == "sleeping\n"
    machine.run("app", "stop", "--yes", app_id)
    wait_for_no_containers(machine)
    listed = {one["app_id"]: one for one in machine.json("app", "list")}
    assert listed[app_id]["state"] == "stopped"


def test_a_reader_that_goes_away(machine, script):
    process = machine.start("run", f"{script}::greet", "--times=20000")
    process.stdout.readline()
    process.stdout.close()
    process.wait(timeout=60)
    errors = process.stderr.read()
    process.stderr.close()
    assert "Traceback" not in errors
    wait_for_no_containers(machine)


def test_files_of_a_volume(machine, script, tmp_path):
    machine.run("run", f"{script}::store", "--text", "written there")
    assert machine.run("volume", "get", "cli-test-data", "note.txt", "-").stdout == "written there"
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_bytes(b"\x00" * 3_000_000)
    machine.run("volume", "put", "cli-test-data", tmp_path / "tree", "/up/")
    names = machine.run("volume", "ls", "cli-test-data", "/up/tree").stdout.split()
    assert "up/tree/deep" in names
    machine.run("volume", "get", "cli-test-data", "/up/tree", tmp_path / "back")
    assert (tmp_path / "back" / "tree" / "deep" / "file").read_bytes() == b"\x00" * 3_000_000
    machine.run("volume", "rm", "-r", "cli-test-data", "/up")
    assert machine.run("volume", "ls", "cli-test-data").stdout == "note.txt\n"


def test_secrets(machine):
    machine.run("secret", "create", "cli-test", "KEY=hunter2")
    assert "hunter2" not in machine.run("secret", "list", "--json").stdout
    assert "--force" in machine.run("secret", "create", "cli-test", "KEY=x", status=1).stderr
    machine.run("secret", "delete", "--yes", "cli-test")


def test_a_laptop_is_let_in_by_its_code(machine, tmp_path):
    address = machine.json("server", "status")["address"]
    laptop = {"ALIGHT_HOME": str(tmp_path / "laptop"), "ALIGHT_CONFIG_PATH": str(tmp_path / "laptop.toml")}
    process = machine.start("setup", f"https://{address}", "--name", "lab", env=laptop)
    seen = ""
    while "token approve" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    code = re.search(r"approve (\S+)", seen)[1]
    assert machine.run("token", "approve", "AAAA-AAAA", status=1).stderr.startswith("Error: ")
    assert len(machine.json("token", "pending")) == 1
    machine.run("token", "approve", code)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    assert (tmp_path / "laptop.toml").stat().st_mode & 0o777 == 0o600
    assert machine.run("server", "status", **laptop).stdout
    assert machine.run("app", "list", **laptop).returncode == 0
    assert not (tmp_path / "laptop").exists()
    assert "lab" in machine.run("profile", "current", **laptop).stdout
