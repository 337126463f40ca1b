"""The outer process of the containers that one owner and image fork: pid 1 of their pid namespace, and its reaper.

A fork is nobody's child in the spawner, so somebody in the namespace has to wait for it and say how it ended. This is
all that it does. It has no capability, no file but one pipe, sees an empty directory and no network, and runs nothing
of a user's. It ends with the spawner; when it is killed, the kernel ends everything in its namespace.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from alight.node import drop, kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alight.node.users import Users

#: A process that ended, by its number in the namespace, and its wait status. Number 0: the outer process is ready.
REPORT = struct.Struct("=iI")
_MANY = REPORT.size * 256


@dataclass
class Outer:
    """What the spawner holds of one."""

    pid: int
    users: Users
    namespace: int
    """The pid namespace."""
    reports: int
    """The pipe's end; not blocking."""

    @property
    def is_open(self) -> bool:
        """Whether it runs, as far as the spawner knows."""
        return self.namespace >= 0

    def ended(self) -> Iterator[tuple[int, int]]:
        """The numbers (in the namespace) and statuses of what ended since it was asked last."""
        while self.is_open:
            try:
                data = os.read(self.reports, _MANY)
            except BlockingIOError:
                return
            if not data:
                return
            yield from REPORT.iter_unpack(data)

    def close(self) -> None:
        """Let go; for one that is dead. ``users`` belong to whoever made them."""
        if self.is_open:
            os.close(self.namespace)
            os.close(self.reports)
            self.namespace = self.reports = -1


def start(users: Users, network: int, directory: str) -> Outer:
    """Start one in a user namespace and a network namespace that belongs to it. Takes some milliseconds.

    ``directory`` is any directory: nothing is written there.
    """
    reports, report = os.pipe2(os.O_CLOEXEC)
    go, say_go = os.pipe2(os.O_CLOEXEC)
    said, say = os.pipe2(os.O_CLOEXEC)
    pid = 0
    try:
        middle = os.fork()
        if middle == 0:
            _middle(users, network, directory, go, report, say)
        os.close(report)
        report = -1
        os.close(say)
        say = -1
        os.waitpid(middle, 0)
        pid = _pid_of(os.read(said, 256).decode(errors="replace"))
        # Its parent was to end first: what it asks for next (to end with its parent) concerns the spawner from here on.
        os.write(say_go, b"1")
        _expect_ready(reports)
        os.set_blocking(reports, False)
        namespace = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(reports)
        raise
    finally:
        for one in (go, say_go, said, report, say):
            if one >= 0:
                os.close(one)
    return Outer(pid, users, namespace, reports)


def network_of(users: Users) -> int:
    """A new network namespace that belongs to this user namespace."""
    said, say = os.pipe2(os.O_CLOEXEC)
    go, say_go = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(say_go)
            signal.set_wakeup_fd(-1)
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            kernel.setns(users.fd, kernel.CLONE_NEWUSER)
            kernel.unshare(kernel.CLONE_NEWNET)
            os.write(say, b"1")
            os.read(go, 1)
        finally:
            os._exit(0)
    os.close(say)
    os.close(go)
    try:
        if os.read(said, 1) != b"1":
            raise OSError(errno.EPERM, "a template gets no network")
        return os.open(f"/proc/{child}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(said)
        os.close(say_go)
        os.waitpid(child, 0)


def _pid_of(said: str) -> int:
    if not said.isdecimal():
        raise OSError(errno.ECHILD, f"an outer process did not start: {said or 'its parent ended'}")
    return int(said)


def _expect_ready(reports: int) -> None:
    if os.read(reports, REPORT.size) != REPORT.pack(0, 0):
        raise OSError(errno.ECHILD, "an outer process ended as soon as it started")


def _middle(users: Users, network: int, directory: str, go: int, report: int, say: int) -> NoReturn:
    # Makes the namespaces, which only a child of it is then in; the spawner becomes that child's parent.
    try:
        signal.set_wakeup_fd(-1)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.unshare(kernel.CLONE_NEWNS)
        drop.files(directory)
        kernel.setns(network, kernel.CLONE_NEWNET)
        kernel.setns(users.fd, kernel.CLONE_NEWUSER)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        kernel.unshare(drop.CLONE_NEWPID | drop.CLONE_NEWIPC | drop.CLONE_NEWUTS | drop.CLONE_NEWCGROUP)
        child = os.fork()
        if child == 0:
            _outer(go, report)
        os.write(say, str(child).encode())
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 a copy of the spawner must not go on as one
        os.write(say, repr(error).encode()[:200])
    finally:
        os._exit(1)


def _outer(go: int, report: int) -> NoReturn:
    try:
        gc.freeze()
        drop.descriptors(go, report)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        if os.read(go, 1) != b"1":
            os._exit(1)
        os.close(go)
        drop.capabilities()
        # Last: the kernel forgets it when privileges change.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        # Fails when the spawner ended meanwhile.
        os.write(report, REPORT.pack(0, 0))
        while True:
            _reap(report)
            signal.sigwait({signal.SIGCHLD})
    finally:
        os._exit(1)


def _reap(report: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        os.write(report, REPORT.pack(pid, status))
