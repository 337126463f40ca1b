"""The system calls that Python has no name for. Each raises OSError; none of them decides anything."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
from functools import lru_cache

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_IDMAP = 0x100000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 0x2

_CLONE_VM = 0x100
_STACK = 1 << 16
_ASLEEP_SECONDS = 30

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

# One number on every architecture: they are newer than the common table.
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_FSOPEN = 430
_FSCONFIG = 431
_FSMOUNT = 432
_MOUNT_SETATTR = 442
_OPEN_TREE_CLONE = 1
_AT_RECURSIVE = 0x8000
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1
_O_CLOEXEC = 0x80000
_EMPTY_PATH = 4
_EMPTY_PATH_AT = 0x1000
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_JOIN_SESSION_KEYRING = 1
_KEYCTL = {"x86_64": 250, "aarch64": 219}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def unshare(flags: int) -> None:
    """Leave some namespaces for new ones. Concerns the calling thread."""
    _checked(_libc.unshare(flags), "unshare")


def clone_asleep(flags: int) -> int:
    """A child in new namespaces that does nothing, until it is killed or some seconds have passed; its pid.

    It shares our memory and runs no Python, so making it costs no copy of our page tables. The caller kills and reaps
    it before the next one is made: they share a stack.
    """
    sleep = ctypes.cast(_libc.sleep, ctypes.c_void_p)
    top = ctypes.c_void_p(ctypes.addressof(_stack()) + _STACK)
    kinds = flags | _CLONE_VM | signal.SIGCHLD
    return _checked(_libc.clone(sleep, top, kinds, ctypes.c_void_p(_ASLEEP_SECONDS)), "clone")


@lru_cache(maxsize=1)
def _stack() -> ctypes.Array[ctypes.c_char]:
    # Never let go: a child may still be on it.
    return (ctypes.c_char * _STACK).from_buffer(mmap.mmap(-1, _STACK))


def setns(fd: int, kind: int) -> None:
    """Enter the namespace behind a descriptor. Concerns the calling thread."""
    _checked(_libc.setns(fd, kind), "setns")


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process."""
    _checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """The classic mount(2)."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    _checked(result, f"mount {target}")


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _checked(_libc.umount2(os.fsencode(target), flags), f"unmount {target}")


def mount_new(kind: str, options: list[tuple[str, str | None]], target: str, flags: int = 0) -> None:
    """Mount with the interface that takes any number of options. The error says what the file system said."""
    context = _checked(_call(_FSOPEN, kind.encode(), _CLOEXEC), "fsopen")
    try:
        try:
            for key, value in options:
                if value is None:
                    result = _call(_FSCONFIG, context, _FSCONFIG_SET_FLAG, key.encode(), None, 0)
                else:
                    result = _call(_FSCONFIG, context, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
                _checked(result, f"{kind} option {key}")
            _checked(_call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0), f"mount {kind}")
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}{_messages(context)}") from error
        tree = _checked(_call(_FSMOUNT, context, _CLOEXEC, flags), "fsmount")
        try:
            _checked(_call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _EMPTY_PATH), f"mount at {target}")
        finally:
            os.close(tree)
    finally:
        os.close(context)


def mount_again(source: str, target: str, attributes: int, users: int = 0) -> None:
    """Show a directory or file, and what is mounted below it, at ``target`` too, with ``MOUNT_ATTR_*`` of its own.

    ``users`` is the descriptor of the user namespace that ``MOUNT_ATTR_IDMAP`` takes ids from. A target that is a
    link is not followed.
    """
    flags = _OPEN_TREE_CLONE | _O_CLOEXEC | _AT_RECURSIVE
    tree = _checked(_call(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags), f"open {source}")
    try:
        if attributes:
            # struct mount_attr: to set, to clear, propagation, user namespace.
            wanted = struct.pack("=4Q", attributes, 0, 0, users)
            result = _call(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH_AT | _AT_RECURSIVE, wanted, len(wanted))
            _checked(result, f"attributes of {source}")
        _checked(_call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _EMPTY_PATH), f"mount at {target}")
    finally:
        os.close(tree)


def exchange(one: str, other: str) -> None:
    """Have two paths change places, in one step."""
    paths = os.fsencode(one), os.fsencode(other)
    _checked(_libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE), f"exchange {one} and {other}")


def new_session_keyring() -> None:
    """Leave the keyring of whoever started us behind. Without effect where the kernel has no keyrings."""
    number = _KEYCTL.get(os.uname().machine)
    if number is not None:
        _call(number, _JOIN_SESSION_KEYRING, None, 0, 0, 0)


def _call(number: int, *arguments: int | bytes | None) -> int:
    plain = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    return int(_libc.syscall(ctypes.c_long(number), *plain))


def _messages(context: int) -> str:
    said: list[str] = []
    try:
        while len(said) < 4:
            said.append(os.read(context, 1024).decode(errors="replace").strip())
    except OSError:
        pass
    return "".join(f"; {one.partition(' ')[2]}" for one in said)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
