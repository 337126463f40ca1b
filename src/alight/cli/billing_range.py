"""Which time a report is about: words, days and moments, in a time zone. Pure."""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Optional, Tuple

from alight.cli.errors import UsageError

_NAMED = "today, yesterday, this week, last week, this month, last month, a month (2026-01), or 7 days"
_MONTH = re.compile(r"(\d{4})-(\d{1,2})")
_DAYS = re.compile(r"(?:last )?(\d{1,3}) ?d(?:ays?)?")


def zone(name: str) -> Tuple[str, tzinfo]:
    """A time zone's name, as a server knows it, and the zone. "local" is this machine's. Raises UsageError."""
    if name.lower() == "local":
        name = _local_name()
    if name.upper() in {"", "UTC"}:
        return "", timezone.utc
    import zoneinfo  # noqa: PLC0415  only for other zones

    try:
        return name, zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"--tz {name}: there is no such time zone", hint="names are like Europe/Berlin, UTC, or local"
        ) from None


def between(
    start: Optional[str], end: Optional[str], named: Optional[str], where: tzinfo, now: datetime
) -> Tuple[datetime, datetime]:
    """From when to when, the end not included. Without anything it is this month. Raises UsageError."""
    if named is not None and (start is not None or end is not None):
        raise UsageError("--for and --start or --end exclude each other", hint="--for names both ends")
    now = now.astimezone(where)
    if start is None:
        if end is not None:
            raise UsageError("--end needs a --start")
        return during(named or "this month", where, now)
    first = _moment(start, "--start", where)
    last = _moment(end, "--end", where) if end is not None else now
    if last < first:
        raise UsageError(f"--end {end or 'now'} comes before --start {start}")
    return first, last


def during(text: str, where: tzinfo, now: datetime) -> Tuple[datetime, datetime]:
    """What people call a range. Raises UsageError."""
    now = now.astimezone(where)
    today = _midnight(now, where)
    words = " ".join(text.lower().split())
    monday = today - timedelta(days=today.weekday())
    month = today.replace(day=1)
    tomorrow = _midnight(today + timedelta(hours=36), where)
    known = {
        "today": (today, tomorrow),
        "yesterday": (_midnight(today - timedelta(hours=12), where), today),
        "this week": (_midnight(monday, where), tomorrow),
        "last week": (_midnight(monday - timedelta(days=7), where), _midnight(monday, where)),
        "this month": (month, _next_month(month)),
        "last month": (_midnight(month - timedelta(days=15), where).replace(day=1), month),
    }
    if words in known:
        return known[words]
    named = _MONTH.fullmatch(words)
    if named and 1 <= int(named[2]) <= 12 and 1970 <= int(named[1]) < 9999:
        first = datetime(int(named[1]), int(named[2]), 1, tzinfo=where)
        return first, _next_month(first)
    days = _DAYS.fullmatch(words)
    if days and int(days[1]):
        return _midnight(today - timedelta(days=int(days[1]) - 1), where), tomorrow
    raise UsageError(f"--for {text!r} is no time", hint=f"it can be {_NAMED}")


def _moment(text: str, option: str, where: tzinfo) -> datetime:
    try:
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(f"{option} {text!r} is no day", hint="write 2026-01-31 or 2026-01-31T12:00") from None
    return found.replace(tzinfo=where) if found.tzinfo is None else found


def _midnight(at: datetime, where: tzinfo) -> datetime:
    return datetime(at.year, at.month, at.day, tzinfo=where)


def _next_month(first: datetime) -> datetime:
    year, month = divmod(first.year * 12 + first.month, 12)
    return first.replace(year=year, month=month + 1)


def _local_name() -> str:
    named = os.environ.get("TZ", "").lstrip(":")
    if named and "/" in named and not named.startswith("/"):
        return named
    try:
        parts = Path("/etc/localtime").resolve().parts
    except OSError:
        return ""
    return "/".join(parts[parts.index("zoneinfo") + 1 :]) if "zoneinfo" in parts else ""
