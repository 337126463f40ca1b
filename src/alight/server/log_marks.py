"""Whose output a log is: notes of which inputs ran when, beside the log, and what follows from them (decision 0022).

One note per frame of answers whose container may have printed since the one before: when its inputs ran, and where the
log ended when they had, if anybody knows. A line belongs to what ran when it was read from its container's pipe.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from alight.server.log_segments import path_of, segments_of

_FORM = struct.Struct("!ddQQQI31s")  # began, ended, log offset, first and last position, attempt, call
#: Seconds that the times of inputs may be wrong by: a frame that waits for company says when it left.
LATE = 0.003
_LATER = 0.25  # seconds after an input's end in which output still counts as its own, when no other one runs
_AROUND = 0.05  # seconds around inputs that run together in which output may be theirs
_LOOKED_AT = 512  # notes in which inputs that run together are looked for
_NOTHING: tuple[float, float, tuple[Mark, ...]] = (1.0, 0.0, ())


@dataclass(frozen=True, slots=True)
class Mark:
    """Inputs ``start`` to ``stop`` of a call, which ran from ``began`` to ``ended`` (unix time; inf: they still do).

    ``offset``: where their container's log ended when they had ended; 0 when nobody knows.
    """

    call: str
    start: int
    stop: int
    attempt: int
    began: float
    ended: float
    offset: int = 0

    def pack(self) -> bytes:
        """The bytes that are kept."""
        name = self.call.encode()
        return _FORM.pack(self.began, self.ended, self.offset, self.start, self.stop, self.attempt, name)


class Marks:
    """The notes beside a log, read where they lie. Close it after use."""

    def __init__(self, folder: Path) -> None:
        self._files: list[tuple[int, int]] = []  # descriptor, notes in all files up to this one
        self._open = ExitStack()
        self.count = 0
        for segment in segments_of(folder):
            try:
                descriptor = os.open(path_of(folder, segment, ".runs"), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            self._open.callback(os.close, descriptor)
            self.count += os.fstat(descriptor).st_size // _FORM.size
            self._files.append((descriptor, self.count))

    def __getitem__(self, number: int) -> Mark:
        before = 0
        for descriptor, upto in self._files:
            if number < upto:
                data = os.pread(descriptor, _FORM.size, (number - before) * _FORM.size)
                began, ended, offset, start, stop, attempt, call = _FORM.unpack(data)
                return Mark(call.rstrip(b"\0").decode("ascii", "replace"), start, stop, attempt, began, ended, offset)
            before = upto
        raise IndexError(number)

    def first_until(self, moment: float) -> int:
        """The number of the first note of what had not ended before a moment; ``count`` when there is none."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self[middle].ended < moment:
                low = middle + 1
            else:
                high = middle
        return low

    def close(self) -> None:
        """Close the files."""
        self._open.close()


class Whose:
    """Says of output of one container whose it is.

    ``together``: the container runs several inputs at a time; all that ran at that moment are named then.
    """

    def __init__(self, folder: Path, *, together: bool) -> None:
        self._folder = folder
        self._together = together
        self._marks: Marks | None = None
        self._known: tuple[float, float, tuple[Mark, ...]] = _NOTHING

    def of(self, at: float, position: int, after: float, running: Sequence[Mark] = ()) -> tuple[Mark, ...]:
        """Who ran when output that ends at ``position`` of the log was written, which was read at ``at``; ``after`` is
        when output was read before that. ``running`` is what the container has now, in order of its turn."""
        low, high, found = self._known
        if low < at <= high:
            return found
        if self._marks is None:
            self._marks = Marks(self._folder)
        if self._together:
            return self._all_at(self._marks, at, running)
        return self._one_at(self._marks, at, position, after, running)

    def close(self) -> None:
        """Let go of the files; may be used again."""
        self._known = _NOTHING
        if self._marks is not None:
            self._marks.close()
            self._marks = None

    def _one_at(
        self, marks: Marks, at: float, position: int, after: float, running: Sequence[Mark]
    ) -> tuple[Mark, ...]:
        number = marks.first_until(at)
        before = marks[number - 1] if number else None
        if before is not None and not before.offset and after <= before.ended and at - before.ended <= _LATER:
            return (before,)  # something of it was in the pipe when it had ended, and this was read first
        mark = marks[number] if number < marks.count else running[0] if running else None
        if mark is None:
            return (before,) if before is not None and _is_rest(before, at, position, math.inf) else ()
        ended = before.ended if before is not None else 0.0
        # Inputs of one frame ran one after the other, and nobody knows when they paused.
        began = mark.began if mark.stop - mark.start == 1 else min(mark.began, max(ended, mark.began - _LATER))
        if at < began:
            if before is not None and _is_rest(before, at, position, began):
                return (before,)
            return (mark,) if at >= began - LATE else ()
        self._known = (max(began, ended, at), mark.ended, (mark,))
        return (mark,)

    def _all_at(self, marks: Marks, at: float, running: Sequence[Mark]) -> tuple[Mark, ...]:
        number = marks.first_until(at - _AROUND)
        until = min(marks.count, number + _LOOKED_AT)
        found = [mark for mark in (marks[one] for one in range(number, until)) if mark.began - _AROUND <= at]
        found += [mark for mark in running if mark.began - _AROUND <= at]
        return tuple(found)


def _is_rest(before: Mark, at: float, position: int, began: float) -> bool:
    """Whether output that was read before the next input ``began`` is what the one before left in its pipe."""
    if before.offset:
        return position <= before.offset
    return at - before.ended <= min(_LATER, began - at)
