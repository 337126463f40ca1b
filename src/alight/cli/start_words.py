"""What is said of how an app's containers started: percentiles as a table, and one line after a slow run."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Dict, Sequence, Tuple

from alight.cli import measure_words, session, tables, terminal
from alight.wire.codec import to_plain
from alight.wire.measures import AppAsked, AppReport, FunctionReport
from alight.wire.record import shape_of
from alight.wire.starts import AppStarts, AppStats, FunctionStarts

_LONGEST = 7 * 86400.0  # counts of inputs are kept for so long
_SLOW = 2.0  # seconds from which a run says what would help


def show(asked: AppStats, *, as_json: bool) -> None:
    """Ask and print."""
    found = session.ask("app.stats", asked, AppStarts)
    since = max(asked.since, time.time() - _LONGEST) if asked.since else 0.0
    ended = session.ask("app.report", AppAsked(found.app_id, since=since), AppReport)
    if as_json:
        inputs = [measure_words.whole(one) for one in ended.functions]
        print(json.dumps({**_whole(found), "inputs": inputs}, indent=2))
        return
    print(f"Inputs of {found.app_id} since {tables.when(ended.since)}")
    heads = (
        "Function",
        "Succeeded",
        "Failed",
        "Timed out",
        "Running",
        "Waiting",
        "Waited p50",
        "p95",
        "Ran p50",
        "p95",
    )
    tables.show(heads, [_ended(one) for one in ended.functions], as_json=False)
    columns = ("Function", "Stage", "Starts", "p50 ms", "p95 ms", "p99 ms")
    rows = [row for function in found.functions for row in _rows(function)]
    tables.show(columns, rows, as_json=False, empty="No container of this app has started yet.")
    for one in found.functions:
        for line in _below(one):
            print(terminal.clean(line), file=sys.stderr)


def slowest(app_id: str) -> str:
    """What would have made the slowest start of an app shorter; "" when it was quick, or nothing is known to help."""
    found = session.ask("app.stats", AppStats(app_id), AppStarts)
    slow = [one for one in found.functions if one.slowest >= _SLOW and one.remedies]
    if not slow:
        return ""
    one = max(slow, key=lambda function: function.slowest)
    return (
        f"{one.function} took {one.slowest:.1f} s to start: {one.remedies[0]} (alight container show {one.slowest_id})"
    )


def _ended(one: FunctionReport) -> Tuple[Any, ...]:
    spreads = [one.input_spreads.get(name) or {} for name in ("queue_time", "run_time")]
    times = [measure_words.seconds(spread[share]) if spread else "" for spread in spreads for share in ("50", "95")]
    return (one.name, one.success, one.failure, one.timeout, one.running, one.waiting, *times)


def _rows(one: FunctionStarts) -> Sequence[Tuple[Any, ...]]:
    return [
        (
            one.function if not at else "",
            stage.name.replace("_", " "),
            stage.count,
            *(f"{1e3 * seconds:,.1f}" for seconds in (stage.p50, stage.p95, stage.p99)),
        )
        for at, stage in enumerate(one.stages)
    ]


def _below(one: FunctionStarts) -> Sequence[str]:
    counts = [f"{count} {how or 'unknown'}" for how, count in sorted(one.how.items())]
    if one.failed:
        counts.append(f"{one.failed} never became ready")
    lines = [f"{one.function}: {', '.join(counts)}"] if counts else []
    return lines + [f"  {text} (alight container show {one.slowest_id})" for text in one.remedies[:1]]


def _whole(found: AppStarts) -> Dict[str, Any]:
    functions = [{**_fields(one), "stages": [_fields(stage) for stage in one.stages]} for one in found.functions]
    return {**_fields(found), "functions": functions}


def _fields(record: Any) -> Dict[str, Any]:
    """Every field, at its default too: programs should not have to know defaults."""
    shape = shape_of(type(record))
    return {name: to_plain(getattr(record, name)) for name in (shape.names if shape is not None else ())}
