"""Both ends of a connected terminal, without a server: the container's pseudo-terminal, and the user's raw one."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

import alight
from alight.sdk.terminal import Escape
from alight.wire import errors

#: A process with a Screen; what programs in it draw goes to the file descriptor that it is given, keys come from it.
PROGRAM = """
import os, signal, sys, threading, time
from alight.sdk.screen import Screen
keys, drawn = int(sys.argv[1]), int(sys.argv[2])
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
screen = Screen()
screen.resize(30, 90)
def feed():
    while data := os.read(keys, 100):
        screen.feed(data)
threading.Thread(target=feed, daemon=True).start()
print("before")
screen.connect(lambda data: os.write(drawn, data))
{body}
screen.disconnect()
os.write(drawn, b"<disconnected>")
print("after", repr(sys.stdin.read()))
"""


class Program:
    """Runs ``body`` between connect and disconnect; ``drawn`` is what came out of the terminal so far."""

    def __init__(self, body, **popen):
        keys, self._keys = os.pipe()
        self._out, drawn = os.pipe()
        code = PROGRAM.format(body=body)
        self._popen = subprocess.Popen(
            [sys.executable, "-c", code, str(keys), str(drawn)],
            pass_fds=[keys, drawn],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            **popen,
        )
        os.close(keys)
        os.close(drawn)
        self.drawn = b""

    def until(self, text):
        while text not in self.drawn:
            data = os.read(self._out, 65536)
            assert data, self.drawn
            self.drawn += data

    def type(self, keys):
        os.write(self._keys, keys)

    def end(self):
        """Everything that was drawn, and what went to standard output."""
        self.until(b"<disconnected>")
        said, _ = self._popen.communicate(timeout=10)
        os.close(self._keys)
        os.close(self._out)
        assert self._popen.returncode == 0
        return self.drawn.removesuffix(b"<disconnected>"), said


def test_input_asks_and_what_follows_goes_where_it_went_before():
    program = Program("name = input('name? '); print('hello', name, os.get_terminal_size(0).columns, os.isatty(2))")
    program.until(b"name? ")
    program.type(b"Bob\r")
    drawn, said = program.end()
    assert drawn == b"name? Bob\r\nhello Bob 90 True\r\n"
    assert said == "before\nafter ''\n"


@pytest.mark.parametrize("leads", [True, False], ids=["own session", "somebody's session"])
def test_ctrl_c_interrupts_the_program(leads):
    """A process that leads its session, as containers of the process engine do, and one that has to make one."""
    program = Program(
        "try:\n    print('sleeping'); time.sleep(60)\nexcept KeyboardInterrupt:\n    print('caught')",
        start_new_session=leads,
    )
    program.until(b"sleeping")
    program.type(b"\x03")
    # The terminal echoes the key when it comes, between any two writes of the program.
    assert program.end()[0].replace(b"\r\n", b"") == b"sleeping^Ccaught"


def test_ctrl_d_is_the_end_of_the_input():
    program = Program("print('reading'); print(sys.stdin.read() == 'all\\n')")
    program.until(b"reading")
    program.type(b"all\r\x04")
    assert program.end()[0].endswith(b"True\r\n")


def test_nothing_is_lost_of_much_output():
    program = Program("sys.stdout.write('x' * 500_000)")
    assert program.end()[0] == b"x" * 500_000


def test_a_second_connection_begins_with_plain_modes():
    program = Program(
        "import tty; tty.setraw(0); screen.disconnect()\n"
        "screen.connect(lambda data: os.write(drawn, data)); print(input('again? '))"
    )
    program.until(b"again? ")
    program.type(b"yes\r")
    assert program.end()[0] == b"again? yes\r\nyes\r\n"


@pytest.mark.parametrize(
    ("typed", "passed", "asked"),
    [
        ([b"a~.b"], b"a~.b", False),
        ([b"a\r", b"~", b"."], b"a\r", True),
        ([b"~."], b"", True),
        ([b"~", b"/x"], b"~/x", False),
        ([b"\r~~."], b"\r~~.", False),
        ([b"ls\n~.more"], b"ls\n", True),
    ],
)
def test_the_way_out(typed, passed, asked):
    escape = Escape()
    assert b"".join(escape.passed(keys) for keys in typed) == passed
    assert escape.asked is asked


RAW = """
import os, sys, time
from alight.sdk.terminal import Raw
raw = Raw(0)
print("raw", flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["raw.restore()", "os.kill(os.getpid(), 9)"], ids=["given back", "killed"])
def test_the_modes_come_back(end):
    near, far = pty.openpty()
    before = termios.tcgetattr(far)
    popen = subprocess.Popen(
        [sys.executable, "-c", RAW.format(end="sys.stdin.readline()\n" + end)], stdin=far, stdout=far
    )
    assert os.read(near, 100).startswith(b"raw")
    assert termios.tcgetattr(far) != before
    os.write(near, b"\n")
    popen.wait(10)
    until = time.monotonic() + 10
    while termios.tcgetattr(far) != before:
        assert time.monotonic() < until, "the terminal stayed raw"
        time.sleep(0.01)  # the guard tells nobody
    os.close(near)
    os.close(far)
    assert popen.returncode == (0 if "restore" in end else -signal.SIGKILL)


def test_outside_of_a_container_it_is_a_sentence():
    with pytest.raises(errors.InvalidError, match="this is not one"):
        alight.interact()


def test_an_interactive_run_needs_a_terminal():
    with pytest.raises(errors.InvalidError, match="needs a terminal"), alight.App("x").run(interactive=True):
        pass


def test_an_interactive_run_is_not_detached():
    with pytest.raises(errors.InvalidError, match="detached"), alight.App("x").run(interactive=True, detach=True):
        pass
