"""Programs that join a running container, as the spawner knows them: started by the OCI runtime, reaped, ended.

Runs in the spawner only, single-threaded. What such a program reads and writes never passes here: its pipes, or the
master of its terminal, go to the engine that asked, and when that engine is gone, so is the program.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alight.node import kernel
from alight.node.engine.base import EngineError
from alight.wire import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from alight.node.spawner import Client
    from alight.node.spawner_container import Container, Runtime

log = logging.getLogger("alight.spawner")

_START_SECONDS = 30.0
#: The runtime may say more than this of what went wrong; nobody reads more.
_REASON = 2000


@dataclass
class Program:
    """One program: starting while ``launcher`` is set, running while ``pid`` is."""

    id: str
    container: Container
    client: Client
    number: int
    log: Path
    began: float = field(default_factory=time.monotonic)
    launcher: int | None = None
    pid: int | None = None
    group: int = 0
    """Its process group."""
    ours: list[int] = field(default_factory=list)
    """The ends of its pipes that the engine gets."""
    console: socket.socket | None = None
    """Where the runtime brings the master of its terminal."""

    @property
    def pid_file(self) -> Path:
        return self.log.with_suffix(".pid")

    @property
    def console_file(self) -> Path:
        return self.log.with_suffix(".tty")

    def release(self) -> None:
        """Close and remove what a start needed."""
        for one in self.ours:
            os.close(one)
        self.ours = []
        if self.console is not None:
            self.console.close()
            self.console = None
        for path in (self.log, self.pid_file, self.console_file):
            path.unlink(missing_ok=True)


class Programs:
    """All of them. ``answer`` sends a message, perhaps with descriptors, to a client outside of its turn; it returns
    False when that client is gone."""

    def __init__(self, runtime: Runtime, answer: Callable[[Client, dict[str, Any], list[int]], bool]) -> None:
        self._runtime = runtime
        self._answer = answer
        self._starting: dict[int, Program] = {}
        self._running: dict[int, Program] = {}
        self._orphans: dict[int, int] = {}

    def start(self, container: Container, client: Client, number: int, message: dict[str, Any]) -> None:
        """Have the runtime start a program; ``reaped`` answers. Raises EngineError, OSError."""
        if container.pid is None:
            raise EngineError(f"The container {container.request.id} does not run")
        name = str(message["exec"])
        if not name.isalnum():
            raise EngineError(f"{name!r} is no name of a program")
        program = Program(name, container, client, number, Path(container.request.directory, f"exec-{name}.log"))
        try:
            self._launch(program, message["process"])
        except BaseException:
            program.release()
            raise
        assert program.launcher is not None
        self._starting[program.launcher] = program

    def signal(self, client: Client, message: dict[str, Any]) -> None:
        """Send a signal to a program of this client and its process group. One that ended is passed over."""
        for program in self._running.values():
            if program.client is client and program.id == str(message["exec"]):
                _kill(program, int(message["signal"]))

    def reaped(self, pid: int, status: int) -> bool:
        """A child ended. False when it is none of these (or not yet: it is remembered until starts are over)."""
        program = self._starting.pop(pid, None)
        if program is not None:
            self._launched(program, status)
            if not self._starting:
                self._orphans.clear()
            return True
        program = self._running.pop(pid, None)
        if program is not None:
            self._ended(program, status)
            return True
        if self._starting:
            self._orphans[pid] = status  # perhaps a program whose runtime has not ended yet
        return False

    def lost(self, client: Client) -> None:
        """An engine is gone: so are its programs."""
        for program in self._running.values():
            if program.client is client:
                _kill(program, signal.SIGKILL)

    def end_slow_starts(self) -> None:
        """Kill runtimes that hang."""
        for pid, program in self._starting.items():
            if time.monotonic() - program.began > _START_SECONDS:
                log.error("the runtime hangs while it starts a program in %s", program.container.request.id)
                os.kill(pid, signal.SIGKILL)

    def _launch(self, program: Program, process: dict[str, Any]) -> None:
        theirs: list[int] = []
        # Not a file: it holds the environment.
        said = os.memfd_create("exec", os.MFD_CLOEXEC)
        try:
            os.write(said, json.dumps(process).encode())
            os.lseek(said, 0, os.SEEK_SET)
            if process["terminal"]:
                program.console = _listener(program.console_file)
            else:
                theirs = _pipes(program)
            program.launcher = _fork(program, self._command(program, said), said, theirs)
        finally:
            for one in (said, *theirs):
                os.close(one)

    def _command(self, program: Program, said: int) -> list[str]:
        console = ("--console-socket", program.console_file.name) if program.console is not None else ()
        return [
            self._runtime.binary,
            *("--root", self._runtime.root, "--log", str(program.log), "--log-format", "json"),
            *("exec", "--detach", "--process", f"/proc/self/fd/{said}", "--pid-file", str(program.pid_file)),
            *(*console, program.container.request.id),
        ]

    def _launched(self, program: Program, status: int) -> None:
        program.launcher = None
        try:
            if status != 0:
                raise EngineError(_reason(program, status))  # noqa: TRY301  answered below, like the others
            program.pid = int(program.pid_file.read_text(encoding="ascii"))
            with contextlib.suppress(ProcessLookupError):
                program.group = os.getpgid(program.pid)
            if program.console is not None:
                program.ours = [_master(program.console)]
        except (OSError, ValueError, EngineError) as error:
            if program.pid is not None:
                _kill(program, signal.SIGKILL)
            program.release()
            failure = error if isinstance(error, EngineError) else EngineError(f"The start went wrong: {error}")
            self._answer(program.client, {"n": program.number, "error": errors.to_wire(failure)}, [])
            return
        self._running[program.pid] = program
        if not self._answer(program.client, {"n": program.number, "ok": program.pid}, program.ours):
            _kill(program, signal.SIGKILL)
        program.release()
        if program.pid in self._orphans:
            self._ended(self._running.pop(program.pid), self._orphans.pop(program.pid))

    def _ended(self, program: Program, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._answer(program.client, {"event": "exec", "exec": program.id, "status": code}, [])


def _kill(program: Program, signum: int) -> None:
    # Its number is not used again, nor its group's: it is our child, and only we reap it.
    assert program.pid is not None
    with contextlib.suppress(ProcessLookupError):
        if program.group not in {0, os.getpgrp()}:
            os.killpg(program.group, signum)
        else:
            os.kill(program.pid, signum)


def _pipes(program: Program) -> list[int]:
    """Three pipes; the program's ends are returned, ours are its own."""
    stdin, ours_in = os.pipe2(os.O_CLOEXEC)
    ours_out, stdout = os.pipe2(os.O_CLOEXEC)
    ours_err, stderr = os.pipe2(os.O_CLOEXEC)
    program.ours = [ours_in, ours_out, ours_err]
    theirs = [stdin, stdout, stderr]
    for one in theirs:  # or it could not open /dev/stdout
        os.fchown(one, program.container.request.base, program.container.request.base)
    return theirs


