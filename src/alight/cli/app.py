"""``alight app``: what runs, what it printed, and how to end it."""

from __future__ import annotations

import re
import sys
import time
from datetime import datetime
from typing import Any, Optional

import click

from alight.cli import options, session, tables
from alight.cli.errors import UsageError
from alight.wire.codec import loads_head
from alight.wire.errors import NotFoundError
from alight.wire.messages import AppEvent, AppList, AppListed, AppStop, AppSummary, AppWatch
from alight.wire.starts import AppStats
from alight.wire.states import AppState


@click.group(short_help="List apps, read their logs, stop them.")
def app() -> None:
    """List apps, read their logs, stop them."""


@app.command("list")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="At most so many; 0 for all.")
@options.environment
@options.as_json
def list_(limit: int, environment: Optional[str], as_json: bool) -> None:
    """List apps, the newest first."""
    request = AppList(environment=session.environment(environment), limit=limit or 1_000_000)
    listed = session.ask("app.list", request, AppListed)
    rows = [
        (
            one.app_id,
            one.name or one.description,
            one.state,
            one.containers,
            tables.when(one.created_at),
            tables.when(one.stopped_at),
        )
        for one in listed.apps
    ]
    columns = ("App ID", "Description", "State", "Containers", "Created at", "Stopped at")
    tables.show(columns, rows, as_json=as_json, empty="No apps yet. `alight run script.py` starts one.")


@app.command()
@click.argument("app_name", metavar="APP")
@click.option("-f", "--follow", is_flag=True, help="Go on until the app ends.")
@click.option("-n", "--tail", type=click.IntRange(min=0), help="Only the last N pieces of output. [default: 100]")
@click.option("--since", metavar="WHEN", help="Only what is younger: 2026-01-31T12:00, or 2h 30m for so long ago.")
@click.option("--timestamps", is_flag=True, help="Put the time before each line.")
@options.environment
def logs(
    app_name: str, follow: bool, tail: Optional[int], since: Optional[str], timestamps: bool, environment: Optional[str]
) -> None:
    """Show what an app's containers printed. APP is a name or an id."""
    if follow and (tail is not None or since is not None):
        raise UsageError("--follow excludes --tail and --since")
    from alight.cli import render  # noqa: PLC0415  start-up weight

    after = parse_when(since, time.time()) if since else 0.0
    found = _find(app_name, environment)
    count = tail if tail is not None else (100 if since is None and not follow else -1)
    request = AppWatch(app_id=found.app_id, hold=False, logs=True, follow=follow, since=after, tail=count)
    drawing = render.make_renderer()
    try:
        for head, body in session.stream("app.watch", request):
            _draw(drawing, loads_head(AppEvent, head), body, timestamps=timestamps)
    finally:
        drawing.close()


@app.command()
@click.argument("app_name", metavar="APP")
@click.option("--since", metavar="WHEN", help="Only starts since then: 2026-01-31T12:00, or 2h 30m for so long ago.")
@options.environment
@options.as_json
def stats(app_name: str, since: Optional[str], environment: Optional[str], as_json: bool) -> None:
    """Show how an app's containers started: percentiles by function and stage.

    APP is an id, or a name: then all apps of that name count, for each run of a script is an app.
    """
    from alight.cli import start_words  # noqa: PLC0415  start-up weight

    after = parse_when(since, time.time()) if since else 0.0
    start_words.show(AppStats(app_name, session.environment(environment), after), as_json=as_json)


@app.command()
@click.argument("app_name", metavar="APP")
@options.yes
@options.environment
def stop(app_name: str, yes: bool, environment: Optional[str]) -> None:
    """Stop an app: its calls are cancelled and its containers ended. APP is a name or an id."""
    found = _find(app_name, environment)
    if found.state == AppState.STOPPED:
        print(f"{_shown(found)} was stopped already", file=sys.stderr)
        return
    options.confirm(f"Stop {_shown(found)} ({found.containers} containers)?", yes=yes)
    session.tell("app.stop", AppStop(app_id=found.app_id, reason="stopped by `alight app stop`"))
    print(f"Stopped {_shown(found)}", file=sys.stderr)


def parse_when(text: str, now: float) -> float:
    """Unix seconds of an ISO moment in local time, or of "1d 2h 30m 10s" ago. Raises UsageError."""
    ago = re.fullmatch(r"\s*(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+)s)?\s*", text)
    if ago and any(ago.groups()):
        days, hours, minutes, seconds = (int(part or 0) for part in ago.groups())
        return now - (days * 86400 + hours * 3600 + minutes * 60 + seconds)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no moment", hint="write 2026-01-31T12:00, or 2h 30m for so long ago") from None
    return moment.timestamp()


def _find(name_or_id: str, environment: Optional[str]) -> AppSummary:
    """The app of this name or id; of several with one name the one that lives, else the newest."""
    request = AppList(environment=session.environment(environment), name_or_id=name_or_id)
    apps = session.ask("app.list", request, AppListed).apps
    if not apps:
        raise NotFoundError(f"there is no app {name_or_id!r}", hint="`alight app list` shows what there is")
    return next((one for one in apps if one.state != AppState.STOPPED), apps[0])


def _draw(drawing: Any, event: AppEvent, body: bytes, *, timestamps: bool) -> None:
    if event.kind == "output":
        if timestamps:
            stamp = (tables.when(event.time) or "").encode() + b" "
            body = b"".join(stamp + line for line in body.splitlines(keepends=True))
        drawing.output(event.container, event.function, event.fd, body)
    elif event.kind == "system" and event.text:
        drawing.note(event.text)
    elif event.kind == "stopped" and event.text:
        drawing.note(f"the app has stopped: {event.text}")


def _shown(found: AppSummary) -> str:
    name = found.name or found.description
    return f"{name} ({found.app_id})" if name else found.app_id
