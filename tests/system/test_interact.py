"""`alight run -i` as a user at a terminal meets it: a pseudo-terminal around the command, real containers behind it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

import pytest

from tests.system.terminal import Terminal

SCRIPT = """
import os, subprocess, time
import alight

app = alight.App("interact-test", image=alight.Image.debian_slim(python_version="3.11"))

@app.function()
def ask() -> str:
    print("before")
    alight.interact()
    alight.interact()  # does nothing
    name = input("name? ")
    print("hello", name, os.get_terminal_size())
    return name

@app.function()
def debug():
    secret = 6 * 7
    breakpoint()
    print("continued with", secret)

@app.function()
async def debug_async():
    secret = 6 * 7
    breakpoint()
    print("continued with", secret)

@app.function()
def interrupted():
    alight.interact()
    try:
        print("sleeping")
        time.sleep(600)
    except KeyboardInterrupt:
        print("caught")
    subprocess.run(["sh", "-c", "read line; echo got $line"])
    try:
        input("end? ")
    except EOFError:
        print("end of input")

@app.function()
def resized():
    import signal
    alight.interact()
    signal.signal(signal.SIGWINCH, lambda *_: None)
    print("sizing")
    signal.pause()
    print(os.get_terminal_size().columns, "columns")

@app.function()
def turn(number: int):
    time.sleep(number / 2)
    alight.interact()
    return input(f"turn {number}? ")

@app.local_entrypoint()
def turns():
    print("answers:", list(turn.map([0, 1])))

@app.local_entrypoint()
def twice():
    print("answers:", ask.remote(), ask.remote())
"""


@pytest.fixture
def run(machine, tmp_path):
    """``run(name)``: `alight run -i` of that function."""
    path = tmp_path / "job.py"
    path.write_text(SCRIPT)
    with contextlib.ExitStack() as stack:

        def start(name, *flags):
            return stack.enter_context(contextlib.closing(Terminal(machine, "run", *flags, f"{path}::{name}")))

        yield start


def test_input_and_print(run):
    terminal = run("ask", "-i")
    terminal.until(b"name? ")
    assert terminal.is_raw()
    terminal.type("Zoë\r".encode())
    drawn = terminal.end()
    assert drawn.index("before") < drawn.index("name? Zoë\r\nhello Zoë os.terminal_size(columns=100, lines=40)\r\n")
    assert drawn.index("hello") < drawn.index("Finished")


@pytest.mark.parametrize("name", ["debug", "debug_async"])
def test_breakpoint(run, name):
    terminal = run(name, "-i")
    terminal.until(b'-> print("continued with", secret)')  # the user's frame, not ours
    terminal.until(b"(Pdb) ")
    terminal.type(b"secret = secret + 1\r")
    terminal.until(b"(Pdb) ")
    terminal.type(b"c\r")
    terminal.until(b"continued with 43\r\n")
    terminal.end()


def test_ctrl_c_and_ctrl_d_are_the_programs(run):
    terminal = run("interrupted", "-i")
    terminal.until(b"sleeping")
    terminal.type(b"\x03")
    terminal.until(b"caught")
    terminal.type(b"a line\r")
    terminal.until(b"got a line")
    terminal.until(b"end? ")
    terminal.type(b"\x04")
    terminal.until(b"end of input")
    terminal.end()


def test_the_window_changes_its_size(run):
    terminal = run("resized", "-i")
    terminal.until(b"sizing")
    terminal.resize(50, 123)
    terminal.until(b"123 columns")
    terminal.end()


@pytest.mark.slow
def test_containers_take_turns(run):
    terminal = run("turns", "-i")
    terminal.until(b"turn 0? ")
    terminal.until(b"interact() waits for the terminal: turn() in container ta-")
    terminal.type(b"a\r")
    terminal.until(b"turn 1? ")
    terminal.type(b"b\r")
    terminal.until(b"answers: ['a', 'b']")
    terminal.end()


@pytest.mark.slow
def test_a_container_connects_again_for_its_next_input(run):
    terminal = run("twice", "-i")
    for _ in range(2):
        terminal.until(b"before")
        terminal.until(b"name? ")
        terminal.type(b"x\r")
    terminal.until(b"answers: x x")
    terminal.end()


def test_without_the_option_it_is_a_sentence(run):
    drawn = run("ask").end(status=1)
    assert "ask() asked for your terminal" in drawn
    assert "alight run -i SCRIPT.py::ask" in drawn


@pytest.mark.slow
def test_the_way_out_interrupts_the_run(run):
    terminal = run("ask", "-i")
    terminal.until(b"name? ")
    terminal.type(b"~.")
    assert "Interrupted: the app was stopped" in terminal.end(status=130)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_the_terminal_is_given_back_when_the_command_is_killed(run, machine, number, status):
    terminal = run("ask", "-i")
    terminal.until(b"name? ")
    terminal.popen.send_signal(number)
    terminal.popen.wait(30)
    deadline = time.monotonic() + 10
    while terminal.is_raw():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # nobody tells
    terminal.end(status=status)
    for one in machine.json("app", "list"):
        if one["state"] == "running":  # the server would give its client two minutes to come back
            machine.run("app", "stop", "--yes", one["app_id"])


def test_a_killed_server_gives_the_terminal_back_and_connects_again(run, machine):
    terminal = run("ask", "-i")
    terminal.until(b"name? ")
    os.kill(json.loads((machine.home / "run" / "server.json").read_text())["pid"], signal.SIGKILL)
    terminal.until(b"the server was restarted")
    terminal.until(b"the terminal is with ask()")
    deadline = time.monotonic() + 10
    while not terminal.is_raw():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # nobody tells
    terminal.type(b"still here\r")
    terminal.until(b"hello still here")
    terminal.end()


def test_who_waits_for_the_terminal_waits_on_when_the_server_is_killed(run, machine):
    terminal = run("turns", "-i")
    terminal.until(b"turn 0? ")
    terminal.until(b"interact() waits for the terminal")
    os.kill(json.loads((machine.home / "run" / "server.json").read_text())["pid"], signal.SIGKILL)
    terminal.until(b"the server was restarted")
    for _ in range(2):  # which of the two comes first is open
        terminal.until(b"the terminal is with turn()")
        deadline = time.monotonic() + 10
        while not terminal.is_raw():
            assert time.monotonic() < deadline
            time.sleep(0.01)  # nobody tells
        terminal.type(b"a\r")
    terminal.until(b"answers: ['a', 'a']")
    terminal.end()


@pytest.mark.slow
def test_what_went_through_the_terminal_is_not_in_the_log(run, machine):
    terminal = run("ask", "-i", "-n", "interact-logs")
    terminal.until(b"name? ")
    terminal.type(b"private\r")
    terminal.end()
    app = next(one["app_id"] for one in machine.json("app", "list") if one["description"] == "interact-logs")
    assert machine.run("app", "logs", app).stdout == "before\n"
