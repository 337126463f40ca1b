"""One question about logs: the way through what was kept, and then through what comes.

Everything here may run in a thread: it reads files, and what the event loop put in place for it before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from alight.server.log_marks import Mark, Whose
from alight.server.log_query import SOURCE_OF, Bit, Cursor, Reader, holding, last_lines, merged
from alight.server.log_segments import SYSTEM, LogFile
from alight.server.logs import Logs
from alight.server.services import system_log
from alight.server.services.log_scope import Scope, Source
from alight.wire import logs as wire
from alight.wire.logs import LogPiece, LogQuery

_MESSAGE = 128 << 10  # bytes of lines in one message
_PIECES = 500  # in one message
_LATE = 5.0  # seconds that output is on its way
_OPEN = 32  # logs whose notes are open at a time


class Look:
    """One question: its logs, the way through them, and what was sent."""

    def __init__(self, logs: Logs, scope: Scope, asked: LogQuery, cursor: Cursor, began: float) -> None:
        self._logs = logs
        self._open: OrderedDict[str, Whose] = OrderedDict()
        self._asked = asked
        self._needle = asked.search.lower().encode()
        self._began = began
        self._named: set[str] = set()
        self.scope = scope
        self.cursor = cursor
        self.readers: dict[str, Tagged] = {}
        self.running: dict[str, list[Mark]] = {}  # what the containers have at the moment
        self.stopped = 0.0  # on the monotonic clock, when it was seen that the app has
        self._from = cursor.moment
        self._places = {name: dict(places) for name, places in cursor.places.items()}

    def history(self, tail: int) -> Iterator[Bit]:
        """What is kept: all of it, or the last lines. With ``tail`` 0 nothing, and what comes begins here."""
        sources = [(source.begins, source.ends, self.open(source)) for source in self.scope.sources]
        if self._asked.source in ("", wire.SYSTEM):
            sources.append((0.0, 1e12, self.open_words()))
        since, until = self.scope.since, min(self.scope.until, 1e12)
        if tail >= 0:
            for _, _, reader in sources:
                reader.late = self._began - _LATE  # of a log that the tail does not come to
            if not tail:
                return self._nothing([reader for _, end, reader in sources if end > self._began])
            back = merged([(end, partial(one.backward, since, until)) for _, end, one in sources], newest_first=True)
            return chain.from_iterable([last_lines(back, tail)])
        return merged([(begin, partial(self._forward, one, since, until)) for begin, _, one in sources])

    def more(self, readers: list[Tagged]) -> Iterator[Bit]:
        """What these have more than was read."""
        late, whole = max(self.scope.since, self._from), not self._needle
        return merged([(0.0, partial(one.forward, max(one.late, late), self.scope.until, whole)) for one in readers])

    def take(self, bits: Iterator[Bit], *, following: bool) -> tuple[list[LogPiece], bytes]:
        """Some of them, as they are sent; nothing at their end."""
        pieces: list[LogPiece] = []
        parts: list[bytes] = []
        size = 0
        for bit in bits:
            self.cursor.passed(bit, following=following)
            parts.append(bit.data)
            size += len(bit.data)
            source = SOURCE_OF.get(bit.fd, wire.STDERR)
            piece = LogPiece(
                bit.at, bit.container, source, len(bit.data), bit.function, bit.call, bit.input, bit.inputs
            )
            pieces.append(piece)
            if size >= _MESSAGE or len(pieces) >= _PIECES:
                break
        else:
            self.close()
        return pieces, b"".join(parts)

    def new_names(self, pieces: list[LogPiece]) -> tuple[tuple[str, str], ...]:
        """Names of functions that the reader has not heard."""
        new = {piece.function for piece in pieces} - self._named - {""}
        self._named |= new
        return tuple((one, self.scope.functions.get(one, one).removesuffix(".*")) for one in sorted(new))

    def open(self, source: Source) -> Tagged:
        """The reader of a container's log."""
        folder = self._logs.folder_of(source.container_id)
        whose = Whose(folder, together=source.together)
        reader = Tagged(source.container_id, LogFile(folder), self._keep, source, whose)
        self.readers[source.container_id] = reader
        return reader

    def open_words(self) -> Tagged:
        """The reader of what Alight itself says."""
        name = self.scope.app_id
        self.readers[name] = reader = Tagged(name, LogFile(self._logs.folder_of(name)), self._keep, None, None)
        return reader

    def close(self) -> None:
        """Close all files; they are opened again when they are needed."""
        while self._open:
            self._open.popitem()[1].close()

    def _nothing(self, readers: list[Tagged]) -> Iterator[Bit]:
        for reader in readers:
            reader.skip()
        self.cursor.moment = max(self.cursor.moment, self._began)
        yield from ()

    def _forward(self, reader: Tagged, since: float, until: float) -> Iterator[Bit]:
        """From where the cursor says, if there is one."""
        places = self._places.get(reader.name)
        if places is not None:
            reader.places = dict(places)
            return reader.forward(since, until, not self._needle)
        reader.late = max(since, self._from)
        return reader.forward(reader.late, until, not self._needle)

    def _keep(self, bit: Bit, reader: Tagged) -> Bit | None:
        """The bit with whose it is, if it was asked for."""
        asked, scope = self._asked, self.scope
        if asked.source and SOURCE_OF.get(bit.fd) != asked.source:
            return None
        if bit.fd == SYSTEM:
            said = system_log.read(bit.data)
            if not scope.wants_words(said):
                return None
            bit.data = str(said.get("text", "")).encode(errors="replace") + b"\n"
            bit.container, bit.call = str(said.get("container", "")), str(said.get("call", ""))
            bit.function = _id_of(str(said.get("function", "")), scope.functions)
        elif reader.source is not None and reader.whose is not None:
            bit.container, bit.function = reader.name, reader.source.function_id
            if reader.name not in self._open:
                if len(self._open) >= _OPEN:
                    self._open.popitem(last=False)[1].close()
                self._open[reader.name] = reader.whose
            ran = reader.whose.of(bit.at, bit.end, bit.after, self.running.get(reader.name, ()))
            if scope.call and not any(one.call == scope.call for one in ran):
                return None
            if ran and all(one.call == ran[0].call for one in ran):
                bit.call = ran[0].call
                bit.input = ran[0].start if len(ran) == 1 else min(one.start for one in ran)
                bit.inputs = max(one.stop for one in ran) - bit.input
        return holding(bit, self._needle) if self._needle else bit


