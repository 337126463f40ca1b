"""The system call filter of a process, read back from the kernel: what the OCI runtime compiled, forks get as it is.

Runs in the spawner: single-threaded, root, without a filter of its own. Needs a kernel with checkpoint support
(CONFIG_CHECKPOINT_RESTORE), as those of all distributions have.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from alight.node.engine.base import EngineError

_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_DETACH: Final = 17
_GET_FILTER: Final = 0x420C
_WALL: Final = 0x40000000
#: Bytes of a ``struct sock_filter``.
_INSTRUCTION: Final = 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class NoForks(EngineError):
    """This machine cannot have forks, whatever the template; containers start plainly."""

    code = "engine_no_forks"


def of_process(pid: int, number: int = 0) -> bytes:
    """A filter of this process, as an array of ``struct sock_filter``; empty when it has none.

    They are counted from the one that it got first. Stops the process for a moment. Raises ``NoForks`` where the kernel
    does not tell.
    """
    try:
        return _read(pid, number)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise EngineError(f"The process {pid} ended while its filter was read") from error
    except OSError as error:
        raise NoForks(f"This machine's kernel does not tell a process's filter: {error.strerror}") from error


def _read(pid: int, number: int) -> bytes:
    if "\nSeccomp:\t0\n" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace"):
        return b""
    _ptrace(_SEIZE, pid)
    try:
        _ptrace(_INTERRUPT, pid)
        _, status = os.waitpid(pid, _WALL)
        if not os.WIFSTOPPED(status):
            raise ProcessLookupError(errno.ESRCH, f"the process {pid} ended while its filter was read")
        count = _ptrace(_GET_FILTER, pid, number)
        found = ctypes.create_string_buffer(count * _INSTRUCTION)
        _ptrace(_GET_FILTER, pid, number, found)
        return found.raw
    finally:
        _libc.ptrace(_DETACH, pid, None, None)


def _ptrace(request: int, pid: int, address: int = 0, data: object = None) -> int:
    result = int(_libc.ptrace(request, pid, address, data))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace of the process {pid}: {os.strerror(number)}")
    return result
