"""Programs that join a running container, as the spawner knows them: started by the OCI runtime, reaped, ended.

Runs in the spawner only, single-threaded. What such a program reads and writes never passes here: its pipes, or the
master of its terminal, go to the engine that asked, and when that engine is gone, so is the program.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alight.node import cgroups, family, kernel
from alight.node.engine.base import EngineError
from alight.node.spawner_inside import Inside

if TYPE_CHECKING:
    from collections.abc import Callable

    from alight.node.spawner import Spawner
    from alight.node.spawner_client import Client
    from alight.node.spawner_container import Container, Runtime

log = logging.getLogger("alight.spawner")

_START_SECONDS = 30.0
#: The runtime may say more than this of what went wrong; nobody reads more.
_REASON = 2000


@dataclass
class Program:
    """One program: starting until ``pidfd`` is set, running until it ended."""

    id: str
    container: Container
    client: Client
    number: int
    log: Path
    began: float = field(default_factory=time.monotonic)
    pid: int = 0
    """As the host numbers it; 0 for one in a family's namespace that ended at once."""
    pidfd: int = -1
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

    def found(self, pid: int) -> None:
        """Hold it, so that its number means nobody else."""
        self.pid = pid
        if not pid:
            return
        with contextlib.suppress(ProcessLookupError):
            self.pidfd = os.pidfd_open(pid)
            self.group = os.getpgid(pid)

    def kill(self, signum: int) -> None:
        """Send a signal to it and its process group."""
        if self.pidfd < 0 or _is_readable(self.pidfd):
            return  # it is dead, and its number may be another's before long
        with contextlib.suppress(ProcessLookupError):
            if self.group not in {0, os.getpgrp()}:
                os.killpg(self.group, signum)
            else:
                signal.pidfd_send_signal(self.pidfd, signum)


class Programs:
    """All of them."""

    def __init__(self, spawner: Spawner, runtime: Runtime) -> None:
        self._spawner = spawner
        self._runtime = runtime
        self._starting: dict[int, Program] = {}  # by the runtime's number
        self._running: dict[str, Program] = {}
        self._children: dict[int, Program] = {}  # those of them whose parent the runtime left to us
        self._orphans: dict[int, int] = {}
        self.commands: dict[str, Callable[[Client, int, dict[str, Any]], bool]] = {
            "exec": self._do_exec,
            "exec_signal": self._do_signal,
        }

    # What the loop tells

    def reaped(self, pid: int, status: int) -> bool:
        """A child ended. False when it is none of these (or not yet: it is remembered until starts are over)."""
        program = self._starting.pop(pid, None)
        if program is not None:
            self._launched(program, status)
            if not self._starting:
                self._orphans.clear()
            return True
        program = self._children.pop(pid, None)
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
                program.kill(signal.SIGKILL)

    def container_ended(self, container: Container) -> None:
        """Its programs are dead. Of those in a family's namespace perhaps nobody says so."""
        for program in list(self._running.values()):
            if program.container is container and isinstance(container, Inside):
                self._ended(program, int(signal.SIGKILL))

    def end_slow_starts(self) -> None:
        """Kill runtimes that hang."""
        for pid, program in self._starting.items():
            if time.monotonic() - program.began > _START_SECONDS:
                log.error("the runtime hangs while it starts a program in %s", program.container.request.id)
                os.kill(pid, signal.SIGKILL)

    # Commands

    def _do_exec(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        container = self._spawner.containers.get(str(message["id"]))
        if container is None or container.pid is None or not container.is_known:
            raise EngineError(f"The container {message['id']} does not run")
        name = str(message["exec"])
        if not name.isalnum():
            raise EngineError(f"{name!r} is no name of a program")
        program = Program(name, container, client, number, Path(container.request.directory, f"exec-{name}.log"))
        try:
            launcher = self._launch(program, message["process"])
        except BaseException:
            program.release()
            raise
        self._starting[launcher] = program
        return True

    def _do_signal(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        program = self._running.get(str(message["exec"]))
        if program is not None and program.client is client:
            program.kill(int(message["signal"]))
        return client.send({"n": number, "ok": None})

    # Inside

    def _launch(self, program: Program, process: dict[str, Any]) -> int:
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
            return _fork(program, self._command(program, said), said, theirs)
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
        container = program.container
        try:
            if status != 0:
                raise EngineError(_reason(program, status))  # noqa: TRY301  answered below, like the others
            number = int(program.pid_file.read_text(encoding="ascii"))
            program.found(_host_number(container, number) if isinstance(container, Inside) else number)
            if program.console is not None:
                program.ours = [_master(program.console)]
        except (OSError, ValueError, EngineError) as error:
            program.kill(signal.SIGKILL)
            program.release()
            self._spawner.refuse(program.client, program.number, error)
            return
        self._running[program.id] = program
        if not self._spawner.answer(program.client, {"n": program.number, "ok": program.pid}, program.ours):
            program.kill(signal.SIGKILL)
        program.release()
        if isinstance(container, Inside):
            container.family.watch(number, lambda status: self._ended(program, status))
        elif number in self._orphans:
            self._ended(program, self._orphans.pop(number))
        else:
            self._children[number] = program

    def _ended(self, program: Program, status: int) -> None:
        if self._running.pop(program.id, None) is None:
            return
        if program.pidfd >= 0:
            os.close(program.pidfd)
            program.pidfd = -1
        code = os.waitstatus_to_exitcode(status)
        self._spawner.answer(program.client, {"event": "exec", "exec": program.id, "status": code})


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _host_number(container: Container, number: int) -> int:
    """The host's number of a process that is ``number`` in the namespace of its container's family."""
    for pid in cgroups.processes(container.request.group):
        with contextlib.suppress(OSError):
            if family.numbers(pid)[1:2] == [number]:
                return pid
    return 0


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
    pid = program.container.family.fork() if isinstance(program.container, Inside) else os.fork()
    if pid:
        return pid
    try:
        os.setsid()  # some runtimes leave the program in their own process group
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() not in {parent, 0}:  # 0: we are in a family's namespace, which ends with our parent anyway
            os._exit(1)
        if isinstance(program.container, Inside):
            # It looks itself up in /proc, which must be the namespace's. Both mounts and view end with it.
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.mount("proc", "/proc", "proc", 0)
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
