"""What is said of schedules, by every command that speaks of one."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Tuple

_UNITS: Dict[str, str] = {
    "years": "year", "months": "month", "weeks": "week", "days": "day", "hours": "h", "minutes": "min", "seconds": "s",
}  # fmt: skip
_WRITTEN_OUT = {"years", "months", "weeks", "days"}


def describe(plain: Mapping[str, Any]) -> str:
    """A schedule in its plain form (FunctionSpec.schedule), in a few words: "every 6 h"."""
    if "cron" in plain:
        zone = str(plain.get("timezone") or "UTC")
        return f"{plain['cron']} {zone}"
    parts = [(name, plain.get("period", {}).get(name, 0)) for name in _UNITS]
    found: Tuple[str, ...] = tuple(_amount(name, value) for name, value in parts if value)
    return f"every {' '.join(found)}" if found else ""


def _amount(name: str, value: float) -> str:
    unit = _UNITS[name]
    if name in _WRITTEN_OUT and value != 1:
        unit += "s"
    return f"{value:g} {unit}"
