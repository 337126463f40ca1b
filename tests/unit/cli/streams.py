"""Streams that say whether they are terminals and keep what was written, text and bytes in one order."""

from __future__ import annotations

import io


class Kept(io.TextIOWrapper):
    """A text stream over memory."""

    def __init__(self, *, tty: bool) -> None:
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding="utf-8", write_through=True, newline="")
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    @property
    def written(self) -> bytes:
        return self.raw_bytes.getvalue()
