"""What clients and the server say to each other about functions that run by themselves. See ``messages``."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from alight.wire.record import dataclass, field


@dataclass(frozen=True)
class ScheduleList:
    """schedule.list → ScheduleListed, by app and function. ``app`` is a name or an id, "" for all."""

    environment: str = ""
    app: str = ""


@dataclass(frozen=True)
class ScheduleSummary:
    """One schedule as people see it. Times are unix seconds.

    ``schedule`` is as declared (FunctionSpec.schedule). ``next_at`` is None while it is paused, and when it has no more
    runs. ``last_status`` is "" before the first run, then waiting, running, succeeded, failed, cancelled or unknown.
    """

    app_id: str
    app: str
    function_id: str
    function: str
    environment: str
    schedule: Dict[str, Any] = field(default_factory=dict)
    next_at: Optional[float] = None
    paused: bool = False
    last_at: Optional[float] = None
    last_call: str = ""
    last_status: str = ""
    last_error: str = ""


@dataclass(frozen=True)
class ScheduleListed:
    schedules: Tuple[ScheduleSummary, ...] = ()


@dataclass(frozen=True)
class ScheduleNamed:
    """schedule.run → ScheduleRan: one run now, beside those that come. schedule.pause, schedule.resume →
    ScheduleSummary: no runs until it is resumed; those that were due meanwhile are not made up.

    ``function`` "" is the only one of the app that has a schedule. NotFoundError names those there are.
    """

    app: str
    function: str = ""
    environment: str = ""


@dataclass(frozen=True)
class ScheduleRan:
    function: str
    call_id: str
