"""From logs on disk to lines in order of time: cut into lines, filtered, merged over containers. Pure but for reading.

Whatever is asked, memory holds one block of each log that is read at the moment, and a log is opened only when the
merge has come to its time. Lines of one container keep the order in which they were written.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from alight.server.log_segments import SYSTEM, Block, LogFile, Record
from alight.wire import errors
from alight.wire.logs import STDERR, STDOUT, LogPieces
from alight.wire.logs import SYSTEM as SYSTEM_SOURCE

SOURCE_OF = {1: STDOUT, 2: STDERR, SYSTEM: SYSTEM_SOURCE}
LONGEST = 64 << 10  # bytes of an unfinished line that are held back
_LISTED = 64  # logs whose places are in a cursor


@dataclass(slots=True)
class Bit:
    """Lines of one stream that were written together, or the part of a line that there is. ``key`` orders them: the
    time ``at`` when they were read from their container, or the latest before, should its clock have gone back.

    ``start`` and ``end`` are their place in the log ``name``. The rest is for whoever knows whose they are.
    """

    key: float
    name: str
    at: float
    fd: int
    data: bytes
    start: int
    end: int
    after: float = 0.0  # when the log was written to last before this
    container: str = ""
    function: str = ""
    call: str = ""
    input: int = -1
    inputs: int = 1

    @property
    def lines(self) -> int:
        """How many lines, an unfinished one included."""
        return self.data.count(b"\n") + (not self.data.endswith(b"\n"))


class Assembler:
    """Records of one log in, whole lines of its streams out."""

    def __init__(self, name: str, places: dict[int, int]) -> None:
        self._name = name
        self._places = places
        self._held: dict[int, Bit] = {}

    def feed(self, record: Record, key: float, after: float) -> Bit | None:
        """The lines that this record completes. ``after``: the key of the record before it, of either stream."""
        data, start = record.data, record.end - len(record.data)
        skip = self._places.get(record.fd, 0) - start
        if skip > 0:
            data, start = data[skip:], start + skip
        if not data:
            return None
        held = self._held.pop(record.fd, None)
        if held is not None:
            data, start = held.data + data, held.start
        if record.fd == SYSTEM:
            return Bit(key, self._name, record.at, record.fd, data, start, record.end, after)
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) < LONGEST:
            self._held[record.fd] = Bit(key, self._name, record.at, record.fd, data, start, record.end, after)
            return None
        cut = cut or len(data)
        end = record.end - (len(data) - cut)
        if cut < len(data):
            self._held[record.fd] = Bit(key, self._name, record.at, record.fd, data[cut:], end, record.end, after)
        return Bit(key, self._name, record.at, record.fd, data[:cut], start, end, after)

    def rest(self) -> list[Bit]:
        """The lines that are not finished."""
        return [self._held[fd] for fd in sorted(self._held)]


class Reader:
    """Reads one log. ``places``: up to where each stream was read, by ``forward``. ``limit``: from where on it is not
    read yet, though it be there."""

    def __init__(self, name: str, file: LogFile) -> None:
        self.name = name
        self.limit = math.inf
        self._file = file
        self.places: dict[int, int] = {}

    def forward(self, since: float = 0.0, until: float = 0.0, *, unfinished: bool = True) -> Iterator[Bit]:
        """What lies behind ``places`` and between the moments (0: no end), in order. Lines that are not finished come
        too, unless they are to wait for their end."""
        blocks = self._file.blocks()
        low = min(self.places.values(), default=0)
        assembler = Assembler(self.name, dict(self.places))
        for number, block in enumerate(blocks):
            if block.stop <= low or (number + 1 < len(blocks) and blocks[number + 1].key < since):
                continue
            if until and block.key > until:
                break
            key = block.key
            for record in self._records(block):
                after, key = key, max(key, record.at)
                bit = assembler.feed(record, key, after)
                if bit is not None:
                    self.places[bit.fd] = bit.end
                    if key >= since and not (until and key > until):
                        yield bit
        for bit in assembler.rest():
            if unfinished:
                self.places[bit.fd] = bit.end
                if bit.key >= since and not (until and bit.key > until):
                    yield bit

    def backward(self, since: float = 0.0, until: float = 0.0) -> Iterator[Bit]:
        """The same from the end on, without regard to ``places``, which it leaves at the end."""
        heads: dict[int, Bit] = {}  # of each stream the first line of what was read: more of it may lie before
        self.places = {1: 0, 2: 0, SYSTEM: 0}
        for number, block in enumerate(reversed(self._file.blocks())):
            if number and until and block.key > until:
                continue
            bits, firsts, last = self._lines_of(block, heads)
            if not number:
                self.places = {1: last, 2: last, SYSTEM: last}
            heads.update(firsts)
            bits.sort(key=lambda bit: (bit.key, bit.end), reverse=True)
            yield from (bit for bit in bits if bit.key >= since and not (until and bit.key > until))
            if block.key < since:
                break
        left = sorted(heads.values(), key=lambda bit: (bit.key, bit.end), reverse=True)
        yield from (bit for bit in left if bit.key >= since and not (until and bit.key > until))

    def skip(self) -> None:
        """Begin at the end of what there is."""
        last = 0
        for block in self._file.blocks()[-1:]:
            last = max((record.end for record in self._records(block)), default=block.start)
        self.places = {1: last, 2: last, SYSTEM: last}

    def _records(self, block: Block) -> Iterator[Record]:
        return takewhile(lambda record: record.end <= self.limit, self._file.records(block))

    def _lines_of(self, block: Block, heads: dict[int, Bit]) -> tuple[list[Bit], dict[int, Bit], int]:
        """The lines of a block, with those of ``heads`` that begin in it; the first of each stream apart."""
        assembler = Assembler(self.name, {})
        bits: list[Bit] = []
        firsts: dict[int, Bit] = {}
        key, last = block.key, block.start
        for record in self._records(block):
            after, key, last = key, max(key, record.at), record.end
            bit = assembler.feed(record, key, after)
            if bit is not None and (bit.fd == SYSTEM or bit.fd in firsts):
                bits.append(bit)
            elif bit is not None:
                firsts[bit.fd], rest = _split(bit)
                bits += rest
        for held in assembler.rest():
            head = heads.pop(held.fd, None)
            whole = _joined(held, head)
            if held.fd in firsts or len(whole.data) >= LONGEST:
                bits.append(whole)
            else:
                firsts[held.fd] = whole
        for fd in [fd for fd in heads if fd in firsts]:
            bits.append(heads.pop(fd))
        return bits, firsts, last


def merged(
    sources: Iterable[tuple[float, Callable[[], Iterator[Bit]]]], *, newest_first: bool = False
) -> Iterator[Bit]:
    """Many logs as one, in order of time. Each comes with a moment before which (``newest_first``: after which) it has
    nothing, and is opened when that moment has come."""
    sign = -1.0 if newest_first else 1.0
    waiting = deque(sorted(((sign * bound, number, begin) for number, (bound, begin) in enumerate(sources))))
    heap: list[tuple[float, int, Bit, Iterator[Bit]]] = []
    while waiting or heap:
        while waiting and (not heap or waiting[0][0] <= heap[0][0]):
            _, number, begin = waiting.popleft()
            bits = begin()
            first = next(bits, None)
            if first is not None:
                heapq.heappush(heap, (sign * first.key, number, first, bits))
        if heap:
            _, number, bit, bits = heap[0]
            yield bit
            following = next(bits, None)
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (sign * following.key, number, following, bits))


def last_lines(newest_first: Iterable[Bit], count: int) -> list[Bit]:
    """The last so many lines, the oldest first."""
    found: list[Bit] = []
    left = count
    for bit in newest_first if count > 0 else ():
        if bit.lines > left:
            lines = _cut(bit.data)
            bit.data = b"".join(lines[-left:])
        left -= bit.lines
        found.append(bit)
        if left <= 0:
            break
    found.sort(key=lambda bit: (bit.key, bit.name, bit.end))
    return found


def holding(bit: Bit, needle: bytes) -> Bit | None:
    """What of it are lines that hold ``needle``, which is in lower case."""
    if needle not in bit.data.lower():
        return None
    bit.data = b"".join(line for line in _cut(bit.data) if needle in line.lower())
    return bit if bit.data else None


@dataclass
class Cursor:
    """How far an answer has come, in one line of text.

    All that was written before ``moment`` was sent, except by the logs of ``places``, whose streams were sent up to
    these places. Containers whose output comes later than its time are among those while they are alive.
    """

    moment: float = 0.0
    places: dict[str, dict[int, int]] = field(default_factory=dict)
    _keys: dict[str, float] = field(default_factory=dict)

    def passed(self, bit: Bit, *, following: bool = False) -> None:
        """This was sent. ``following``: in order of its coming, no more in order of time."""
        self.places.setdefault(bit.name, {})[bit.fd] = bit.end
        self._keys[bit.name] = bit.key
        if not following:
            self.moment = max(self.moment, bit.key)

    def text(self, alive: Callable[[str], bool]) -> str:
        """The cursor. Forgets what it need not say."""
        for name in [name for name, key in self._keys.items() if key < self.moment and not alive(name)]:
            del self._keys[name], self.places[name]
        if len(self.places) > _LISTED:
            newest = sorted(self._keys.items(), key=lambda pair: pair[1])[-_LISTED:]
            self._keys = dict(newest)
            self.places = {name: self.places[name] for name, _ in newest}
            self.moment = max(self.moment, min(self._keys.values()))
        words = [repr(self.moment)]
        words += [
            ":".join([name, *(f"{fd}.{place}" for fd, place in sorted(places.items()))])
            for name, places in sorted(self.places.items())
        ]
        return "~".join(words)

    @staticmethod
    def parse(text: str) -> Cursor:
        """Raises InvalidError."""
        try:
            moment, *words = text.split("~")
            cursor = Cursor(float(moment))
            for word in words:
                name, *places = word.split(":")
                pairs = (one.split(".") for one in places)
                cursor.places[name] = {int(fd): int(place) for fd, place in pairs}
                cursor._keys[name] = cursor.moment
        except ValueError:
            raise errors.InvalidError(
                f"{text[:80]!r} is no place in a log", hint="leave it out, or send the last event's id as it came"
            ) from None
        return cursor


def events(message: LogPieces, body: bytes, names: dict[str, str]) -> list[dict[str, object]]:
    """One message as plain records for JSON. ``names`` are the functions' by id; it is filled in as they come up."""
    names.update(message.functions)
    return [
        {
            "at": piece.at,
            "container_id": piece.container,
            "function_id": piece.function,
            "function": names.get(piece.function, ""),
            "call_id": piece.call,
            "input": piece.input,
            "inputs": piece.inputs,
            "source": piece.source,
            "text": data.decode(errors="replace"),
        }
        for piece, data in message.cut(body)
    ]


def _split(bit: Bit) -> tuple[Bit, list[Bit]]:
    """The first line, and the rest if there is any."""
    cut = bit.data.find(b"\n") + 1
    if not cut or cut == len(bit.data):
        return bit, []
    # Records that a line is put together from lie apart, so that only the end of the whole is a place of the log.
    middle = max(bit.start, bit.end - (len(bit.data) - cut))
    first = Bit(bit.key, bit.name, bit.at, bit.fd, bit.data[:cut], bit.start, middle, bit.after)
    return first, [Bit(bit.key, bit.name, bit.at, bit.fd, bit.data[cut:], middle, bit.end, bit.after)]


def _joined(held: Bit, head: Bit | None) -> Bit:
    if head is None:
        return held
    return Bit(head.key, held.name, head.at, held.fd, held.data + head.data, held.start, head.end, head.after)


def _cut(data: bytes) -> list[bytes]:
    """Lines end with line feeds and nothing else: a carriage return is part of a line that redraws itself."""
    lines = data.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
