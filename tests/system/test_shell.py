"""`alight shell` and `alight container exec` as a user meets them: at a terminal, in a pipe, and when things end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.terminal import Terminal

SCRIPT = """
import os, time
import alight

app = alight.App("shell-test", image=alight.Image.debian_slim(python_version="3.11"))
volume = alight.Volume.from_name("shell-test", create_if_missing=True)
if not alight.is_local():
    raise RuntimeError("a shell imports nothing")

@app.function(secrets=[alight.Secret.from_dict({"TOKEN": "s3cret"})], volumes={"/kept": volume}, timeout=5)
def f():
    raise RuntimeError("a shell runs nothing")

@app.cls(image=alight.Image.debian_slim(python_version="3.11").env({"OF": "the class"}))
class Model:
    size: int = alight.parameter()

    @alight.method()
    def one(self): ...

    @alight.method()
    def two(self): ...

@app.local_entrypoint()
def main(): ...
"""

SLEEPER = """
import os, time
import alight

app = alight.App("sleeper", image=alight.Image.debian_slim(python_version="3.11"))

@app.function(secrets=[alight.Secret.from_dict({"TOKEN": "s3cret"})], timeout=600)
def sleep():
    print("container", os.environ["ALIGHT_TASK_ID"], flush=True)
    time.sleep(500)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "looked_at.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def at_terminal(machine):
    """``at_terminal(*words)``: `alight WORDS…` at a terminal."""
    with contextlib.ExitStack() as stack:
        yield lambda *words: stack.enter_context(contextlib.closing(Terminal(machine, *words)))


@pytest.fixture(scope="module")
def container(machine, tmp_path_factory):
    """The id of a container that runs for as long as this module's tests."""
    path = tmp_path_factory.mktemp("sleeper") / "sleeper.py"
    path.write_text(SLEEPER)
    running = machine.start("run", "-n", "sleeper", path)
    line = running.stdout.readline()
    assert line.startswith("container "), running.communicate()
    yield line.split()[1]
    running.terminate()
    running.communicate(timeout=60)


