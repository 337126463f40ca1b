"""What must be known of a container after the agent was killed: runs under way, the log's acknowledged end.

A small file mapped into memory: writing costs about a microsecond and no system call, and the kernel keeps the pages
when the agent is killed. It need not survive the machine, because containers don't either. One file per container.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from pathlib import Path

from alight.node.runs import Held

_HEAD = struct.Struct("!QIBd")  # log offset, pid of the runtime, ready, when it last answered
_ANSWERED = struct.Struct("!d")
_ANSWERED_AT = _HEAD.size - _ANSWERED.size
_SLOT = struct.Struct("!B31sQQId")
_START = 64
_SLOTS = 1024
_SIZE = _START + _SLOT.size * _SLOTS


class Ledger:
    """The notes of one container. The file's blocks are reserved at once: a disk that fills up later can't hurt.

    ``runs`` is what the file held when it was opened. Runs beyond its 1,024 slots are in memory alone: after a kill the
    runtime says which of them it has; one that it answered just then may run again.
    """

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            is_new = os.fstat(fd).st_size == 0
            os.posix_fallocate(fd, 0, _SIZE)
            self._map = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        self.log_acked, self.link_pid, ready, self.answered_at = _HEAD.unpack_from(self._map)
        self.ready = bool(ready)
        self._slots: dict[Held, int] = {}
        self._free = list(range(_SLOTS - 1, -1, -1))
        self.runs = () if is_new else self._load()

    def add(self, held: Held) -> None:
        """Remember a run, while there is a slot."""
        if not self._free:
            return
        slot = self._slots[held] = self._free.pop()
        at = _START + slot * _SLOT.size
        _SLOT.pack_into(self._map, at, 0, held.call_id.encode(), held.start, held.stop, held.attempt, held.given_at)
        self._map[at] = 1  # last: a slot that was half written does not count

    def drop(self, held: Held) -> None:
        """Forget a run."""
        slot = self._slots.pop(held, None)
        if slot is not None:
            self._map[_START + slot * _SLOT.size] = 0
            self._free.append(slot)

    def answered(self, now: float) -> None:
        """The container answered something."""
        self.answered_at = now
        _ANSWERED.pack_into(self._map, _ANSWERED_AT, now)

    def note(self) -> None:
        """Keep ``log_acked``, ``link_pid`` and ``ready`` as they are now."""
        _HEAD.pack_into(self._map, 0, self.log_acked, self.link_pid, self.ready, self.answered_at)

    def close(self) -> None:
        with contextlib.suppress(BufferError):
            self._map.close()

    def _load(self) -> tuple[Held, ...]:
        used_before = [slot for slot in range(_SLOTS) if self._map[_START + slot * _SLOT.size] == 1]
        for slot in used_before:
            _, call_id, start, stop, attempt, given_at = _SLOT.unpack_from(self._map, _START + slot * _SLOT.size)
            held = Held(call_id.rstrip(b"\0").decode("ascii", "replace"), start, stop, attempt, given_at)
            self._slots[held] = slot
            self._free.remove(slot)
        return tuple(sorted(self._slots, key=lambda held: held.given_at))
