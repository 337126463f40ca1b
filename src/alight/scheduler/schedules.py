"""When scheduled functions run: pure, time is an argument. What a clock or a restart does to runs is decided here.

A schedule's runs are the moments of its timetable. The server keeps up to which moment they were taken care of; asked
again at any time, after a crash too, ``look`` says whether a run is due and when the next one will be. Of runs that
were missed (the server was down, the clock jumped ahead) the newest is made up, once.

Cron keeps to the clock on the wall of its zone. A time of day that the spring change leaves out ("30 2 * * *") comes at
the end of the gap, and one that the autumn change brings twice comes the first time only. Schedules with a star in the
minutes or hours go by elapsed time: they run in both of the doubled hours, and not in the one that is missing.
"""

from __future__ import annotations

import calendar
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from alight.wire.errors import InvalidError

SHORTEST = 1.0  # seconds of a period
LATE = 10.0  # a run that begins within so many seconds of its moment was not missed
SET_BACK = 3600.0  # a clock that goes back by less repeats no run; by more, runs are counted from its new time

_WINDOWS = (2 * 3600.0, 2 * 86400.0, 62 * 86400.0, 5 * 366 * 86400.0)
_LENGTHS = {"weeks": 7 * 86400.0, "days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
_MONTHS = {"years": 12, "months": 1}
_MONTH = 30.44 * 86400.0
_LAST_YEAR = 9998  # that a datetime can be moved in
_MEANT = {
    "Bad minute": "minute",
    "Bad hour": "hour",
    "Bad day-of-month": "day of the month",
    "Bad month": "month",
    "Bad day-of-week": "day of the week",
}


@dataclass(frozen=True)
class Cron:
    """Five fields on the wall clock of a zone."""

    text: str
    zone: tzinfo

    def after(self, moment: float, since: float) -> float | None:
        """The first moment after this one, None when there is none in the next 50 years."""
        del since  # deploying again does not move the runs
        return next(self._from(moment), None)

    def newest(self, after: float, until: float, since: float) -> float | None:
        """The last moment in (after, until]."""
        del since
        for window in (*_WINDOWS, math.inf):
            start = max(after, until - window)
            found = None
            for moment in self._from(start):
                if moment > until:
                    break
                found = moment
            if found is not None or start == after:
                return found
        return None

    def _from(self, start: float) -> Iterator[float]:
        for at in CronSim(self.text, datetime.fromtimestamp(start, self.zone)):
            # The second of two equal times on the wall is in the past, and two that a gap swallows end up as one.
            moment = at.timestamp()
            if moment > start:
                start = moment
                yield moment


@dataclass(frozen=True)
class Period:
    """Every so many months and seconds, counted from ``since``. Months follow the calendar (UTC): a day that a month
    does not have is its last."""

    months: int
    seconds: float

    def after(self, moment: float, since: float) -> float | None:
        """The first moment after this one."""
        count = max(1, self._about(moment, since) - 2)
        while True:
            found = self._at(count, since)
            if found is None or found > moment:
                return found
            count += 1

    def newest(self, after: float, until: float, since: float) -> float | None:
        """The last moment in (after, until]."""
        found = None
        for count in itertools.count(max(1, self._about(until, since) - 2)):
            moment = self._at(count, since)
            if moment is None or moment > until:
                return found
            if moment > after:
                found = moment
        return found

    def _about(self, moment: float, since: float) -> int:
        """How many periods fit, more or less: never too many by more than one."""
        return int((moment - since) / (self.months * _MONTH + self.seconds) * (0.995 if self.months else 1.0))

    def _at(self, count: int, since: float) -> float | None:
        if not self.months:
            return since + count * self.seconds
        start = datetime.fromtimestamp(since, timezone.utc)
        year, month = divmod(start.year * 12 + start.month - 1 + count * self.months, 12)
        if year > _LAST_YEAR:
            return None
        day = min(start.day, calendar.monthrange(year, month + 1)[1])
        try:
            moved = start.replace(year=year, month=month + 1, day=day) + timedelta(seconds=count * self.seconds)
        except OverflowError:
            return None
        return moved.timestamp()


Timetable = Cron | Period


@dataclass(frozen=True)
class Look:
    """What is to be done now. ``run``: the moment whose run is to begin. ``skipped``: the newest of those that are
    too old to be made up. ``done``: moments up to here are taken care of after that. ``next``: look again then."""

    run: float | None
    skipped: float | None
    done: float
    next: float | None


def look(table: Timetable, since: float, done: float, now: float, oldest: float | None = None) -> Look:
    """Where a schedule stands at ``now``, when moments up to ``done`` were taken care of.

    ``oldest``: how many seconds late a run may begin; None: until the next one is due.
    """
    if done > now + SET_BACK:
        done = now
    due = table.newest(done, now, since)
    run = skipped = None
    if due is not None:
        done = due
        if oldest is None or now - due <= max(oldest, LATE):
            run = due
        else:
            skipped = due
    return Look(run, skipped, done, table.after(max(done, now), since))


def parse(plain: Mapping[str, Any], function: str) -> Timetable:
    """The timetable of a schedule in its plain form. Raises InvalidError, which names the function and the field."""
    if "cron" in plain:
        return _cron(str(plain["cron"]), str(plain.get("timezone") or "UTC"), function)
    if isinstance(plain.get("period"), Mapping):
        return _period(plain["period"], function)
    raise InvalidError(f"{function}(): schedule is alight.Cron(…) or alight.Period(…), not {dict(plain)!r}")


def _cron(text: str, zone: str, function: str) -> Cron:
    if len(text.split()) != 5:
        raise InvalidError(
            f"{function}(): the schedule {text!r} has {len(text.split())} fields, not 5",
            hint="minute, hour, day of the month, month, day of the week",
        )
    try:
        where: tzinfo = timezone.utc if zone == "UTC" else ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidError(
            f"{function}(): the server knows no time zone {zone!r}",
            hint='use an IANA name such as "Europe/Berlin"; the server needs its system\'s tzdata package for it',
        ) from None
    try:
        found = next(CronSim(text, datetime(2000, 1, 1, tzinfo=where)), None)
    except CronSimError as error:
        place = _MEANT.get(str(error), "fields")
        raise InvalidError(
            f"{function}(): the schedule {text!r} cannot be: look at the {place}",
            hint="a field is *, numbers, ranges (1-5), lists (1,3) or steps (*/15), on days that its months have",
        ) from None
    if found is None:
        raise InvalidError(f"{function}(): the schedule {text!r} never comes: no day fits all of its fields")
    return Cron(text, where)


def _period(parts: Mapping[str, Any], function: str) -> Period:
    for name, value in parts.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
        whole = name == "seconds" or isinstance(value, int)
        if name not in {*_LENGTHS, *_MONTHS} or not number or not whole:
            raise InvalidError(f"{function}(): a period has no {name}={value!r}")
    months = sum(parts.get(name, 0) * factor for name, factor in _MONTHS.items())
    seconds = sum(parts.get(name, 0) * factor for name, factor in _LENGTHS.items())
    if not months and seconds < SHORTEST:
        raise InvalidError(
            f"{function}(): a period of {seconds:g} s is too short: the least is {SHORTEST:g} s",
            hint="a function that loops, or `alight.Function.spawn` in one, does things more often",
        )
    if months > 12 * 1000 or seconds > 1000 * 366 * 86400:
        raise InvalidError(f"{function}(): a period of more than a thousand years never comes")
    return Period(months, float(seconds))
