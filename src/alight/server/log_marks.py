"""Whose output a log is: notes of which inputs ran when, beside the log, and what follows from them (decision 0022).

One note per frame of answers whose container may have printed since the one before: when its inputs ran, and where the
log ended when they had, if anybody knows. A line belongs to what ran when it was read from its container's pipe.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from alight.server.log_segments import path_of, segments_of

_FORM = struct.Struct("!ddQQQI31s")  # began, ended, log offset, first and last position, attempt, call
#: Seconds in which output is read from its pipe after it was written; what is later goes to the next input.
LATE = 0.003
_LATER = 0.25  # seconds after an input's end in which output still counts as its own, when no other one runs
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

    def of(self, at: float, position: int, running: Sequence[Mark] = ()) -> tuple[Mark, ...]:
        """Who ran when output that ends at ``position`` of the log was read, at ``at``. ``running`` is what the
        container has now, in order of its turn."""
        low, high, found = self._known
        if low < at <= high:
            return found
        if self._marks is None:
            self._marks = Marks(self._folder)
        if self._together:
            return self._all_at(self._marks, at, running)
        return self._one_at(self._marks, at, position, running)

    def close(self) -> None:
        """Let go of the files; may be used again."""
        self._known = _NOTHING
        if self._marks is not None:
            self._marks.close()
            self._marks = None

    def _one_at(self, marks: Marks, at: float, position: int, running: Sequence[Mark]) -> tuple[Mark, ...]:
        number = marks.first_until(at - LATE)
        while number < marks.count and (ended := marks[number]).ended < at and 0 < ended.offset < position:
            number += 1  # it was over, and this was printed after that
        before = marks[number - 1] if number else None
        if number < marks.count:
            mark = marks[number]
        elif running:
            mark = running[0]
        else:
            return (before,) if before is not None and _is_rest(before, at, position) else ()
        follows = before.ended + LATE if before is not None else 0.0
        # Inputs of one frame ran one after the other, and nobody knows when they paused.
        began = mark.began if mark.stop - mark.start == 1 else min(mark.began, max(follows, mark.began - _LATER))
        if at < began - LATE:
            return (before,) if before is not None and _is_rest(before, at, position) else ()
        self._known = (max(began - LATE, follows), mark.ended, (mark,))
        return (mark,)

    def _all_at(self, marks: Marks, at: float, running: Sequence[Mark]) -> tuple[Mark, ...]:
        number = marks.first_until(at - LATE)
        until = min(marks.count, number + _LOOKED_AT)
        found = [mark for mark in (marks[one] for one in range(number, until)) if mark.began - LATE <= at]
        found += [mark for mark in running if mark.began - LATE <= at]
        return tuple(found)


def _is_rest(before: Mark, at: float, position: int) -> bool:
    """Whether output between two inputs is what the first one left in its pipe."""
    return position <= before.offset or at <= before.ended + _LATER
