"""What goes in and comes out: values that cannot be pickled, ends without a word, exceptions of every kind, by size."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.machine import Machine

#: All cases in one script and one run: each says what it got, on a line of its own.
SCRIPT = '''
import os
import signal
import sys
import threading

import alight

image = alight.Image.debian_slim(python_version="3.11")
app = alight.App("values", image=image)
MIB = 1 << 20


@app.function()
def length(data) -> int:
    return len(data)


@app.function()
def double(data: bytes) -> bytes:
    assert data[:1] == data[-1:] == b"x"
    return data[::-1]


@app.function(memory=(64, 256))
def swap(first, *, second):
    return second[::-1], bytearray(first)


def swapped(size):
    """Whether what comes back is what went there, byte for byte."""
    first, second = os.urandom(size), os.urandom(5)
    back = swap.remote(first, second=second)
    return back == (second[::-1], bytearray(first)) and type(back[1]) is bytearray


@app.function()
def lock():
    return threading.Lock()


class Locked(Exception):
    """An exception whose attributes cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class Picky(Exception):
    """An exception that pickle cannot make anew from its args."""

    def __init__(self, number, *, why):
        super().__init__(f"{number} because {why}")
        self.number, self.why = number, why


@app.function()
def raise_locked():
    raise Locked("holds a lock")


@app.function()
def raise_picky():
    raise Picky(7, why="of that")


def deep(number):
    return deep(number + 1)


@app.function()
def raise_recursion():
    deep(0)


@app.function()
def raise_from():
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("outer") from error


@app.function()
def raise_during():
    try:
        {}["key"]
    except KeyError:
        int("no number")


@app.function()
def raise_group():
    raise ExceptionGroup("several", [ValueError("one"), ExceptionGroup("inner", [TypeError("two"), OSError(5, "io")])])


@app.function()
def raise_system_exit():
    sys.exit(3)


@app.function()
def raise_system_exit_text():
    sys.exit("a last word")


@app.function()
def raise_keyboard_interrupt():
    raise KeyboardInterrupt


@app.function()
def raise_local_class():
    class Local(RuntimeError):
        pass

    raise Local("made inside")


@app.function()
def return_local_class():
    import types

    module = types.ModuleType("only_there")
    exec("class Thing:\\n    pass\\n", module.__dict__)
    sys.modules["only_there"] = module
    return module.Thing()


@app.function()
def leave():
    print("about to leave", flush=True)
    os._exit(7)


@app.function()
def die():
    os.kill(os.getpid(), signal.SIGSEGV)


def attempt(name, call):
    try:
        value = call()
    except BaseException as error:
        cause, context = error.__cause__, error.__context__
        print(f"{name}: {type(error).__name__}: {error!s}".replace("\\n", " / "))
        print(f"{name} cause: {cause!r:.100}".replace("\\n", " / "))
        print(f"{name} context: {context!r:.100}".replace("\\n", " / "))
        if isinstance(error, BaseExceptionGroup):
            print(f"{name} members: {error.exceptions!r}")
        if name == "picky":
            print(f"picky attributes: {error.number} {error.why}")
    else:
        print(f"{name} returned: {value!r:.100}")


@app.local_entrypoint()
def main():
    attempt("100 MiB in", lambda: length.remote(b"x" * (100 * MIB)))
    attempt("100 MiB both ways", lambda: len(double.remote(b"x" * (100 * MIB))))
    # Together more than the container may have: what has been on its way does not stay in its memory.
    attempt("content", lambda: [swapped(size) for size in [3 * MIB + 1, *[40 * MIB + 7] * 8]])
    attempt("an argument", lambda: length.remote(threading.Lock()))
    attempt("a result", lambda: lock.remote())
    attempt("locked", lambda: raise_locked.remote())
    attempt("picky", lambda: raise_picky.remote())
    attempt("recursion", lambda: raise_recursion.remote())
    attempt("from", lambda: raise_from.remote())
    attempt("during", lambda: raise_during.remote())
    attempt("group", lambda: raise_group.remote())
    attempt("exit", lambda: raise_system_exit.remote())
    attempt("exit text", lambda: raise_system_exit_text.remote())
    attempt("interrupt", lambda: raise_keyboard_interrupt.remote())
    attempt("local", lambda: raise_local_class.remote())
    attempt("unknown class", lambda: return_local_class.remote())
    attempt("after all", lambda: length.remote("abc"))


