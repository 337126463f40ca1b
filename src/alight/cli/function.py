"""``alight function``: what a function was declared with, what became of its inputs, what its containers use."""

from __future__ import annotations

import csv
import json
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

import click

from alight.cli import measure_words, options, session, tables, terminal
from alight.cli.errors import UsageError
from alight.cli.logs import function_logs
from alight.wire import ids
from alight.wire.calling import CallList, CallListed
from alight.wire.codec import to_plain
from alight.wire.measures import (
    METRICS,
    FunctionAsked,
    FunctionDeclared,
    FunctionMetrics,
    FunctionReport,
    VariantsListed,
)
from alight.wire.messages import FunctionScale, FunctionScaling

_BUCKETS = {"1m": 60.0, "5m": 300.0, "15m": 900.0, "1h": 3600.0, "6h": 21600.0, "1d": 86400.0}
_since = click.option("--since", metavar="WHEN", help="2026-01-31T12:00, or 2h 30m for so long ago. [default: 1h]")
_until = click.option("--until", metavar="WHEN", help="The same. [default: now]")
_variants = click.option("--all-variants", is_flag=True, help="With all that with_options and parameters made of it.")


@click.group(short_help="Look at functions: what became of inputs, what containers use.")
def function() -> None:
    """Look at functions: what became of inputs, what containers use. FUNCTION is APP/NAME, or an id (fu-…)."""


function.add_command(function_logs)


@function.command()
@click.argument("function_ref", metavar="FUNCTION")
@options.environment
@options.as_json
def info(function_ref: str, environment: Optional[str], as_json: bool) -> None:
    """Show what a function was declared with."""
    found = session.ask("function.info", meant(function_ref, environment), FunctionDeclared)
    if as_json:
        print(json.dumps(to_plain(found), indent=2))
        return
    for name, text in measure_words.declared(found):
        print(f"{name + ':':19}{terminal.clean(text)}")


@function.command()
@click.argument("function_ref", metavar="FUNCTION")
@_since
@_until
@_variants
@click.option("--container", metavar="CONTAINER", help="Of containers, count this one alone.")
@click.option("--no-color", is_flag=True, hidden=True, help="Nothing here has colour.")
@options.environment
@options.as_json
def stats(  # noqa: PLR0913  one for each option
    *,
    function_ref: str,
    since: Optional[str],
    until: Optional[str],
    all_variants: bool,
    container: Optional[str],
    no_color: bool,
    environment: Optional[str],
    as_json: bool,
) -> None:
    """Show what became of a function's inputs and containers.

    With percentiles of how long inputs waited and ran.
    """
    del no_color
    begin, end = measure_words.window(since, until)
    asked = meant(
        function_ref, environment, since=begin, until=end, all_variants=all_variants, container=container or ""
    )
    found = session.ask("function.report", asked, FunctionReport)
    if as_json:
        print(json.dumps(measure_words.whole(found), indent=2))
        return
    for line in measure_words.report_lines(found):
        print(terminal.clean(line))


@function.command()
@click.argument("function_ref", metavar="FUNCTION")
@click.option(
    "-n", "--tail", type=click.IntRange(min=1), metavar="N", default=10, show_default=True, help="At most so many."
)
@_since
@_until
@options.environment
@options.as_json
def calls(
    function_ref: str, tail: int, since: Optional[str], until: Optional[str], environment: Optional[str], as_json: bool
) -> None:
    """Show a function's last calls, the newest first. With --since only those that began since then."""
    after, before = measure_words.window(since, until)
    found = session.ask("function.info", meant(function_ref, environment), FunctionDeclared)
    request = CallList(environment=found.environment, function=found.function_id, limit=1000 if after else tail)
    listed = session.ask("call.list", request, CallListed).calls
    chosen = [one for one in listed if one.created_at >= after and (not before or one.created_at <= before)][:tail]
    columns = ("Call ID", "State", "Inputs", "Failed", "Created at", "Took")
    rows = [
        (
            one.call_id,
            one.state,
            one.total if one.total is not None else one.accepted,
            one.failed,
            one.created_at if as_json else tables.when(one.created_at),
            _took(one, as_json=as_json),
        )
        for one in chosen
    ]
    tables.show(columns, rows, as_json=as_json, empty="No calls in this time.")


