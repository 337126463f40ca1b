"""Measurements over time, on disk: fixed records, appended, so that a server that is killed loses none that it wrote.

One pair of files an hour: ``<hour>.fine`` has every measurement (about one in ten seconds of each container, machine
and GPU), ``<hour>.ids`` the names that its records stand for by number. After a day an hour is folded into
``<hour>.minutes``, where each record has the mean of a minute and the most in it; after a week it goes. ``most`` bytes
in all: what is beyond them goes from the oldest on. Blocking; reading is for threads, writing is one system call.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

#: What a record holds, in this order; new ones go to the end, and readers of old files find them unknown.
FIELDS = (
    "cpu",
    "memory_bytes",
    "memory_peak_bytes",
    "pids",
    "net_rx",
    "net_tx",
    "disk_read",
    "disk_write",
    "gpu_utilization",
    "gpu_memory_bytes",
    "gpu_power_watts",
    "gpu_temperature",
)
FINE_KEPT = 86400.0
KEPT = 7 * 86400.0
MOST = 1 << 30
_HOUR = 3600
_MINUTE = 60.0
_PAUSE = 0.003  # seconds for others now and then: the interpreter is the server's, too
_BREATH = 50  # minutes that are put together between two of those
_PLACES = 14  # values in a record: FIELDS, and room for two more
_RECORD = struct.Struct(f"<dI4x{_PLACES}f")
_FOLDED = struct.Struct(f"<dI4x{_PLACES}f{_PLACES}f")
_WHOSE, _FOLDED_WHOSE = (struct.Struct(f"<8xI{one.size - 12}x") for one in (_RECORD, _FOLDED))
_UNKNOWN = (math.nan,) * _PLACES
Values = dict[str, float]
#: Unix time, means by field, the most by field.
Point = tuple[float, Sequence[float], Sequence[float]]


class Series:
    """The files of one server."""

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self._folder = folder
        self._most = most
        self._hour = -1
        self._file = -1
        self._ids = -1
        self._numbers: dict[str, int] = {}

    def add(self, name: str, at: float, values: Values) -> None:
        """Keep a measurement. Raises OSError when the disk takes no more."""
        hour = int(at // _HOUR)
        if hour != self._hour:
            self._open(hour)
        number = self._numbers.get(name)
        if number is None:
            number = len(self._numbers)
            os.write(self._ids, f"{name}\n".encode())
            self._numbers[name] = number
        os.write(self._file, record(at, number, values))

    def read(self, names: Collection[str], since: float, until: float) -> dict[str, list[Point]]:
        """All that is kept of these between two moments, oldest first."""
        found: dict[str, list[Point]] = {}
        for hour in range(int(since // _HOUR), int(until // _HOUR) + 1):
            numbers = self._named(hour)
            wanted = {number: name for number, name in enumerate(numbers) if name in names}
            if not wanted:
                continue
            time.sleep(_PAUSE)
            for at, number, means, most in self._records(hour, wanted):
                if since <= at <= until:
                    found.setdefault(wanted[number], []).append((at, means, most))
        return found

    def sweep(self, now: float) -> None:
        """Fold hours that are a day old, drop those that are a week old, and the oldest while there are too many."""
        for hour in self._hours():
            if hour < (now - KEPT) // _HOUR:
                self._drop(hour)
            elif hour < (now - FINE_KEPT) // _HOUR:
                self._fold(hour)
        sizes = {hour: self._size(hour) for hour in self._hours()}
        for hour in sorted(sizes):
            if sum(sizes.values()) <= self._most or hour == self._hour:
                break
            self._drop(hour)
            del sizes[hour]

    def size(self) -> int:
        """Bytes that all of it takes."""
        return sum(self._size(hour) for hour in self._hours())

    def close(self) -> None:
        """Let go of the files."""
        for one in (self._file, self._ids):
            if one >= 0:
                os.close(one)
        self._file = self._ids = self._hour = -1

    def _open(self, hour: int) -> None:
        self.close()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path(hour, "fine"), flags, 0o600)
        self._ids = os.open(self._path(hour, "ids"), flags, 0o600)
        _cut_to(self._file, _RECORD.size)  # a record that a full disk took half of
        text = os.pread(self._ids, os.fstat(self._ids).st_size, 0)
        whole = text[: text.rfind(b"\n") + 1]
        os.ftruncate(self._ids, len(whole))
        self._numbers = {name.decode(): number for number, name in enumerate(whole.splitlines())}
        self._hour = hour

    def _named(self, hour: int) -> list[str]:
        try:
            return self._path(hour, "ids").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    def _records(
        self, hour: int, wanted: Collection[int]
    ) -> Iterator[tuple[float, int, Sequence[float], Sequence[float]]]:
        # Which record is whose is looked at first: an hour of a hundred containers is mostly of others.
        data = _bytes_of(self._path(hour, "minutes"))
        for (number,), place in zip(_FOLDED_WHOSE.iter_unpack(_whole(data, _FOLDED.size)), count(0, _FOLDED.size)):
            if number in wanted:
                at, _, *values = _FOLDED.unpack_from(data, place)
                yield at, number, values[:_PLACES], values[_PLACES:]
        data = _bytes_of(self._path(hour, "fine"))
        for (number,), place in zip(_WHOSE.iter_unpack(_whole(data, _RECORD.size)), count(0, _RECORD.size)):
            if number in wanted:
                at, _, *values = _RECORD.unpack_from(data, place)
                yield at, number, values, values

    def _fold(self, hour: int) -> None:
        """Minutes instead of seconds. Killed in between, it is done again: the fine file goes last."""
        fine = self._path(hour, "fine")
        if not fine.exists():
            return
        minutes: dict[tuple[int, int], list[Sequence[float]]] = {}
        data = _bytes_of(fine)
        for at, number, *values in _RECORD.iter_unpack(_whole(data, _RECORD.size)):
            minutes.setdefault((int(at // _MINUTE), number), []).append(values)
        new = self._path(hour, "minutes.new")
        with new.open("wb") as file:
            for place, ((minute, number), rows) in enumerate(sorted(minutes.items())):
                if place % _BREATH == 0:
                    time.sleep(_PAUSE)
                file.write(_FOLDED.pack(minute * _MINUTE + _MINUTE / 2, number, *means(rows), *highest(rows)))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path(hour, "minutes"))
        fine.unlink()

    def _drop(self, hour: int) -> None:
        for kind in ("fine", "minutes", "minutes.new", "ids"):
            with contextlib.suppress(FileNotFoundError):
                self._path(hour, kind).unlink()

    def _hours(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return sorted({int(path.name.split(".")[0]) for path in self._folder.iterdir() if path.name[:1].isdigit()})

    def _size(self, hour: int) -> int:
        size = 0
        for kind in ("fine", "minutes", "ids"):
            with contextlib.suppress(OSError):
                size += self._path(hour, kind).stat().st_size
        return size

    def _path(self, hour: int, kind: str) -> Path:
        return self._folder / f"{hour}.{kind}"


def record(at: float, number: int, values: Values) -> bytes:
    """A measurement as it is on disk. What is not known is no number."""
    row = [values.get(name, math.nan) for name in FIELDS]
    return _RECORD.pack(at, number, *row, *_UNKNOWN[len(row) :])


def means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Column by column, of what is known."""
    return [_mean(column) for column in zip(*rows, strict=True)]


