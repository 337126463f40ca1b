"""``alight app``: what runs, what it printed, which versions there were, and how to end it."""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any, List, Optional, Set, Tuple

import click

from alight.cli import dashboard as pages
from alight.cli import options, schedule_words, session, tables, terminal
from alight.cli.budget import app_budget
from alight.cli.errors import UsageError
from alight.cli.logs import Wanted, app_logs, show
from alight.cli.moments import parse_when
from alight.wire.codec import to_plain
from alight.wire.deploying import (
    AppDescribed,
    AppFind,
    DeployBack,
    DeployDone,
    DeployHistory,
    DeployOver,
    DeployVersion,
    DeployVersions,
)
from alight.wire.errors import NotFoundError
from alight.wire.logs import LogQuery
from alight.wire.messages import AppList, AppListed, AppStop, AppSummary
from alight.wire.starts import AppStats
from alight.wire.states import AppState
from alight.wire.version import __version__

_strategy_option = click.option(
    "--strategy",
    type=click.Choice(["rolling", "recreate"]),
    default="rolling",
    show_default=True,
    help="rolling: old containers finish what they have begun. recreate: they end at once.",
)


@click.group(short_help="List apps, read their logs, go back a version, stop them.")
def app() -> None:
    """List apps, read their logs, go back a version, stop them."""


@app.command("list")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    default=20,
    show_default=True,
    help="At most so many; 0 for all.",
)
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
            f"v{one.version}" if one.version else None,
            one.containers,
            tables.when(one.created_at),
            tables.when(one.stopped_at),
        )
        for one in listed.apps
    ]
    columns = ("App ID", "Description", "State", "Version", "Containers", "Created at", "Stopped at")
    tables.show(columns, rows, as_json=as_json, empty="No apps yet. `alight run script.py` starts one.")


app.add_command(app_logs)


def follow(app_id: str, *, timestamps: bool) -> None:
    """Show what an app's containers print from now on."""
    show(LogQuery(app_id, follow=True, tail=0), Wanted.plain(timestamps=timestamps))


@app.command()
@click.argument("app_name", metavar="APP")
@click.option(
    "--since", metavar="WHEN", help="Only what began since then: 2026-01-31T12:00, or 2h 30m for so long ago."
)
@options.environment
@options.as_json
def stats(app_name: str, since: Optional[str], environment: Optional[str], as_json: bool) -> None:
    """Show what became of an app's inputs, and how its containers started.

    Percentiles by function and stage. Inputs are those of the last hour, or since WHEN (7 days at most). APP is an id,
    or a name: then the inputs are those of the newest app of that name, and the starts those of all of them, for each
    run of a script is an app.
    """
    from alight.cli import start_words  # noqa: PLC0415  start-up weight

    after = parse_when(since, time.time()) if since else 0.0
    start_words.show(AppStats(app_name, session.environment(environment), after), as_json=as_json)


@app.command()
@click.argument("app_name", metavar="APP")
@options.environment
@options.as_json
def info(app_name: str, environment: Optional[str], as_json: bool) -> None:
    """Show one app: its state, version, tags, functions and where web functions answer. APP is a name or an id."""
    found = session.ask("app.find", AppFind(app_name, session.environment(environment)), AppDescribed)
    if as_json:
        print(json.dumps(to_plain(found), indent=2))
        return
    facts: List[Tuple[str, Any]] = [
        ("App ID", found.app_id),
        ("Name", found.name or found.description),
        ("Environment", found.environment),
        ("State", found.state + (f": {found.stop_reason}" if found.stop_reason else "")),
        ("Version", f"v{found.version}" if found.version else None),
        ("Created", f"{tables.when(found.created_at)} by {found.created_by}"),
        ("Deployed", f"{tables.when(found.deployed_at)} by {found.deployed_by}" if found.deployed_at else None),
        ("Stopped", f"{tables.when(found.stopped_at)} by {found.stopped_by or '?'}" if found.stopped_at else None),
        ("Tags", ", ".join(f"{key}={value}" for key, value in sorted(found.tags.items())) or None),
    ]
    for name, value in facts:
        if value:
            print(f"{name + ':':13}{terminal.clean(str(value))}")
    for one in found.functions:
        what = f"{one.name[:-2]} ({', '.join(one.methods)})" if one.name.endswith(".*") else one.name
        many = f"{one.containers} container{'' if one.containers == 1 else 's'}"
        timed = f"  runs {schedule_words.describe(one.schedule)}" if one.schedule else ""
        print(f"  {what}  {one.function_id}  {many if one.containers else 'no containers'}{timed}")
        if one.web:
            from alight.sdk import web_urls  # noqa: PLC0415  few apps have web functions

            for line in web_urls.lines(one.name, one.web):
                print(f"    {line}")


