"""A container's shell, as the spawner knows it, and the fork that comes into it and is the container."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from alight.node import cgroups, family, filters, kernel, pause
from alight.node.engine.base import EngineError
from alight.node.spawner_container import Request, Runtime
from alight.node.spawner_inside import KILLED, OUTER_DIED, Inside, Template, closed
from alight.wire import forks

if TYPE_CHECKING:
    from collections.abc import Callable

    from alight.node.network import Network
    from alight.node.users import Users

_CREDENTIALS = struct.Struct("=iII")
_LIMITS = 16
_EXEC_SECONDS, _EXEC_STEP = 1.0, 0.0002


class Shell(Inside):
    """A container whose first process only reaps, and the fork that comes into it.

    ``launched``, then ``ask`` a template, then ``arrived``; parked until ``wake``, and ended when both are dead.
    """

    filter: ClassVar[bytes | None] = None
    """What the OCI runtime compiled for shells, read from the first one. One profile serves all."""

    def __init__(
        self,
        request: Request,
        runtime: Runtime,
        network: Network,
        template: Template,
        capabilities: int,
        ended: Callable[[Shell, int, str | None], None],
    ) -> None:
        super().__init__(request, runtime, network, template.family)
        self.template_id = template.request.id
        self._capabilities = capabilities
        self.is_parked = False
        self.is_awake = False
        self._told = ended
        self._writers: tuple[int, int] | None = None
        self.control: socket.socket | None = None
        self._fork_pidfd = -1
        self._fork_number = 0
        self._fork_status: int | None = None
        self._first_is_dead = False
        self._asked_at = 0.0

    # Coming to be

    def ask(self, template: Template) -> int:
        """Ask for a fork. The descriptor becomes readable when it is there, or when it will never be."""
        if self._writers is None or self.pidfd < 0:
            raise EngineError(f"The container {self.request.id} ended at once")
        self._expect_pause()
        groups: list[int] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control = ours
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            ours.setblocking(False)
            groups.extend(_tasks(self.request.group))
            data = forks.REQUEST.pack(self._capabilities, 0) + self._filter()
            self._asked_at = time.monotonic()
            given = [self.pidfd, theirs.fileno(), *self._writers, *groups]
            socket.send_fds(template.service, [data], given)
        except BlockingIOError as error:
            raise EngineError(f"The template {self.template_id} takes no requests any more") from error
        finally:
            theirs.close()
            for one in (*groups, *self._writers):
                os.close(one)
            self._writers = None
        return ours.fileno()

    def arrived(self) -> bool:
        """Read the control socket. True: the fork waits; False: nothing is there yet. Raises when none will come."""
        assert self.control is not None
        try:
            data, credentials, _, _ = self.control.recvmsg(forks.PACKET, socket.CMSG_SPACE(_CREDENTIALS.size))
        except BlockingIOError:
            return False
        except OSError as error:
            raise EngineError(f"The template {self.template_id} made no fork: {error.strerror}") from error
        if data[:1] == forks.FAILED:
            said = data[1:].decode(errors="replace")
            raise EngineError(f"The template {self.template_id} could not fork: {said}")
        if data[:1] != forks.PARKED or not credentials:
            raise EngineError(f"A fork of the template {self.template_id} ended before it was ready")
        self._take(_CREDENTIALS.unpack(credentials[0][2])[0])
        self.state = replace(
            self.state, pid=self.pid, stages={**self.state.stages, "fork": time.monotonic() - self._asked_at}
        )
        self.is_parked = True
        return True

    def _expect_pause(self) -> None:
        # The OCI runtime returns a moment before its child becomes the program; until then nobody may enter it.
        assert self.pid is not None
        program = os.fstat(pause.descriptor())
        until = time.monotonic() + _EXEC_SECONDS
        try:
            while not os.path.samestat(os.stat(f"/proc/{self.pid}/exe"), program):
                if time.monotonic() > until:
                    raise EngineError(f"The first process of {self.request.id} does not begin")
                time.sleep(_EXEC_STEP)
        except OSError as error:
            raise EngineError(f"The first process of {self.request.id} ended at once") from error

    def _take(self, pid: int) -> None:
        # Whoever sent this: only what is in this shell is its fork, and it is held before anything else is done to it.
        assert self.pid is not None
        try:
            self._fork_pidfd = os.pidfd_open(pid)
            found = family.numbers(pid)
            same = os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{self.pid}/ns/pid")
            if not same or len(found) != 3:
                raise EngineError(f"The template {self.template_id} made a fork that is not in its shell")
        except OSError as error:
            raise EngineError(f"A fork of the template {self.template_id} ended at once: {error}") from error
        try:
            _copy_limits(self.pid, pid)
        except OSError as error:
            raise EngineError(f"The limits of a fork of {self.template_id} cannot be set: {error.strerror}") from error
        self._fork_number = found[1]
        self.pid = pid
        self.family.watch(self._fork_number, self._fork_ended)

    # Life

    def wake(self, name: str, directory: str, told: dict[str, Any], given: list[int]) -> None:
        """Become the container ``name``, whose ``directory`` changes places with this one's when it is another. The
        fork is ``told`` that, and given these descriptors."""
        if not self.is_parked or self.control is None:
            raise EngineError(f"No fork waits in {self.request.id}")
        began = time.monotonic()
        how = "parked" if directory != self.request.directory else "forked"
        before = self.request
        self._move(directory)
        try:
            self.control.setblocking(True)
            socket.send_fds(self.control, [forks.WAKE + json.dumps(told).encode()], given)
        except OSError as error:
            self._move(before.directory)
            raise EngineError(f"The fork that waited in {self.request.id} does not answer: {error.strerror}") from error
        self.drop_control()
        stages = self.state.stages if how == "forked" else {"fork": time.monotonic() - began}
        started = self.state.started_at if how == "forked" else time.time()
        self.state = replace(self.state, id=name, pid=self.pid, how=how, stages=stages, started_at=started)
        self.is_awake = True
        self.save()

    def signal(self, signum: int, *, everyone: bool) -> None:
        if everyone or self._fork_pidfd < 0:
            super().signal(signum, everyone=everyone)
        else:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fork_pidfd, signum)

    @property
    def is_known(self) -> bool:
        return self.is_awake

    def save(self) -> None:
        # A shell that nobody took is nothing that anybody asks for later.
        if self.is_awake:
            super().save()

    def outer_ended(self) -> None:
        self._told(self, KILLED, OUTER_DIED)

    def drop_control(self) -> None:
        """Let go of the control socket."""
        if self.control is not None:
            self.control.close()
            self.control = None

    def release(self) -> None:
        self.drop_control()
        self.family.forget(self._fork_number)
        self._fork_number = 0
        self._fork_pidfd = closed(self._fork_pidfd)
        for one in self._writers or ():
            os.close(one)
        self._writers = None
        super().release()

    def _move(self, directory: str) -> None:
        old = self.request.directory
        if directory == old:
            return
        kernel.exchange(old, directory)
        upper, work = (
            directory + path.removeprefix(old) if path.startswith(f"{old}/") else path
            for path in (self.request.upper, self.request.work)
        )
        self.request = replace(self.request, directory=directory, upper=upper, work=work)

    def _first_ended(self, _: int) -> None:
        self._first_is_dead = True
        self._perhaps_ended()

    def _fork_ended(self, status: int) -> None:
        self._fork_status = status
        if not self._first_is_dead and self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self._perhaps_ended()

    def _perhaps_ended(self) -> None:
        if self._first_is_dead and (self._fork_status is not None or not self._fork_number):
            status = KILLED if self._fork_status is None else self._fork_status
            self._told(self, status, None)

    def _filter(self) -> bytes:
        if Shell.filter is None:
            assert self.pid is not None
            Shell.filter = filters.of_process(self.pid)
        return Shell.filter

    def _run(self, out: int, err: int) -> int:
        self._writers = os.dup(out), os.dup(err)
        return super()._run(out, err)

    def _make_users(self) -> tuple[Users, int]:
        return self.family.below.make()

    def _third(self) -> int:
        return pause.descriptor()


def _copy_limits(source: int, target: int) -> None:
    # The OCI runtime gave them to the shell's first process; a fork has what its template made of its own.
    for number in range(_LIMITS):
        resource.prlimit(target, number, resource.prlimit(source, number))
    os.sched_setaffinity(target, os.sched_getaffinity(source))
    os.setpriority(os.PRIO_PROCESS, target, os.getpriority(os.PRIO_PROCESS, source))
    score = Path(f"/proc/{source}/oom_score_adj").read_text(encoding="ascii")
    Path(f"/proc/{target}/oom_score_adj").write_text(score, encoding="ascii")


def _tasks(group: str) -> list[int]:
    # Version 1 only: a process that writes itself there moves at once. Version 2 has no such file.
    found: list[int] = []
    for tree in cgroups.trees():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.open(f"{tree}{group}/tasks", os.O_WRONLY | os.O_CLOEXEC))
    return found
