"""What a fork of a template gives up, and what it enters: the system calls, ready before anything is forked.

Loaded in templates only: a plain container gets all of this from the OCI runtime. Must not know of requests or sockets.
"""

from __future__ import annotations

import ctypes
import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL = 23, 24, 47, 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION = 0x20080522
_INSTRUCTION = 8  # bytes of a struct sock_filter
#: User, pid, mount, ipc, uts, network and cgroup namespaces: one call, because the first gives the right to the others.
_ALL_NAMESPACES = 0x10000000 | 0x20000000 | 0x00020000 | 0x08000000 | 0x04000000 | 0x40000000 | 0x02000000
_SIGKILL = 9
_HIGHEST = 1 << 20  # descriptors


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


# PyDLL: nothing here waits, and letting go of the interpreter around a fork would be a fork in its middle.
_LIBC: Any = ctypes.PyDLL(None, use_errno=True)
_LIBC.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_LAST_CAPABILITY = 63


def bare_fork() -> int:
    """``fork`` of the C library, without what Python modules have registered for forks (``os.register_at_fork``): what
    user modules do there is for the one process that becomes a container, not for those on the way to it. The child
    must end by ``os._exit`` or ``os.fork``. Only for processes with one Python thread."""
    pid: int = _LIBC.fork()
    if pid < 0:
        _raise("fork")
    return pid


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends, which has this pid."""
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def enter_namespaces(pidfd: int) -> None:
    """Become part of another process's container, with all rights in its user namespace, which is below ours."""
    if _LIBC.setns(pidfd, _ALL_NAMESPACES) != 0:
        _raise("setns")


def limit_files(most: int) -> None:
    """The limit of open files, as far as it may be raised."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor that is not among these."""
    start = 0
    for number in sorted(keep):
        if start < number:  # an empty range is all there are, to some versions of Python
            os.closerange(start, number)
        start = number + 1
    os.closerange(start, _HIGHEST)


def drop(capabilities: int, instructions: bytes) -> None:
    """Keep these capabilities (a mask by number) and no way to others; then the seccomp filter (empty: none), which is
    last because it may forbid what comes before it."""
    for number in range(_LAST_CAPABILITY):
        bounded = _LIBC.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)
        if bounded < 0:
            break  # the kernel knows no more of them
        if bounded and not capabilities >> number & 1:
            _prctl("PR_CAPBSET_DROP", _PR_CAPBSET_DROP, number)
    _prctl("PR_CAP_AMBIENT", _PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    header, sets = _Header(_CAPABILITY_VERSION, 0), (_Set * 2)()
    if _LIBC.capget(ctypes.byref(header), sets) != 0:
        _raise("capget")
    for half in (0, 1):
        kept = sets[half].permitted & (capabilities >> 32 * half) & 0xFFFFFFFF
        sets[half] = _Set(kept, kept, 0)
    if _LIBC.capset(ctypes.byref(header), sets) != 0:
        _raise("capset")
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, 1)  # as after exec; changing rights has cleared it
    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)
    if instructions:
        program = ctypes.create_string_buffer(instructions, len(instructions))
        whole = _Program(len(instructions) // _INSTRUCTION, ctypes.addressof(program))
        _prctl("PR_SET_SECCOMP", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(whole))


def _prctl(name: str, option: int, first: int = 0, second: int = 0) -> None:
    if _LIBC.prctl(option, first, second, 0, 0) != 0:
        _raise(name)


def _raise(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
