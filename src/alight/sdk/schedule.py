"""When a deployed function runs by itself, and how often a failed input is tried again. Pure data, checked here."""

from __future__ import annotations

import re
from typing import Any, Dict, Optional, Sequence, Union

from alight.wire.errors import InvalidError

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_ITEM = re.compile(r"(?P<all>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?")


class Schedule:
    """Base of Cron and Period."""

    def to_plain(self) -> Dict[str, Any]:
        """What the server keeps."""
        raise NotImplementedError


class Cron(Schedule):
    """Five fields as cron has them: minute, hour, day of the month, month, day of the week.

    ``timezone`` is an IANA name such as "Europe/Berlin". Deploying again does not move the runs. Raises InvalidError
    for a field or zone that cannot be.
    """

    def __init__(self, cron_string: str, timezone: str = "UTC") -> None:
        fields = str(cron_string).split()
        if len(fields) != len(_FIELDS):
            raise InvalidError(
                f"the schedule {cron_string!r} has {len(fields)} fields, not 5",
                hint='minute, hour, day of the month, month, day of the week: "0 9 * * 1-5" is 9:00 on weekdays',
            )
        for text, (name, least, most) in zip(fields, _FIELDS):
            _check_field(cron_string, text, name, least, most)
        _check_zone(timezone)
        self.cron_string = cron_string
        self.timezone = timezone

    def to_plain(self) -> Dict[str, Any]:
        return {"cron": self.cron_string, "timezone": self.timezone}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cron) and other.to_plain() == self.to_plain()

    def __hash__(self) -> int:
        return hash((self.cron_string, self.timezone))

    def __repr__(self) -> str:
        zone = "" if self.timezone == "UTC" else f", timezone={self.timezone!r}"
        return f"Cron({self.cron_string!r}{zone})"


class Period(Schedule):
    """Every so often, counted from the deployment. Months and years follow the calendar. All are whole but seconds."""

    def __init__(  # noqa: PLR0913  each is a word of the public form
        self,
        *,
        years: int = 0,
        months: int = 0,
        weeks: int = 0,
        days: int = 0,
        hours: int = 0,
        minutes: int = 0,
        seconds: float = 0,
    ) -> None:
        given: Dict[str, float] = {
            "years": years, "months": months, "weeks": weeks, "days": days, "hours": hours, "minutes": minutes,
        }  # fmt: skip
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidError(f"Period(): {name} is a whole number, not {value!r}")
        if not _is_number(seconds):
            raise InvalidError(f"Period(): seconds is a number, not {seconds!r}")
        given["seconds"] = seconds
        if any(value < 0 for value in given.values()) or not any(given.values()):
            raise InvalidError("Period() needs a length above zero", hint="for example Period(hours=6)")
        self.parts = {name: value for name, value in given.items() if value}

    def to_plain(self) -> Dict[str, Any]:
        return {"period": dict(self.parts)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Period) and other.parts == self.parts

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.parts.items())))

    def __repr__(self) -> str:
        return f"Period({', '.join(f'{name}={value}' for name, value in self.parts.items())})"


class Retries:
    """How often, and how long after a failure, an input is tried again.

    ``max_retries`` attempts follow the first; the n-th waits ``initial_delay * backoff_coefficient ** (n - 1)``
    seconds, at most ``max_delay``.
    """

    def __init__(
        self,
        *,
        max_retries: int,
        backoff_coefficient: float = 2.0,
        initial_delay: float = 1.0,
        max_delay: float = 60.0,
    ) -> None:
        if not _is_number(max_retries, int) or max_retries < 0:
            raise InvalidError(f"Retries(): max_retries is a whole number from 0, not {max_retries!r}")
        _within("backoff_coefficient", backoff_coefficient, 1.0, 10.0)
        _within("initial_delay", initial_delay, 0.0, 60.0)
        _within("max_delay", max_delay, 1.0, 60.0)
        self.max_retries = max_retries
        self.backoff_coefficient = float(backoff_coefficient)
        self.initial_delay = float(initial_delay)
        self.max_delay = float(max_delay)

    def __repr__(self) -> str:
        return (
            f"Retries(max_retries={self.max_retries}, backoff_coefficient={self.backoff_coefficient}, "
            f"initial_delay={self.initial_delay}, max_delay={self.max_delay})"
        )


class SchedulerPlacement:
    """Where a container may run, by region and zone. Accepted, and without effect on machines of one's own."""

    def __init__(
        self,
        region: Union[str, Sequence[str], None] = None,
        zone: Optional[str] = None,
        spot: Optional[bool] = None,
        instance_type: Union[str, Sequence[str], None] = None,
    ) -> None:
        self.region = region
        self.zone = zone
        self.spot = spot
        self.instance_type = instance_type


def _check_field(whole: str, text: str, name: str, least: int, most: int) -> None:
    for item in text.split(","):
        body, slash, step = item.partition("/")
        if slash and not (step.isdigit() and int(step) > 0):
            raise _bad_field(whole, name, item)
        match = _ITEM.fullmatch(body)
        if match is None:
            raise _bad_field(whole, name, item)
        if match["all"]:
            continue
        first = _number(match["first"], name)
        last = first if match["last"] is None else _number(match["last"], name)
        if first is None or last is None or not least <= first <= last <= most:
            raise _bad_field(whole, name, item, f"{least} to {most}")


def _number(word: str, name: str) -> Optional[int]:
    if word.isdigit():
        return int(word)
    if name == "month" and word.lower() in _MONTHS:
        return _MONTHS.index(word.lower()) + 1
    if name == "day of the week" and word.lower() in _DAYS:
        return _DAYS.index(word.lower())
    return None


def _bad_field(whole: str, name: str, item: str, limits: str = "") -> InvalidError:
    hint = f"it goes from {limits}" if limits else "a field is *, numbers, ranges (1-5), lists (1,3) or steps (*/15)"
    return InvalidError(f"the schedule {whole!r} has {item!r} for the {name}", hint=hint)


def _check_zone(name: str) -> None:
    if name == "UTC":
        return
    import zoneinfo  # noqa: PLC0415  only schedules in a zone of their own

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError) as error:
        if not zoneinfo.available_timezones():
            return  # this machine has no zones to check against; the server does
        raise InvalidError(f"{name!r} is not a time zone", hint='use an IANA name such as "Europe/Berlin"') from error


def _is_number(value: Any, kind: Any = (int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _within(name: str, value: Any, least: float, most: float) -> None:
    if not _is_number(value):
        raise InvalidError(f"Retries(): {name} is a number, not {value!r}")
    if not least <= value <= most:
        raise InvalidError(f"Retries(): {name} must be from {least:g} to {most:g}, not {value:g}")
