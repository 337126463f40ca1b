"""Moments as people type them: "2h 30m" ago, an ISO date and time, a time of today, yesterday."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

#: What may be written, for who wrote something else.
HINT = "write 2h 30m for so long ago, 14:30 for today, yesterday, or 2026-01-31T14:30"
_AGO = re.compile(
    r"\s*(?:(\d+) ?d(?:ays?)?)?\s*(?:(\d+) ?h(?:ours?)?)?\s*(?:(\d+) ?m(?:in(?:ute)?s?)?)?\s*"
    r"(?:(\d+) ?s(?:ec(?:ond)?s?)?)?\s*(?:ago)?\s*"
)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?")
_UNIX = re.compile(r"\d{9,11}(?:\.\d+)?")


def read(text: str, now: float) -> Optional[float]:
    """Unix seconds of "1d 2h 30m 10s" ago, of a time of the day (the last one that there was), of "now", of the
    midnight that "today" or "yesterday" began with, of an ISO moment (in local time unless it says another), or of unix
    seconds. None for what is none of these."""
    words = text.strip().lower()
    ago = _AGO.fullmatch(words)
    if ago and any(ago.groups()):
        days, hours, minutes, seconds = (int(part or 0) for part in ago.groups())
        return max(0.0, now - (days * 86400 + hours * 3600 + minutes * 60 + seconds))
    if _UNIX.fullmatch(words):
        return float(words)
    here = datetime.fromtimestamp(now, timezone.utc).astimezone().replace(tzinfo=None)
    midnight = here.replace(hour=0, minute=0, second=0, microsecond=0)
    known = {"now": here, "today": midnight, "yesterday": midnight - timedelta(days=1)}
    try:
        if words in known:
            return known[words].timestamp()
        if _CLOCK.fullmatch(words):
            found = datetime.fromisoformat(f"{here:%Y-%m-%d}T{words if words[2] == ':' else '0' + words}")
            return (found if found <= here else found - timedelta(days=1)).timestamp()
        return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip())).timestamp()
    except (ValueError, OverflowError):
        return None
