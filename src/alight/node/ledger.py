"""What must be known of a container after the agent was killed: inputs under way, the log's acknowledged end.

A small file mapped into memory: writing costs about a microsecond and no system call, and the kernel keeps the pages
when the agent is killed. It need not survive the machine, because containers don't either. One file per container.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_HEAD = struct.Struct("!QIB")  # log offset, pid of the runtime, ready
_SLOT = struct.Struct("!B31s31sIdd")
_START = 64
_SLOTS = 96
_SIZE = _START + _SLOT.size * _SLOTS


@dataclass(frozen=True)
class Held:
    """One input under way. ``deadline`` is unix time; 0 = none."""

    input_id: str
    call_id: str
    attempt: int
    given_at: float
    deadline: float = 0.0


class Ledger:
    """The notes of one container. The file's blocks are reserved at once: a disk that fills up later can't hurt."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _SIZE)
            self._map = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        self.log_acked, self.link_pid, ready = _HEAD.unpack_from(self._map)
        self.ready = bool(ready)
        self.inputs: dict[str, Held] = {}
        self._slots: dict[str, int] = {}
        self._free = list(range(_SLOTS - 1, -1, -1))
        self._load()

    def add(self, held: Held) -> None:
        """Remember an input. Beyond the file's size it is remembered in memory alone."""
        self.inputs[held.input_id] = held
        slot = self._slots.get(held.input_id)
        if slot is None:
            if not self._free:
                return
            slot = self._slots[held.input_id] = self._free.pop()
        names = held.input_id.encode(), held.call_id.encode()
        _SLOT.pack_into(self._map, _at(slot), 1, *names, held.attempt, held.given_at, held.deadline)

    def drop(self, input_id: str) -> Held | None:
        """Forget an input; what was known of it."""
        slot = self._slots.pop(input_id, None)
        if slot is not None:
            self._map[_at(slot)] = 0
            self._free.append(slot)
        return self.inputs.pop(input_id, None)

    def note(self) -> None:
        """Keep ``log_acked``, ``link_pid`` and ``ready`` as they are now."""
        _HEAD.pack_into(self._map, 0, self.log_acked, self.link_pid, self.ready)

    def close(self) -> None:
        with contextlib.suppress(BufferError):
            self._map.close()

    def _load(self) -> None:
        for slot in range(_SLOTS):
            used, input_id, call_id, attempt, given_at, deadline = _SLOT.unpack_from(self._map, _at(slot))
            if used != 1:
                continue
            name = input_id.rstrip(b"\0").decode("ascii", "replace")
            self._slots[name] = slot
            self._free.remove(slot)
            call = call_id.rstrip(b"\0").decode("ascii", "replace")
            self.inputs[name] = Held(name, call, attempt, given_at, deadline)


def _at(slot: int) -> int:
    return _START + slot * _SLOT.size