def execute(machine, *words, data=b""):
    """`alight WORDS…` with bytes on its standard input: status, output and errors."""
    command = [sys.executable, "-m", "alight", *map(str, words)]
    done = subprocess.run(command, env=machine.environment(), input=data, capture_output=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def shells(machine):
    apps = machine.json("app", "list")
    return [one for one in apps if one["description"].startswith("shell ") and one["state"] == "running"]


def words_of(process):
    """The command line of a process of this machine: those of containers are the host's, too."""
    try:
        return (process / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def long(number):
    """A time to sleep, in seconds, that nobody else on this machine sleeps: whole machines are looked through."""
    return f"{os.getpid()}{number}"


def inside(words):
    """How many processes have this command line."""
    return sum(words_of(path) == words for path in Path("/proc").glob("[0-9]*"))


def until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # nobody tells


def test_a_shell_at_a_terminal(machine, script, at_terminal):
    shell = at_terminal("shell", f"{script}::f")
    shell.until(b"# ")
    assert shell.is_raw()
    shell.type(b"stty size; echo $TOKEN $0; cat /root/looked_at.py | head -2; touch /kept/file\r")
    shell.until(b"40 100\r\n")
    shell.until(b"s3cret bash\r\n")
    shell.until(b"import os, time")
    shell.resize(33, 77)
    shell.type(b"sleep 0.3; stty size\r")
    shell.until(b"33 77\r\n")
    shell.type(b"sh -c 'echo asleep; exec sleep 600'\r")
    shell.until(b"asleep\r\n")  # a Ctrl-C that comes before it would be the shell's own
    shell.type(b"\x03")  # Ctrl-C ends the sleep and not the shell
    shell.until(b"# ")
    shell.type(b"echo still $((40 + 2))\r")
    shell.until(b"still 42\r\n")
    shell.type(b"(exit 7)\r")
    shell.until(b"(exit 7)")
    shell.until(b"# ")  # a Ctrl-D that comes before the prompt is for the command
    shell.type(b"\x04")  # ends the shell with its last status
    shell.end(status=7)
    assert not shells(machine)  # the container and its app go with the shell
    assert "file" in machine.run("volume", "ls", "shell-test").stdout


def test_a_shell_in_a_pipe(machine, script):
    status, out, err = execute(machine, "shell", f"{script}::f", data=b"echo $TOKEN; pwd; tty; echo oh >&2; exit 5\n")
    assert (status, out) == (5, b"s3cret\n/root\nnot a tty\n")
    assert err.endswith(b"oh\n")


def test_a_command_in_the_container_of_a_class(machine, script):
    status, out, _ = execute(machine, "shell", f"{script}::Model", "--cmd", "echo $OF; echo a b | wc -w")
    assert (status, out) == (0, b"the class\n2\n")
    assert execute(machine, "shell", f"{script}::Model.two", "-c", "exit 3")[0] == 3


def test_a_shell_of_nothing_in_particular(machine, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("mine\n")
    words = ("shell", "--cpu", "0.5", "--memory", "256", "--add-local", tmp_path / "data", "-c")
    status, out, _ = execute(machine, *words, "cat /mnt/data/file; python3 -c 'print(6*7)'")
    assert (status, out) == (0, b"mine\n42\n")


def test_a_shell_of_an_image(machine, script):
    image = next(one["ids"][0] for one in machine.json("image", "list") if one["ids"])
    assert execute(machine, "shell", image, "-c", "echo $ALIGHT_IMAGE_ID; exit 4")[:2] == (4, f"{image}\n".encode())


def test_references_that_mean_no_container(machine, script, tmp_path):
    status, _, err = execute(machine, "shell", f"{script}::main")
    assert status == 2
    assert b"main is a local entrypoint" in err
    assert b"f, Model" in err
    status, _, err = execute(machine, "shell", f"{script}::f", "--gpu", "T4")
    assert status == 2
    assert b"--gpu does not go with a function" in err
    broken = tmp_path / "broken.py"
    broken.write_text("import alight\n\nalight.App('x', name=1/0)\n")
    status, _, err = execute(machine, "shell", f"{broken}::f")
    assert status == 1
    assert b"broken.py:3" in err or b'broken.py", line 3' in err
    assert b"ZeroDivisionError" in err


def test_a_program_in_a_running_container(machine, container):
    words = ("container", "exec", container, "--", "sh", "-c")
    status, out, err = execute(machine, *words, "cat; echo $TOKEN $ALIGHT_TASK_ID >&2; exit 9", data=b"\0in\xff\r\n")
    assert (status, out, err) == (9, b"\0in\xff\r\n", f"s3cret {container}\n".encode())
    status, out, _ = execute(machine, "shell", container, "-c", "echo $ALIGHT_TASK_ID")
    assert (status, out) == (0, f"{container}\n".encode())
    status, _, err = execute(machine, "container", "exec", container, "no-such-program")
    assert status == 127
    assert b"no-such-program" in err
    status, _, err = execute(machine, "container", "exec", "ta-0000000000000000000000", "true")
    assert status == 1
    assert b"no container ta-0000000000000000000000 runs" in err


def test_a_program_has_the_isolation_of_its_container(machine, container):
    def facts(process):
        files = "/proc/$p/uid_map /proc/$p/cgroup"
        names = "ipc mnt net pid user uts cgroup"
        script = f"p={process}; grep -E '^(Cap|NoNew|Seccomp:|Uid|Gid)' /proc/$p/status; cat {files}; "
        script += f"for n in {names}; do readlink /proc/$p/ns/$n; done; grep files /proc/$p/limits"
        return execute(machine, "container", "exec", container, "sh", "-c", script)[1]

    joined = facts("self")
    assert joined == facts("$(grep -l runtime/__main__ /proc/[0-9]*/cmdline | head -1 | cut -d/ -f3)")
    assert b"NoNewPrivs:\t1" in joined
    assert b"Seccomp:\t2" in joined


def test_its_output_is_nowhere_else(machine, container):
    assert execute(machine, "container", "exec", container, "echo", "private")[1] == b"private\n"
    assert "private" not in machine.run("app", "logs", "sleeper").stdout


def test_bytes_in_bulk_come_through_unchanged(machine, container):
    data = random.Random(6).randbytes(20_000_000)
    status, out, _ = execute(machine, "container", "exec", container, "cat", data=data)
    assert status == 0
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_a_reader_that_leaves_ends_the_program_and_memory_stays_flat(machine, container):
    def resident():
        found = {}
        for pid, words in machine.processes().items():
            if "alight.server" in words or "alight.node " in words or words.endswith("alight.node"):
                with contextlib.suppress(OSError):
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                    found[pid] = next(int(one.split()[1]) for one in lines if one.startswith("VmRSS"))
        return found

    flood = f"flooding {os.getpid()}"
    command = machine.start("container", "exec", container, "yes", flood)
    try:
        assert command.stdout.readline() == f"{flood}\n"
        before = resident()
        time.sleep(2)  # nobody reads: everything has to stand still
        grown = {pid: size - before[pid] for pid, size in resident().items() if pid in before}
        assert all(size < 64 << 10 for size in grown.values()), grown  # KiB
    finally:
        command.stdout.close()
        command.wait(30)
        command.stderr.close()
    assert command.returncode == 141
    until(lambda: inside(f"yes {flood}") == 0)


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_the_program_ends_with_the_command(machine, container, at_terminal, signum):
    terminal = at_terminal("container", "exec", container, "sleep", long(8651))
    until(lambda: inside(f"sleep {long(8651)}") == 1)
    until(terminal.is_raw)
    terminal.popen.send_signal(signum)
    terminal.popen.wait(30)
    until(lambda: inside(f"sleep {long(8651)}") == 0)
    until(lambda: not terminal.is_raw())


def test_ctrl_c_without_a_terminal_is_the_programs(machine, container):
    script = "trap 'echo caught; exit 3' INT; echo up; while :; do sleep 0.1; done"
    command = machine.start("container", "exec", container, "sh", "-c", script)
    assert command.stdout.readline() == "up\n"
    command.send_signal(signal.SIGINT)
    assert command.communicate(timeout=30)[0] == "caught\n"
    assert command.returncode == 3


@pytest.mark.slow
def test_the_way_out_of_a_terminal(container, at_terminal):
    terminal = at_terminal("container", "exec", container, "sleep", long(8652))
    until(lambda: inside(f"sleep {long(8652)}") == 1)
    terminal.type(b"~.")
    assert "the program in the container was ended" in terminal.end(status=130)
    until(lambda: inside(f"sleep {long(8652)}") == 0)


def test_the_container_ends_under_a_program(machine, script):
    command = machine.start("shell", f"{script}::f", "-c", f"echo $ALIGHT_TASK_ID; exec sleep {long(8653)}")
    container = command.stdout.readline().strip()
    machine.run("container", "stop", "--force", "--yes", container)
    _, err = command.communicate(timeout=60)
    assert f"the container {container} ended" in err
    assert command.returncode == 137


@pytest.mark.slow
def test_a_program_that_ignores_hangups_is_killed(machine, container):
    ignoring = f"trap '' HUP TERM; echo up; exec sleep {long(8655)}"
    command = machine.start("container", "exec", container, "sh", "-c", ignoring)
    assert command.stdout.readline() == "up\n"
    command.kill()
    command.communicate(timeout=30)
    until(lambda: inside(f"sleep {long(8655)}") == 0)


@pytest.mark.slow
def test_what_a_program_leaves_running_does_not_hold_the_command(machine, container):
    began = time.monotonic()
    assert execute(machine, "container", "exec", container, "sh", "-c", "sleep 30 & echo done")[:2] == (0, b"done\n")
    assert time.monotonic() - began < 25


@pytest.mark.slow
def test_a_terminal_there_and_none_here(machine, container):
    words = ("container", "exec", "--pty", container, "sh", "-c", "test -t 0 && test -t 1 && stty -echo && cat")
    status, out, _ = execute(machine, *words, data=b"line\n")  # the end of the input is Ctrl-D there
    assert (status, out) == (0, b"line\r\n")


def how_it_started(machine, container):
    return next(one["how"] for one in machine.json("container", "list") if one["container_id"] == container)


def forked_shell(machine, script, command):
    """`alight shell --cmd` in a container that is a fork, and its id. The first ones start plainly, while their
    template comes up.
    """
    deadline = time.monotonic() + 90
    while True:
        words = ("shell", f"{script}::f", "-c", f"echo $ALIGHT_TASK_ID; {command}")
        shell = machine.start(*words, stdin=subprocess.PIPE)
        container = shell.stdout.readline().strip()
        until(lambda name=container: how_it_started(machine, name))
        if how_it_started(machine, container) != "plain":
            return shell, container
        shell.terminate()
        shell.communicate()
        assert time.monotonic() < deadline, machine.json("container", "show", container)


def test_shells_and_programs_in_forked_containers(machine, script):
    shell, container = forked_shell(machine, script, "read end; exit 6")
    words = ("container", "exec", container, "sh", "-c", "cat; cat /proc/self/uid_map; kill -9 $$")
    status, out, _ = execute(machine, *words, data=b"x\n")
    assert (status, out.split()[:2]) == (137, [b"x", b"0"])
    shell.communicate("end\n", timeout=60)
    assert shell.returncode == 6


def test_a_killed_agent_takes_its_programs_along(machine, container):
    ignoring = f"trap '' HUP TERM; echo up; exec sleep {long(8654)}"
    command = machine.start("container", "exec", container, "sh", "-c", ignoring)
    assert command.stdout.readline() == "up\n"
    node = next(pid for pid, words in machine.processes().items() if "alight.node" in words and "spawner" not in words)
    subprocess.run(["kill", "-9", str(node)], check=True)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "was lost" in err
    until(lambda: inside(f"sleep {long(8654)}") == 0)
    words = ("container", "exec", container, "sh", "-c", "echo $TOKEN $ALIGHT_TASK_ID")
    told = f"s3cret {container}\n".encode()
    until(lambda: execute(machine, *words)[1] == told, 60)  # the next agent knows what the container started with


@pytest.mark.slow
def test_a_killed_outer_process_ends_programs(machine, script):
    """Programs in forked containers are reaped by it: when it is gone, somebody has to say that they are, too.

    The last test here: all that was forked from this image's templates ends, ``container`` too.
    """
    shell, container = forked_shell(machine, script, f"exec sleep {long(8656)}")
    sleeping = next(path for path in Path("/proc").glob("[0-9]*") if words_of(path) == f"sleep {long(8656)}")
    parent = next(line.split()[1] for line in (sleeping / "status").read_text().splitlines() if line[:5] == "PPid:")
    subprocess.run(["kill", "-9", parent], check=True)
    _, err = shell.communicate(timeout=60)
    assert shell.returncode == 137
    assert f"the container {container} ended" in err