@app.local_entrypoint()
def ends():
    attempt("leave", lambda: leave.remote())
    attempt("die", lambda: die.remote())
    attempt("after all", lambda: length.remote("abc"))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("values")
    (path / "job.py").write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def said(machine: Machine, folder: Path) -> dict[str, str]:
    """What the script said, by the name of the case."""
    done = machine.run("run", folder / "job.py::main")
    return dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)


def test_large_values_go_both_ways(said):
    assert said["100 MiB in returned"] == said["100 MiB both ways returned"] == str(100 << 20)


def test_large_values_arrive_byte_for_byte_and_do_not_fill_the_container(said):
    assert said["content returned"] == str([True] * 9)


def test_what_cannot_be_pickled_is_named(said):
    argument = said["an argument"]
    assert "pickle" in argument
    assert "length" in argument
    assert "lock" in argument
    result = said["a result"]
    assert "pickle" in result
    assert "lock()" in result or "result" in result


def test_exceptions_keep_their_type(said):
    assert said["locked"] == "RemoteError: job.Locked: holds a lock"  # cannot travel: its words do
    assert said["picky"].startswith("Picky: 7 because of that")
    assert said["picky attributes"] == "7 of that"
    assert said["recursion"].startswith("RecursionError: maximum recursion depth exceeded")
    assert said["local"].startswith("Local: made inside"), said["local"]


def test_causes_and_contexts_come_along(said):
    assert said["from"].startswith("ValueError: outer")
    # Of causes the words travel, under the real one's name.
    assert said["from cause"] == """KeyError("'key'")"""
    assert said["during"].startswith("ValueError: invalid literal for int()")
    assert said["during cause"] == "None"
    assert said["during context"] == """KeyError("'key'")"""


def test_groups_come_home_whole(said):
    assert said["group"].startswith("ExceptionGroup: several (2 sub-exceptions)")
    assert said["group members"] == (
        "(ValueError('one'), ExceptionGroup('inner', [TypeError('two'), OSError(5, 'io')]))"
    )


def test_an_exit_is_an_error_of_the_call_and_not_of_the_client(said):
    assert "3" in said["exit"]
    assert not said["exit"].startswith("SystemExit")
    assert "a last word" in said["exit text"]
    assert not said["interrupt"].startswith("KeyboardInterrupt")


def test_a_result_of_a_class_that_is_not_here_says_which(said):
    assert "only_there" in said["unknown class"], said["unknown class"]
    assert said["after all returned"] == "3"


def test_a_container_that_ends_without_a_word_is_said(machine, folder):
    done = machine.run("run", folder / "job.py::ends")
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert "exit code 7" in said["leave"], said["leave"]
    assert "SIGSEGV" in said["die"], said["die"]
    assert said["after all returned"] == "3"
    assert "Traceback" not in done.stderr
    # It was tried again, and whoever watches was told each time.
    again = [line for line in done.stderr.splitlines() if "leave() starts again" in line]
    assert [f"(attempt {number})" in line for number, line in enumerate(again, 2)] == [True] * len(again)
    assert done.stdout.count("about to leave") == len(again) + 1


def test_a_serialized_function_wants_the_same_python(machine, folder):
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    other = "3.13" if minor != "3.13" else "3.11"
    script = folder / "serialized.py"
    script.write_text(
        "import alight\n"
        "app = alight.App('serialized')\n"
        f"@app.function(image=alight.Image.debian_slim(python_version={minor!r}), serialized=True)\n"
        "def same():\n    return 'same'\n"
        f"@app.function(image=alight.Image.debian_slim(python_version={other!r}), serialized=True)\n"
        "def other():\n    return 'other'\n"
        "@app.local_entrypoint()\ndef main():\n    print(same.remote())\n"
    )
    done = machine.run("run", f"{script}::other", status=1)
    assert minor in done.stderr, done.stderr
    assert other in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "step 1/" not in done.stderr, "nothing is built for a call that cannot work"
    machine.run("run", "-q", "-w", folder / "result", f"{script}::same")
    assert (folder / "result").read_text() == "same"
