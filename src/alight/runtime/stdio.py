"""Standard output and error as user code expects them in a terminal: by lines, never lost before a result is sent.

The node reads both pipes and writes every byte down; nothing here copies or stores output.
"""

from __future__ import annotations

import io
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List


def setup() -> None:
    """Buffer by lines, whatever PYTHONUNBUFFERED says.

    The variable stays set, because Python programs that user code starts should be live too. In this process it would
    cost one write (and one log record) for the text and one for the newline of every print. A carriage return ends a
    line as well, so progress bars draw.
    """
    sys.stdout = sys.__stdout__ = _reopen(1, "surrogateescape")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _reopen(2, "backslashreplace")  # type: ignore[misc]


def flush() -> None:
    """Everything printed so far is in the pipes when this returns, C libraries' printf included."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            continue  # user code replaced or closed it: there is nothing to flush, and no place to say so
    # Loading ctypes costs milliseconds; whoever prints through C has nearly always loaded it (numpy does).
    if "ctypes" in sys.modules:
        _flush_c()


def _flush_c() -> None:
    if not _FFLUSH:
        _FFLUSH.append(sys.modules["ctypes"].CDLL(None).fflush)
    _FFLUSH[0](None)


_FFLUSH: List[Any] = []


#: When the pipes were last written to, and when we looked; both in ns of the wall clock.
_seen = [-1, 0]
_TICK = 20_000_000  # what is written twice within one tick of the kernel's clock may show as one time


def is_quiet() -> bool:
    """Whether nothing was printed since this was asked before, by whatever means (child processes, C libraries).

    The kernel notes when a pipe was written to. False where that cannot be told.
    """
    try:
        written = max(os.fstat(1).st_mtime_ns, os.fstat(2).st_mtime_ns)
    except OSError:
        return False  # user code closed one
    quiet = written == _seen[0] and _seen[1] - written > _TICK
    _seen[:] = written, time.time_ns()
    return quiet


def _reopen(descriptor: int, errors: str) -> io.TextIOWrapper:
    stream = open(descriptor, "wb", closefd=False)  # noqa: SIM115  it lives as long as the process
    return io.TextIOWrapper(stream, encoding="utf-8", errors=errors, line_buffering=True)
