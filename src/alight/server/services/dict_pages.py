"""Which entries of a dict go into one message. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alight.wire.shared import PAGE_BYTES, PAGE_VALUES


def last_of_page(rows: Sequence[Mapping[str, Any]], *, keys: bool, values: bool) -> int:
    """The last entry that goes into the next message: as many as fit, at least one."""
    size = 0
    last = int(rows[0]["entry"])
    for row in rows[:PAGE_VALUES]:
        size += (row["key_size"] if keys else 0) + (row["value_size"] if values else 0)
        if size > PAGE_BYTES and row is not rows[0]:
            break
        last = int(row["entry"])
    return last


def cut(sizes: Sequence[int], body: bytes) -> list[bytes]:
    """A body in its pieces."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(body[at : at + size])
        at += size
    return pieces
