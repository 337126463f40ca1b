"""``alight schedule``: what runs by itself, when it ran last and runs next; run it now, pause it, resume it."""

from __future__ import annotations

import sys
from typing import Any, List, Optional

import click

from alight.cli import options, schedule_words, session, tables
from alight.wire.scheduling import ScheduleList, ScheduleListed, ScheduleNamed, ScheduleRan, ScheduleSummary

_COLUMNS = ("App", "Function", "Schedule", "Last run", "Last status", "Last call ID", "Next run")


@click.group(short_help="Functions that run by themselves: list, run now, pause.")
def schedule() -> None:
    """Functions of deployed apps that run by themselves.

    APP[/FUNCTION] names one: the app alone is enough when it has one schedule.
    """


@schedule.command("list")
@click.argument("app_name", metavar="[APP]", required=False)
@options.environment
@options.as_json
def list_(app_name: Optional[str], environment: Optional[str], as_json: bool) -> None:
    """List schedules with their last and their next run. Without APP, those of all apps."""
    request = ScheduleList(environment=session.environment(environment), app=app_name or "")
    found = session.ask("schedule.list", request, ScheduleListed).schedules
    columns = [*_COLUMNS, "Last error", "Paused", "Environment"] if as_json else [*_COLUMNS]
    rows = [_row(one, as_json=as_json) for one in found]
    empty = "No schedules: deploy an app with @app.function(schedule=alight.Period(hours=6))."
    tables.show(columns, rows, as_json=as_json, empty=empty)


@schedule.command("run-now")
@click.argument("reference", metavar="APP[/FUNCTION]")
@options.environment
def run_now(reference: str, environment: Optional[str]) -> None:
    """Run a scheduled function now, beside the runs that come. Prints the call's id."""
    ran = session.ask("schedule.run", _named(reference, environment), ScheduleRan)
    print(f"{ran.function}() runs: `alight call show {ran.call_id}`", file=sys.stderr)
    print(ran.call_id)


@schedule.command()
@click.argument("reference", metavar="APP[/FUNCTION]")
@options.environment
def pause(reference: str, environment: Optional[str]) -> None:
    """Run it no more until it is resumed. It stays paused over deploys and restarts."""
    done = session.ask("schedule.pause", _named(reference, environment), ScheduleSummary)
    print(f"{done.app}/{done.function} is paused: `alight schedule resume` lets it run again", file=sys.stderr)


@schedule.command()
@click.argument("reference", metavar="APP[/FUNCTION]")
@options.environment
def resume(reference: str, environment: Optional[str]) -> None:
    """Let it run again. What was due while it was paused is not made up."""
    done = session.ask("schedule.resume", _named(reference, environment), ScheduleSummary)
    print(f"{done.app}/{done.function} runs next at {tables.when(done.next_at) or 'no time'}", file=sys.stderr)


def _named(reference: str, environment: Optional[str]) -> ScheduleNamed:
    app, _, function = reference.partition("/")
    return ScheduleNamed(app, function, session.environment(environment))


def _row(one: ScheduleSummary, *, as_json: bool) -> List[Any]:
    following = "paused" if one.paused and not as_json else tables.when(one.next_at)
    status = f"failed: {one.last_error}" if one.last_error and not as_json else one.last_status
    row = [
        one.app,
        one.function,
        schedule_words.describe(one.schedule),
        tables.when(one.last_at),
        status or None,
        one.last_call or None,
        following,
    ]
    return [*row, one.last_error or None, one.paused, one.environment] if as_json else row
