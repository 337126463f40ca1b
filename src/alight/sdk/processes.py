"""Processes of one state directory: found by what they were started as, and ended.

What is written of them (run/server.json, run/node.json) may be missing or old: a process that starts has not written
yet, and one that was killed has not taken it away.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import List

from alight.wire import errors

_STOP_SECONDS = 45.0


def find(home: Path, name: str) -> List[int]:
    """Every process that serves this directory as a ``name``, "server" or "node", running or about to."""
    numbers = [entry for entry in os.listdir("/proc") if entry.isdigit()]
    return sorted(int(one) for one in numbers if _serves(one, home, f"alight.{name}"))


def is_one(pid: int, name: str) -> bool:
    """Whether this process is alive and is what it says, and not one that got the number of a dead one."""
    return f"alight.{name}".encode() in _words(str(pid))


def end(pid: int, how: int, name: str, log: Path) -> None:
    """Send a signal and wait until it is gone. Raises PermissionDeniedError, and ServiceError after 45 s."""
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return
    except PermissionError:
        raise errors.PermissionDeniedError(
            f"the {name} (pid {pid}) runs as another user", hint="run the same with sudo"
        ) from None
    deadline = time.monotonic() + _STOP_SECONDS
    while is_one(pid, name):
        if time.monotonic() > deadline:
            raise errors.ServiceError(
                f"the {name} (pid {pid}) has not ended within {_STOP_SECONDS:g} s", hint=f"see {log}"
            )
        time.sleep(0.01)


def _serves(pid: str, home: Path, module: str) -> bool:
    words = _words(pid)
    if module.encode() not in words or b"--home" not in words[:-1]:
        return False
    named = os.fsdecode(words[words.index(b"--home") + 1])
    try:
        # One in a container may have a directory of this name, too: its own.
        theirs = os.stat(f"/proc/{pid}/root/{named.lstrip('/')}")
        return os.path.samestat(theirs, os.stat(home))
    except OSError:
        return False  # it ended meanwhile, or is somebody else's


def _words(pid: str) -> List[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
