"""What is said of schedules, by every command that speaks of one."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple

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


def of_app(app: Any) -> List[str]:
    """A line for each function of a declared app that runs by itself."""
    functions = sorted(app._functions.items())  # noqa: SLF001  the CLI is the SDK's face
    scheduled = [(name, one.options.schedule) for name, one in functions if one.options.schedule is not None]
    return [f"schedule: {name} runs {describe(schedule.to_plain())}" for name, schedule in scheduled]


def _amount(name: str, value: float) -> str:
    unit = _UNITS[name]
    if name in _WRITTEN_OUT and value != 1:
        unit += "s"
    return f"{value:g} {unit}"
