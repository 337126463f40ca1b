"""The server's own log: one JSON object per line on stderr, which whoever started it points at ``log/server.log``.

That file is rotated from inside, 10 MB five times: the descriptor is moved to a fresh file, so that even what Python
itself prints goes there.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

_BYTES = 10_000_000
_KEPT = 5


class Journal(logging.Handler):
    """Writes records to descriptor 2; rotates ``path`` when that is what descriptor 2 is."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        plain = {"t": round(record.created, 3), "level": record.levelname.lower(), "at": record.name}
        plain["msg"] = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            plain["trace"] = logging.Formatter().formatException(record.exc_info)
        try:
            os.write(2, (json.dumps(plain, ensure_ascii=False) + "\n").encode(errors="replace"))
            self._rotate()
        except OSError:
            return  # a full disk must not stop the server; what it says is lost

    def _rotate(self) -> None:
        ours = os.fstat(2)
        if ours.st_size < _BYTES or not self._path.exists():
            return
        there = self._path.stat()
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            return
        for number in range(_KEPT - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        fresh = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(fresh, 2)
        os.close(fresh)


def install(path: Path, level: int = logging.INFO) -> None:
    """Send all of this process's log records to stderr as lines of JSON."""
    root = logging.getLogger()
    root.handlers[:] = [Journal(path)]
    root.setLevel(level)
    sys.excepthook = _unexpected


def _unexpected(kind: type[BaseException], error: BaseException, trace: object) -> None:
    logging.getLogger("alight").critical("ended by %s", kind.__name__, exc_info=error)
