"""Moments as people type them: "2h 30m" ago, or an ISO date and time."""

from __future__ import annotations

import re
from datetime import datetime

from alight.cli.errors import UsageError


def parse_when(text: str, now: float) -> float:
    """Unix seconds of an ISO moment (in local time unless it says another), or of "1d 2h 30m 10s" ago. Raises
    UsageError."""
    ago = re.fullmatch(r"\s*(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+)s)?\s*", text)
    if ago and any(ago.groups()):
        days, hours, minutes, seconds = (int(part or 0) for part in ago.groups())
        return max(0.0, now - (days * 86400 + hours * 3600 + minutes * 60 + seconds))
    try:
        return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip())).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no moment", hint="write 2026-01-31T12:00, or 2h 30m for so long ago") from None
