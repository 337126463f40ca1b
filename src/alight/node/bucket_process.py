"""One rclone: a child of the spawner that serves a mount which is there already, with no right on this machine but the
network and one directory (decision 0016). Runs in the spawner only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from alight.node import drop, fusermount, kernel
from alight.node.mounts import PLACES
from alight.node.network import DNS_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MS_BIND = 0x1000
_RESOLV = "/etc/resolv.conf"
#: In its own mounts, where this machine has an empty directory.
CACHE, _BIN, _NAMES = f"{PLACES}/cache", f"{PLACES}/bin", f"{PLACES}/resolv.conf"
#: Nobody, as root of the container counts: a number that owns nothing but its cache.
NOBODY = 65534


@dataclass(frozen=True)
class Rclone:
    """What one is started with. Descriptors stay the caller's."""

    binary: str
    remote: str
    arguments: Sequence[str]
    env: Mapping[str, str]
    cache: str
    """The directory for what is on its way."""
    user: int
    owner: int
    """Whose all files seem to be: root of the container."""
    fuse: int
    output: int
    host_mounts: int
    """The mount namespace of the machine: in ours are mounts that would live as long as whoever sees them."""
    network: int
    """The network namespace that it is in; -1: the machine's."""


def start(what: Rclone) -> int:
    """Start it; its pid. Whatever goes wrong in the child it says on ``output``, and ends with status 127."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(what, parent)
    return pid


def _become(what: Rclone, parent: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for one in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD, signal.SIGXFSZ):
            signal.signal(one, signal.SIG_DFL)
        # When memory runs out it goes with the containers, and not with the spawner.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("300", encoding="ascii")
        _surround(what)
        _descriptors(what)
        os.chdir("/")
        os.setgroups([])
        os.setresgid(what.user, what.user, what.user)
        os.setresuid(what.user, what.user, what.user)
        drop.capabilities()
        # After the change of users, which forgets it.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.execve(what.binary, _command(what), _environment(what))  # noqa: S606 no shell is what we want
    except OSError as error:
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(127)


def _surround(what: Rclone) -> None:
    """The machine's mounts with four things on top: its cache, our fusermount, and who answers for names."""
    if what.network >= 0:
        kernel.setns(what.network, kernel.CLONE_NEWNET)
    kernel.setns(what.host_mounts, kernel.CLONE_NEWNS)
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_SLAVE)
    kernel.mount("alight", PLACES, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=64k")
    for one in (CACHE, _BIN):
        Path(one).mkdir(mode=0o755)
    kernel.mount(what.cache, CACHE, None, _MS_BIND)
    for name in ("fusermount", "fusermount3"):
        program = Path(_BIN, name)
        program.write_bytes(fusermount.program(os.uname().machine))
        program.chmod(0o555)
    if what.network >= 0 and Path(_RESOLV).exists():
        Path(_NAMES).write_text(f"nameserver {DNS_ADDRESS[0]}\n", encoding="ascii")
        kernel.mount(_NAMES, _RESOLV, None, _MS_BIND)


def _descriptors(what: Rclone) -> None:
    # Held above first: one of ours may lie where another goes. All others close when rclone begins.
    null = os.open("/dev/null", os.O_RDONLY)
    given = {0: null, 1: what.output, 2: what.output, fusermount.GIVEN: what.fuse}
    above = fusermount.GIVEN + 1
    held = {target: fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, above) for target, one in given.items()}
    for target, one in held.items():
        os.dup2(one, target)


def _command(what: Rclone) -> list[str]:
    owner = str(what.owner)
    where = ["--cache-dir", CACHE, "--uid", owner, "--gid", owner]
    # The last word is where it believes that it mounts.
    return ["rclone", "mount", *what.arguments, *where, what.remote, _BIN]


def _environment(what: Rclone) -> dict[str, str]:
    # GODEBUG: names by Go's own resolver, which asks whom resolv.conf names.
    own = {"PATH": _BIN, "HOME": CACHE, "TMPDIR": CACHE, "LANG": "C.UTF-8", "GODEBUG": "netdns=go"}
    return {**what.env, **own}
