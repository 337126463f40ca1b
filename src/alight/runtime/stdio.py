"""Standard output and error as user code expects them in a terminal: by lines, never lost before a result is sent.

The node reads both pipes and writes every byte down; nothing here copies or stores output.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple


_FIONREAD = 0x541B  # termios has it, for the price of another import


def moved() -> None:
    """Other pipes are where ``setup`` found some. Its streams go on, because user code may hold them."""
    for descriptor in (1, 2):
        _PIPES[descriptor] = _identity(descriptor)


def setup() -> None:
    """Buffer by lines, whatever PYTHONUNBUFFERED says.

    The variable stays set, because Python programs that user code starts should be live too. In this process it would
    cost one write (and one log record) for the text and one for the newline of every print. A carriage return ends a
    line as well, so progress bars draw.
    """
    moved()
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


def is_cut_off() -> bool:
    """Whether nobody reads what is printed any more: the container's parent was killed, and the container is about to
    be. What user code raises from then on (a broken pipe) is not its own failure.
    """
    import select  # noqa: PLC0415  paid by failures only

    poll = select.poll()
    for descriptor, pipe in _PIPES.items():
        if pipe is not None and pipe == _identity(descriptor):  # not something that user code put there
            poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _identity(descriptor: int) -> Optional[Tuple[int, int]]:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISFIFO(found.st_mode) else None


_PIPES: Dict[int, Optional[Tuple[int, int]]] = {}


def is_empty() -> bool:
    """Whether all that was printed, by whatever means (child processes, C libraries), has left the pipes."""
    try:
        return _waiting(1) == 0 == _waiting(2)
    except OSError:
        return False  # user code closed one, or put something else there


def _waiting(descriptor: int) -> int:
    return int.from_bytes(fcntl.ioctl(descriptor, _FIONREAD, b"\0\0\0\0"), sys.byteorder)


def _reopen(descriptor: int, errors: str) -> io.TextIOWrapper:
    stream = open(descriptor, "wb", closefd=False)  # noqa: SIM115  it lives as long as the process
    return io.TextIOWrapper(stream, encoding="utf-8", errors=errors, line_buffering=True)