class Tagged:
    """The reader of one log, which says of each line whose it is and leaves out what was not asked for."""

    def __init__(
        self,
        name: str,
        file: LogFile,
        keep: Callable[[Bit, Tagged], Bit | None],
        source: Source | None,
        whose: Whose | None,
    ) -> None:
        self.name = name
        self.source = source
        self.whose = whose
        self.late = 0.0  # where nothing was read yet, what is older is left out
        self._keep = keep
        self._reader = Reader(name, file)
        self._file = file

    @property
    def places(self) -> dict[int, int]:
        """See ``Reader``."""
        return self._reader.places

    @places.setter
    def places(self, places: dict[int, int]) -> None:
        self._reader.places = places

    def read_until(self, limit: float) -> None:
        """What lies behind this comes another time."""
        self._reader.limit = limit

    def forward(self, since: float, until: float, unfinished: bool = True) -> Iterator[Bit]:
        """See ``Reader``."""
        if self.places:
            since = 0.0
        return self._kept(self._reader.forward(since, until, unfinished=unfinished))

    def backward(self, since: float, until: float) -> Iterator[Bit]:
        """See ``Reader``."""
        return self._kept(self._reader.backward(since, until))

    def skip(self) -> None:
        """Begin at the end."""
        self._reader.skip()

    def _kept(self, bits: Iterator[Bit]) -> Iterator[Bit]:
        for bit in bits:
            kept = self._keep(bit, self)
            if kept is not None:
                yield kept


def _id_of(name: str, functions: dict[str, str]) -> str:
    if name in functions or not name:
        return name
    return next((one for one, shown in functions.items() if shown == name), "")