def _listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    at = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A unix address holds 107 characters; the descriptor's path is short.
        listener.bind(f"/proc/self/fd/{at}/{path.name}")
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(at)
    return listener


def _master(console: socket.socket) -> int:
    """The terminal that the runtime brought. It has ended: all that it sent is here."""
    connection, _ = console.accept()
    with connection:
        connection.setblocking(False)
        _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
    if not descriptors:
        raise EngineError("The runtime made no terminal")
    return descriptors[0]


def _fork(program: Program, command: list[str], said: int, theirs: list[int]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()  # some runtimes leave the program in their own process group
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT):
            signal.signal(ignored, signal.SIG_DFL)
        # The address of the console's socket is relative to it, however long this is.
        os.chdir(program.log.parent)
        if not theirs:
            theirs = [os.open("/dev/null", os.O_RDWR)] * 3
        for target, descriptor in enumerate(theirs):
            os.dup2(descriptor, target)
        os.set_inheritable(said, True)
        os.execvp(command[0], command)  # noqa: S606 no shell is what we want
    except OSError as error:
        os.write(2, f"{error.strerror}".encode())
    finally:
        os._exit(127)


def _reason(program: Program, status: int) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        lines = program.log.read_text(encoding="utf-8").splitlines()
        said = str(json.loads(lines[-1])["msg"])[:_REASON]
        if said:
            return said.removeprefix("exec failed: ").removeprefix("unable to start container process: ")
    return f"the OCI runtime ended with {os.waitstatus_to_exitcode(status)}"
