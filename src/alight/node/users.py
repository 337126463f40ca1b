"""User namespaces of containers: which ids an owner's containers have on the host, and how a namespace is made.

Root in a container is an id on the host that owns nothing there. Ids of one owner are the same in all containers, so
that forks of a template can be told to share a range; other owners have others.

Making one moves a process into it for good, so a short-lived child does it. Runs in the spawner: single-threaded, root.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from alight.node import drop, kernel
from alight.node.engine.base import EngineError

log = logging.getLogger("alight.spawner")

SIZE = 65536
#: Beyond what systemd gives to its containers and what /etc/subuid usually hands out; below the sign bit.
_FIRST, _END = 0x70000000, 0x7FFF0000
_KINDS = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET
_LIMIT = Path("/proc/sys/user/max_user_namespaces")


@dataclass(frozen=True)
class Users:
    """A user namespace that is held by a descriptor. Ids 0 … ``size`` - 1 in it are ``base`` … on the host."""

    fd: int
    base: int
    size: int = SIZE

    def close(self) -> None:
        os.close(self.fd)


class CannotMap(EngineError):
    """A file system cannot show its files with other owners. The same plan can run with ``users="host"``."""

    code = "engine_cannot_map"


def range_for(instance: str, owner: str) -> int:
    """The first id on the host of an owner's containers. Two owners share a range in one of 4,095 cases."""
    digest = hashlib.sha256(f"{instance}\0{owner}".encode()).digest()
    return _FIRST + int.from_bytes(digest[:8], "big") % ((_END - _FIRST) // SIZE) * SIZE


def child_of_host(base: int) -> tuple[Users, int]:
    """A user namespace below the host's, and the descriptor of a network namespace that belongs to it.

    A container's ``/sys`` can only be mounted by who owns its network, so both are made at once.
    """
    child = kernel.clone_asleep(_KINDS)
    try:
        _write_maps(child, base)
        return _held(child, base)
    finally:
        _end(child)


class Below:
    """Makes user namespaces below one, with the same ids: processes in ``outer`` may enter them without a privilege.

    The kernel lets nobody write their maps but who is in ``outer``, so a helper lives there: a copy of this process
    that nothing of a user's runs in, and that ends with it. A copy for each namespace would take longer than all else.
    """

    def __init__(self, outer: Users) -> None:
        self._base = outer.base
        self._helper, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            _make_below(outer, theirs)
        theirs.close()

    def make(self) -> tuple[Users, int]:
        """A user namespace, and the descriptor of a network namespace that belongs to it."""
        try:
            self._helper.send(b"1")
            said, descriptors, _, _ = socket.recv_fds(self._helper, 256, 2)
        except OSError as error:
            raise OSError(error.errno, f"a user namespace below another: {error.strerror}") from error
        if len(descriptors) != 2:
            reason = said.decode(errors="replace") or "the process that makes them ended"
            raise OSError(errno.EPERM, f"a user namespace below another: {reason}")
        return Users(descriptors[0], self._base), descriptors[1]

    def close(self) -> None:
        """Let the helper end. It is a child of this process, which reaps it like any other."""
        self._helper.close()


def possible(directory: str) -> bool:
    """Whether containers can have user namespaces, with files from the file system of ``directory``.

    Tries it; what is missing is in the log. For a process in a mount namespace of its own.
    """
    try:
        none = int(_LIMIT.read_text(encoding="ascii")) == 0
        reason = f"{_LIMIT} is 0" if none else _not_mapped(directory)
    except (OSError, ValueError) as error:
        reason = str(error)
    if reason:
        log.warning("root in containers is root of this machine without its privileges: %s", reason)
    return not reason


def _not_mapped(directory: str) -> str:
    users, network = child_of_host(_FIRST)
    os.close(network)
    try:
        with tempfile.TemporaryDirectory(prefix="mapped-", dir=directory) as scratch:
            source, target = Path(scratch, "source"), Path(scratch, "target")
            source.mkdir()
            target.mkdir()
            kernel.mount_again(str(source), str(target), kernel.MOUNT_ATTR_IDMAP, users.fd)
            try:
                shown = target.stat().st_uid
            finally:
                kernel.unmount(str(target), kernel.MNT_DETACH)
    finally:
        users.close()
    return "" if shown == _FIRST else f"an idmapped mount of {directory} shows {shown} as its owner"


def _make_below(outer: Users, parent: socket.socket) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        kernel.setns(outer.fd, kernel.CLONE_NEWUSER)
        drop.descriptors(parent.fileno())
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        # Another id made /proc/self root's; the maps of those below have to be ours to write.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        while parent.recv(1):
            _make_one_below(parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            parent.send(str(error).encode())
    finally:
        os._exit(0)


def _make_one_below(parent: socket.socket) -> None:
    try:
        child = kernel.clone_asleep(_KINDS)
        try:
            _write_maps(child, 0)
            users, network = _held(child, 0)
        finally:
            _end(child)
    except OSError as error:
        parent.send(str(error).encode())
        return
    socket.send_fds(parent, [b"1"], [users.fd, network])
    users.close()
    os.close(network)


def _write_maps(pid: int, base: int) -> None:
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(f"0 {base} {SIZE}", encoding="ascii")


def _held(pid: int, base: int) -> tuple[Users, int]:
    users = Users(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC), base)
    try:
        return users, os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        users.close()
        raise


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
