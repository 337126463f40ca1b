"""User namespaces of containers: which ids an owner's containers have on the host, and how a namespace is made.

Root in a container is an id on the host that owns nothing there. Ids of one owner are the same in all containers, so
that forks of a template can be told to share a range; other owners have others.

Making one moves a process into it for good, so a short-lived child does it. Runs in the spawner: single-threaded, root.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alight.node import kernel

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("alight.spawner")

SIZE = 65536
#: Beyond what systemd gives to its containers and what /etc/subuid usually hands out; below the sign bit.
_FIRST, _END = 0x70000000, 0x7FFF0000
_LIMIT = Path("/proc/sys/user/max_user_namespaces")


@dataclass(frozen=True)
class Users:
    """A user namespace that is held by a descriptor. Ids 0 … ``size`` - 1 in it are ``base`` … on the host."""

    fd: int
    base: int
    size: int = SIZE

    def close(self) -> None:
        os.close(self.fd)


class CannotMap(OSError):
    """The file system of ``filename`` cannot show its files with other owners."""


def range_for(instance: str, owner: str) -> int:
    """The first id on the host of an owner's containers. Two owners share a range in one of 4,095 cases."""
    digest = hashlib.sha256(f"{instance}\0{owner}".encode()).digest()
    return _FIRST + int.from_bytes(digest[:8], "big") % ((_END - _FIRST) // SIZE) * SIZE


def child_of_host(base: int) -> tuple[Users, int]:
    """A user namespace below the host's, and the descriptor of a network namespace that belongs to it.

    A container's ``/sys`` can only be mounted by who owns its network, so both are made at once.
    """
    child, said, go = _fork_steps(_leave)
    try:
        _expect(said, "unshare")
        _write_maps(child, base)
        users = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Users(users, base), os.open(f"/proc/{child}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(users)
            raise
    finally:
        _end(child, said, go)


def child_of(outer: Users) -> tuple[Users, int]:
    """The same below ``outer``, with the same ids: processes in ``outer`` may enter it without a privilege.

    The kernel lets nobody write its maps but who is in ``outer``, so the child that goes there has a child itself.
    """
    child, said, go = _fork_steps(lambda step: _leave_below(outer, step))
    try:
        grandchild = int(_expect(said, "a user namespace below another"))
        users = os.open(f"/proc/{grandchild}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Users(users, outer.base), os.open(f"/proc/{grandchild}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(users)
            raise
    finally:
        _end(child, said, go)


def possible(directory: str) -> bool:
    """Whether containers can have user namespaces, with files from the file system of ``directory``.

    Tries it; what is missing is in the log. For a process in a mount namespace of its own.
    """
    try:
        if int(_LIMIT.read_text(encoding="ascii")) == 0:
            reason = f"{_LIMIT} is 0"
        else:
            reason = _not_mapped(directory)
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


# The children. Each runs a few system calls in a copy of this process and ends; nothing of a user runs in them.


def _fork_steps(work: Callable[[int], int]) -> tuple[int, int, int]:
    # The child says on `said` how far it is, as text, and ends when `go` is closed.
    said, say = os.pipe2(os.O_CLOEXEC)
    wait, go = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.close(said)
            os.close(go)
            signal.set_wakeup_fd(-1)
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            below = work(say)
            os.read(wait, 1)
            if below:
                os.kill(below, signal.SIGKILL)
                os.waitpid(below, 0)
        except OSError as error:
            os.write(say, f"!{error.errno or 0} {error.strerror}".encode())
        finally:
            os._exit(0)
    os.close(say)
    os.close(wait)
    return child, said, go


def _leave(say: int) -> int:
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
    os.write(say, b"1")
    return 0


def _leave_below(outer: Users, say: int) -> int:
    kernel.setns(outer.fd, kernel.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # Another id made /proc/self root's; the grandchild's maps have to be ours to write.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    ours, say_ours = os.pipe2(os.O_CLOEXEC)
    grandchild = os.fork()
    if grandchild == 0:
        try:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
            os.write(say_ours, b"1")
            signal.pause()
        except OSError as error:
            os.write(say_ours, f"!{error.errno or 0} {error.strerror}".encode())
        finally:
            os._exit(0)
    os.close(say_ours)
    _expect(ours, "unshare")
    _write_maps(grandchild, 0)
    os.write(say, str(grandchild).encode())
    return grandchild


def _write_maps(pid: int, base: int) -> None:
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(f"0 {base} {SIZE}", encoding="ascii")


def _expect(said: int, what: str) -> str:
    text = os.read(said, 256).decode(errors="replace")
    if not text or text.startswith("!"):
        number, _, reason = text[1:].partition(" ")
        raise OSError(int(number or errno.ECHILD), f"{what}: {reason or 'its process ended'}")
    return text


def _end(child: int, said: int, go: int) -> None:
    os.close(said)
    os.close(go)
    os.waitpid(child, 0)
