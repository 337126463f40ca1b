"""Containers in a family's namespace, as the spawner knows them: what they have in common, and templates.

What differs from a plain container: the OCI runtime runs inside the namespace, so its numbers are other ones there;
nothing in it is our child, so the outer process says how it ended and signals go by descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from alight.node import cgroups, family, kernel, outer
from alight.node.engine.base import EngineError
from alight.node.spawner_container import Container, Request, Runtime, execute
from alight.node.users import Users

if TYPE_CHECKING:
    from collections.abc import Callable

    from alight.node.family import Family
    from alight.node.network import Network

KILLED = int(signal.SIGKILL)
"""The wait status of what was killed."""
_MS_RDONLY, _MS_REMOUNT, _MS_BIND = 0x1, 0x20, 0x1000
_KILL_SECONDS = 1.0
OUTER_DIED = "the outer process of its templates and forks was killed"


class Inside(Container):
    """What templates and shells have in common."""

    def __init__(self, request: Request, runtime: Runtime, network: Network, family: Family) -> None:
        super().__init__(request, runtime, network)
        self.family = family
        self.pidfd = -1
        """Of the first process."""
        self._number = 0
        self._named: dict[str, int] = {}
        family.members.add(request.id)

    def launched(self, status: int) -> None:
        super().launched(status)
        self.family.watch(self._number, self._first_ended)

    def signal(self, signum: int, *, everyone: bool) -> None:
        if everyone:
            super().signal(signum, everyone=True)
        elif self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signum)

    def outer_ended(self) -> None:
        """The outer process is dead, and with it all that was in its namespace."""
        raise NotImplementedError

    def release(self) -> None:
        self.family.forget(self._number)
        self._number = 0  # it may become another process's
        self.family.members.discard(self.request.id)
        self.pidfd = closed(self.pidfd)
        super().release()

    def _first_ended(self, status: int) -> None:
        raise NotImplementedError

    def _first_process(self) -> int:
        # The runtime wrote the number that it sees. Ours is found in the control group: few processes are in it yet.
        self._number = int(Path(self.request.directory, "pid").read_text(encoding="ascii"))
        for pid in cgroups.processes(self.request.group):
            with contextlib.suppress(OSError):
                found = family.numbers(pid)
                if len(found) > 1 and found[1] == self._number:
                    self.pidfd = os.pidfd_open(pid)
                    return pid
        raise EngineError(f"The first process of {self.request.id} ended at once: {self._reason(0)}")

    def _run(self, out: int, err: int) -> int:
        return execute(self._command(), out, err, fork=self.family.fork, enter=self._enter, third=self._third())

    def _link(self, name: str, descriptor: int) -> None:
        # A link would lead through our /proc, which the runtime does not have.
        Path(self.request.directory, name).touch()
        self._named[name] = descriptor

    def _enter(self) -> None:
        # In the child, with mounts that end with the runtime. It looks itself up in /proc: the namespace's, then.
        kernel.unshare(kernel.CLONE_NEWNS)
        for name, descriptor in self._named.items():
            kernel.mount(f"/proc/self/fd/{descriptor}", f"{self.request.directory}/{name}", None, _MS_BIND)
        kernel.mount("proc", "/proc", "proc", 0)

    def _third(self) -> int:
        """What is descriptor 3 of the first process."""
        raise NotImplementedError

    def _command(self) -> list[str]:
        command = super()._command()
        place = command.index("run") + 1
        return [*command[:place], "--preserve-fds", "1", *command[place:]]


class Template(Inside):
    """A container that forks. Its end is told like any container's."""

    def __init__(
        self,
        request: Request,
        runtime: Runtime,
        network: Network,
        family: Family,
        ended: Callable[[Template, int, str | None], None],
    ) -> None:
        super().__init__(request, runtime, network, family)
        self._told = ended
        self.service, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A template that does not read is a template that hangs.
        self.service.setblocking(False)

    def launched(self, status: int) -> None:
        self._theirs.close()
        super().launched(status)

    def freeze(self) -> None:
        """Nothing is written to its files any more. Raises when something is open for writing."""
        try:
            kernel.mount("alight", f"{self.request.place}/root", None, _MS_REMOUNT | _MS_RDONLY)
        except OSError as error:
            busy = error.errno == errno.EBUSY
            raise EngineError(
                f"The template's files cannot be frozen: {'one is open for writing' if busy else error.strerror}",
                hint="Close what is opened for writing when the module is imported" if busy else None,
            ) from error

    def outer_ended(self) -> None:
        self._told(self, KILLED, OUTER_DIED)

    def release(self) -> None:
        self.service.close()
        self._theirs.close()
        super().release()

    def _first_ended(self, status: int) -> None:
        # Spare children of it have no reason left to live.
        cgroups.kill_all(self.request.group, _KILL_SECONDS)
        self._told(self, status, None)

    def _make_users(self) -> tuple[Users, int]:
        # It lives in the family's own user namespace: from there, and only from there, it can enter shells.
        users = self.family.users
        return Users(os.dup(users.fd), users.base), outer.network_of(users)

    def _third(self) -> int:
        return self._theirs.fileno()


def closed(descriptor: int) -> int:
    """Close it if it is open; what to remember in its place."""
    if descriptor >= 0:
        os.close(descriptor)
    return -1