def highest(rows: Sequence[Sequence[float]]) -> list[float]:
    """The most of each column, of what is known."""
    return [max((one for one in column if not math.isnan(one)), default=math.nan) for column in zip(*rows, strict=True)]


def in_buckets(points: Iterable[Point], since: float, step: float, count: int) -> dict[str, list[list[float | None]]]:
    """Points in ``count`` steps from ``since`` on: by field the means, and the most. Pure."""
    rows: list[list[Sequence[float]]] = [[] for _ in range(count)]
    tops: list[list[Sequence[float]]] = [[] for _ in range(count)]
    for at, mean, most in points:
        place = min(count - 1, int((at - since) / step))
        if place >= 0:
            rows[place].append(mean)
            tops[place].append(most)
    found: dict[str, list[list[float | None]]] = {}
    averages = [means(one) if one else _UNKNOWN for one in rows]
    maxima = [highest(one) if one else _UNKNOWN for one in tops]
    for index, name in enumerate(FIELDS):
        mean_column = [_or_none(one[index]) for one in averages]
        if any(one is not None for one in mean_column):
            found[name] = [mean_column, [_or_none(one[index]) for one in maxima]]
    return found


def _mean(values: Sequence[float]) -> float:
    known = [one for one in values if not math.isnan(one)]
    return sum(known) / len(known) if known else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _whole(data: bytes, size: int) -> memoryview:
    """Without what a full disk took half of."""
    return memoryview(data)[: len(data) // size * size]


def _cut_to(descriptor: int, size: int) -> None:
    there = os.fstat(descriptor).st_size
    if there % size:
        os.ftruncate(descriptor, there - there % size)