@function.command()
@click.argument("function_ref", metavar="FUNCTION")
@_since
@_until
@click.option("--group", "groups", multiple=True, type=click.Choice(list(METRICS)), help="Only these; may be repeated.")
@click.option("--bucket-size", type=click.Choice(list(_BUCKETS)), help="How long each row is. [default: 1m]")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@_variants
@options.environment
@options.as_json
def metrics(  # noqa: PLR0913  one for each option
    *,
    function_ref: str,
    since: Optional[str],
    until: Optional[str],
    groups: Tuple[str, ...],
    bucket_size: Optional[str],
    as_csv: bool,
    all_variants: bool,
    environment: Optional[str],
    as_json: bool,
) -> None:
    """Show what a function's containers used over time. Without options: which measurements there are."""
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other")
    if not (since or until or groups or bucket_size or as_csv or as_json):
        known = [(group, name, *METRICS[group][name]) for group in METRICS for name in METRICS[group]]
        tables.show(("Group", "Name", "Unit", "What it is"), known, as_json=False)
        return
    begin, end = measure_words.window(since, until)
    asked = meant(
        function_ref,
        environment,
        since=begin,
        until=end,
        groups=groups,
        step=_BUCKETS[bucket_size or "1m"],
        all_variants=all_variants,
    )
    found = session.ask("function.metrics", asked, FunctionMetrics)
    names = [name for group in METRICS.values() for name in group if name in found.series]
    rows = [(at, *(found.series[name][place] for name in names)) for place, at in enumerate(found.at)]
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(["time", *names])
        writer.writerows(rows)
        return
    if as_json:
        tables.show(("time", *names), rows, as_json=True)
        return
    measured = [name for place, name in enumerate(names) if any(row[place + 1] is not None for row in rows)]
    shown = [
        (tables.when(row[0]), *(measure_words.value(name, row[1 + names.index(name)]) for name in measured))
        for row in rows
        if any(cell not in (None, 0) for cell in row[1:])
    ]
    tables.show(("Until", *measured), shown, as_json=False, empty="Nothing was measured in this time.")


@function.command()
@click.argument("function_ref", metavar="FUNCTION")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), metavar="N", default=200, show_default=True, help="At most so many."
)
@options.environment
@options.as_json
def variants(function_ref: str, limit: int, environment: Optional[str], as_json: bool) -> None:
    """List what with_options and class parameters made of a function, itself first. A class is APP/NAME."""
    found = session.ask("function.variants", meant(function_ref, environment, limit=limit), VariantsListed)
    columns = ("Function ID", "Created at", "Containers", "Waiting", "Running", "Changes")
    rows = [
        (
            one.function_id,
            one.created_at if as_json else tables.when(one.created_at),
            one.containers,
            one.backlog,
            one.running,
            one.changes if as_json else ", ".join(f"{key}={value}" for key, value in sorted(one.changes.items())),
        )
        for one in found.variants
    ]
    tables.show(columns, rows, as_json=as_json)


@function.group(short_help="How many containers it may have.")
def autoscaler() -> None:
    """How many containers a function may have."""


@autoscaler.command()
@click.argument("function_ref", metavar="FUNCTION")
@options.environment
@options.as_json
def settings(function_ref: str, environment: Optional[str], as_json: bool) -> None:
    """Show the settings in force."""
    _scale(function_ref, environment, {}, as_json=as_json)


@autoscaler.command()
@click.argument("function_ref", metavar="FUNCTION")
@click.option("--min-containers", type=click.IntRange(min=0), metavar="N", help="Kept ready at all times.")
@click.option("--max-containers", type=click.IntRange(min=1), metavar="N", help="Never more than these.")
@click.option("--buffer-containers", type=click.IntRange(min=0), metavar="N", help="Ready beyond those that work.")
@click.option(
    "--scaledown-window", type=click.FloatRange(min=0), metavar="SECONDS", help="Seconds until an idle one ends."
)
@options.environment
@options.as_json
def update(function_ref: str, environment: Optional[str], as_json: bool, **changes: Any) -> None:
    """Change settings until the app is deployed anew."""
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise UsageError("nothing to change", hint="pass --min-containers, --max-containers, …")
    _scale(function_ref, environment, given, as_json=as_json)


def meant(reference: str, environment: Optional[str], **more: Any) -> FunctionAsked:
    """What "APP/NAME" or an id asks for. Raises UsageError."""
    if ids.is_id(reference, ids.FUNCTION):
        return FunctionAsked(reference, **more)
    app, slash, name = reference.partition("/")
    if not (slash and app and name):
        raise UsageError(
            f"{reference!r} is no function: write APP/NAME, or an id (fu-…)",
            hint="`alight app list` shows apps, `alight app info APP` their functions",
        )
    return FunctionAsked(app=app, name=name, environment=session.environment(environment), **more)


def _scale(reference: str, environment: Optional[str], changes: Dict[str, Any], *, as_json: bool) -> None:
    found = session.ask("function.info", meant(reference, environment), FunctionDeclared)
    now = session.ask("function.scale", FunctionScale(found.function_id, changes), FunctionScaling)
    plain: Dict[str, Any] = {
        name: getattr(now, name)
        for name in ("min_containers", "max_containers", "buffer_containers", "scaledown_window")
    }
    if as_json:
        print(json.dumps(plain, indent=2))
        return
    lines: List[str] = [f"{name}: {'no limit' if value is None else value}" for name, value in plain.items()]
    print("\n".join(lines))


def _took(one: Any, *, as_json: bool) -> Any:
    end = one.done_at or (None if as_json else time.time())
    if end is None:
        return None
    took = max(0.0, end - one.created_at)
    return took if as_json else measure_words.seconds(took) + ("" if one.done_at else " until now")
