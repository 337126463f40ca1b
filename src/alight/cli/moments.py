"""Moments on the command line."""

from __future__ import annotations

from alight.cli.errors import UsageError
from alight.wire import moments


def parse_when(text: str, now: float) -> float:
    """Unix seconds of what ``wire.moments`` reads. Raises UsageError."""
    found = moments.read(text, now)
    if found is None:
        raise UsageError(f"{text!r} is no moment", hint=moments.HINT)
    return found
