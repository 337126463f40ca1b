"""One schedule as the server has it in memory, and as its row in the store has it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from alight.scheduler import schedules as timetables
from alight.scheduler.schedules import Period, Timetable
from alight.store.base import Row
from alight.wire import errors

log = logging.getLogger(__name__)


@dataclass
class Entry:
    """One schedule, and what is known of its last run. See the table ``schedules``."""

    function_id: str
    app_id: str
    plain: dict[str, Any]
    table: Timetable
    version: int
    since: float
    done: float
    paused: bool = False
    call_id: str = ""
    run_at: float | None = None
    begun: bool = True
    status: str = ""
    error: str = ""
    again: float = 0.0  # when a run that could not begin is tried again

    def row(self) -> dict[str, Any]:
        """What the store keeps of the schedule itself."""
        return {
            "function_id": self.function_id,
            "app_id": self.app_id,
            "schedule": json.dumps(self.plain, sort_keys=True),
            "version": self.version,
            "since": self.since,
            "done": self.done,
        }

    def deployed(self, version: int, plain: dict[str, Any], table: Timetable, since: float) -> None:
        """Another version of the app has it. A period restarts with each deploy; cron goes by the clock."""
        if plain != self.plain or isinstance(table, Period):
            self.since = since
            self.done = since if plain != self.plain else max(self.done, since)
        self.plain, self.table, self.version = plain, table, version

    def next(self, now: float) -> float | None:
        """When it runs next, by itself."""
        return None if self.paused else timetables.look(self.table, self.since, self.done, now).next


def from_row(row: Row) -> Entry | None:
    """None, after saying so, for a schedule that cannot be any more (its time zone is gone from this machine)."""
    plain = json.loads(row["schedule"])
    try:
        table = timetables.parse(plain, row["function_id"])
    except errors.InvalidError as error:
        log.error("a schedule does not run any more: %s", error)
        return None
    return Entry(
        row["function_id"],
        row["app_id"],
        plain,
        table,
        row["version"],
        row["since"],
        row["done"],
        bool(row["paused"]),
        row["call_id"],
        row["run_at"],
        bool(row["begun"]),
        row["status"],
        row["error"],
    )