@app.command()
@click.argument("app_name", metavar="APP")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", default=100, show_default=True, help="At most so many."
)
@options.environment
@options.as_json
def history(app_name: str, limit: int, environment: Optional[str], as_json: bool) -> None:
    """Show the versions of a deployed app, the newest first. APP is a name or an id."""
    request = DeployHistory(app_name, session.environment(environment), limit)
    found = session.ask("deploy.history", request, DeployVersions)
    staged = {one.version for one in found.versions if one.staged}
    promoted = {one.origin for one in found.versions if not one.failed}
    rows = [
        (
            f"v{one.version}",
            _state(one, found.current, staged, promoted),
            tables.when(one.deployed_at),
            one.deployed_by,
            one.client,
            one.tag,
            one.commit[:12] + ("*" if one.dirty else "") if not as_json else one.commit,
            one.strategy,
            *([one.failed, one.dirty, one.kept] if as_json else []),
        )
        for one in found.versions
    ]
    columns = ["Version", "State", "Deployed at", "By", "Client", "Tag", "Commit", "Strategy"]
    tables.show(columns + (["Failed", "Dirty", "Kept"] if as_json else []), rows, as_json=as_json)


@app.command()
@click.argument("app_name", metavar="APP")
@click.argument("version", metavar="[vN]", required=False)
@_strategy_option
@options.environment
def rollback(app_name: str, version: Optional[str], strategy: str, environment: Optional[str]) -> None:
    """Deploy an earlier version again, as a new one. Without vN it is the one before.

    The script is not needed: what a version is made of is kept.
    """
    number = _version(version) if version else 0
    request = DeployBack(app_name, session.environment(environment), number, strategy, __version__, uuid.uuid4().hex)
    done = session.ask("deploy.rollback", request, DeployDone)
    print(f"{app_name} is at v{done.version} now, which is {f'v{number}' if number else 'the version before'} again")
    _show_notes(done)


@app.command()
@click.argument("app_name", metavar="APP")
@click.argument("version", metavar="vN")
@_strategy_option
@options.environment
def promote(app_name: str, version: str, strategy: str, environment: Optional[str]) -> None:
    """Let a version serve that was staged by `alight deploy --staged`. It is the next version then."""
    number = _version(version)
    request = DeployBack(app_name, session.environment(environment), number, strategy, __version__, uuid.uuid4().hex)
    done = session.ask("deploy.promote", request, DeployDone)
    print(f"{app_name} is at v{done.version} now, which is v{number} as it was staged")
    _show_notes(done)


@app.command()
@click.argument("app_name", metavar="APP")
@_strategy_option
@options.environment
def rollover(app_name: str, strategy: str, environment: Optional[str]) -> None:
    """Give a deployed app fresh containers of the same version."""
    request = DeployOver(app_name, session.environment(environment), strategy)
    done = session.ask("deploy.rollover", request, DeployDone)
    print(f"{app_name} v{done.version} has fresh containers")
    _show_notes(done)


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


def _show_notes(done: DeployDone) -> None:
    for note in done.notes:
        print(note, file=sys.stderr)


def _version(text: str) -> int:
    number = text.removeprefix("v")
    if not number.isdigit() or not int(number):
        raise UsageError(f"{text!r} is no version", hint="they look like v3; `alight app history` shows them")
    return int(number)


def _state(one: DeployVersion, current: int, staged: Set[int], promoted: Set[int]) -> str:
    if one.failed:
        return "failed"
    state = "serves" if one.version == current else ""
    if one.staged:
        state = "promoted" if one.version in promoted else "staged"
    back = f"v{one.origin} {'promoted' if one.origin in staged else 'again'}" if one.origin else ""
    return ", ".join(part for part in (state, back) if part)


def _find(name_or_id: str, environment: Optional[str]) -> AppSummary:
    """The app of this name or id; of several with one name the one that lives, else the newest."""
    request = AppList(environment=session.environment(environment), name_or_id=name_or_id)
    apps = session.ask("app.list", request, AppListed).apps
    if not apps:
        raise NotFoundError(f"there is no app {name_or_id!r}", hint="`alight app list` shows what there is")
    return next((one for one in apps if one.state != AppState.STOPPED), apps[0])


def _shown(found: AppSummary) -> str:
    name = found.name or found.description
    return f"{name} ({found.app_id})" if name else found.app_id


@app.command("dashboard")
@click.argument("app_name", metavar="APP")
@pages.browser_option
@options.environment
def dashboard_(app_name: str, browser: Optional[bool], environment: Optional[str]) -> None:
    """Open an app's page of the dashboard. APP is a name or an id."""
    pages.show(_find(app_name, environment).app_id, browser=browser)


app.add_command(app_budget)
