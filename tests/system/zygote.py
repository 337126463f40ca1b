"""Commands without their start: a process that has Alight's command line loaded forks for each of them.

Tests look at an instance some thousand times, and two thirds of a look's processor time is Python's start and imports.
What runs, deploys and serves is started as a user starts it; see ``Machine.run``. As a program (``python -m
tests.system.zygote DESCRIPTOR``) this file is the process that forks.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]


def run(words: list[str], env: dict[str, str], cwd: Path | None, timeout: float) -> subprocess.CompletedProcess[str]:
    """``python -m alight WORDS…`` to its end, with nothing on its standard input. Raises TimeoutExpired."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as null:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                _zygote()[0].sendmsg([b"."], _descriptors(theirs.fileno(), null.fileno(), out.fileno(), err.fileno()))
            ours.sendall(json.dumps({"words": words, "env": env, "cwd": str(cwd or Path.cwd())}).encode())
            ours.shutdown(socket.SHUT_WR)
            ours.settimeout(timeout)
            try:
                status = ours.recv(16)
            except TimeoutError:
                raise subprocess.TimeoutExpired(["alight", *words], timeout) from None
        assert status, "the process that forks for commands has lost one"
        out.seek(0)
        err.seek(0)
        said = [one.read().decode().replace("\r\n", "\n") for one in (out, err)]  # as subprocess does for text
    return subprocess.CompletedProcess(["alight", *words], int(status), *said)


@functools.cache
def _zygote() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """It, and the connection to it. It ends with this process, which closes the connection then."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        path = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.zygote", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return ours, process


def _descriptors(*numbers: int) -> list[tuple[int, int, bytes]]:
    import array

    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers).tobytes())]


# ----------------------------------------------------------------------------------------------- the process that forks


def serve(service: socket.socket) -> None:
    """Fork for each that asks, until nobody can any more."""
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for commands
    while True:
        said, descriptors, _, _ = socket.recv_fds(service, 1, 4)
        if not said:
            return
        if os.fork() == 0:
            service.close()
            _attend(*descriptors)
        for one in descriptors:
            os.close(one)


def _load() -> None:
    """What commands import, once."""
    import alight.cli
    import alight.sdk

    for package in (alight.cli, alight.sdk):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            with contextlib.suppress(ImportError):  # for other systems, or of an extra
                importlib.import_module(module.name)


def _attend(connection: int, *streams: int) -> NoReturn:
    """Run one command in a process of its own, and say how it ended; end it when nobody waits for it any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=connection) as asker:
        raw = b"".join(iter(lambda: asker.recv(1 << 16), b""))
        child = os.fork()
        if child == 0:
            asker.close()
            _become(json.loads(raw), streams)
        ended = os.pidfd_open(child)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(asker, 0)  # a hang-up is always told
        if ended not in [descriptor for descriptor, _ in poll.poll()]:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(OSError):
            asker.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(request: dict, streams: tuple[int, ...]) -> NoReturn:
    """``python -m alight WORDS…``, in a process that was forked for it."""
    import atexit
    import runpy
    import traceback

    for number, one in enumerate(streams):
        os.dup2(one, number)
    os.closerange(3, 1024)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["alight", *request["words"]]
    sys.path[0] = request["cwd"]
    # As Python makes them; they last as long as the process.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    code = 1
    try:
        runpy.run_module("alight", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001  as the interpreter does
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
