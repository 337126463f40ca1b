"""What a process of ours gives up for good before it lives beside users' code. Each raises OSError."""

from __future__ import annotations

import ctypes
import os
import struct

from alight.node import kernel

CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000

_MS_PRIVATE = 0x40000
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_MOST = 1 << 20
_CAPSET = {"x86_64": 126, "aarch64": 91}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def files(directory: str) -> None:
    """See an empty read-only directory as the root, and no other file. For a mount namespace of this process's own."""
    kernel.mount("none", "/", None, kernel.MS_REC | _MS_PRIVATE)
    kernel.mount("none", directory, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=4k,nr_inodes=2,mode=555")
    os.chdir(directory)
    _call(_PIVOT_ROOT, b".", b".")
    # The old root lies on top of the new one.
    kernel.unmount(".", kernel.MNT_DETACH)
    os.chdir("/")


def capabilities() -> None:
    """Have no capability, and never get one."""
    number = 0
    while True:
        try:
            kernel.prctl(_PR_CAPBSET_DROP, number)
        except OSError:
            break  # past the last that this kernel knows
        number += 1
    kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _call(_CAPSET, struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))


def descriptors(*keep: int) -> None:
    """Close all but these."""
    start = 0
    for one in (*sorted(keep), _MOST):
        if start < one:  # an empty range is all there are, to some versions of Python
            os.closerange(start, one)
        start = one + 1


def _call(numbers: dict[str, int], *arguments: bytes) -> None:
    number = numbers[os.uname().machine]
    if _libc.syscall(ctypes.c_long(number), *map(ctypes.c_char_p, arguments)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
