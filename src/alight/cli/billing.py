"""``alight billing``: what apps, functions and users had of the machines, what that cost, by which prices, and what it
may cost."""

from __future__ import annotations

import csv
import json
import sys
from datetime import datetime, timezone, tzinfo
from typing import Any, Callable, Dict, List, Optional, Sequence, TypeVar

import click

from alight.cli import billing_range, money, options, session, tables
from alight.cli.errors import UsageError
from alight.wire.billing import (
    Budget,
    BudgetList,
    Budgets,
    BudgetSet,
    Rates,
    RatesAsk,
    UsageAsk,
    UsageItem,
    UsageReported,
)

F = TypeVar("F", bound=Callable[..., Any])


@click.group(short_help="What was used, what it cost, and what it may cost.")
def billing() -> None:
    """What was used, what it cost, and what it may cost.

    Nobody is charged: costs are what containers had of the machines, at the prices of prices.toml.
    """


def report_options(function: F) -> F:
    """The options of ``show_report``."""
    for option in reversed((
        click.option("--start", metavar="DAY", help="First day (2026-01-31) or moment (2026-01-31T12:00)."),
        click.option("--end", metavar="DAY", help="Day or moment before which it ends. Without it: now."),
        click.option("--for", "named", metavar="RANGE", help='"today", "last week", "this month", 2026-01, "7 days".'),
        click.option("-r", "--resolution", type=click.Choice(["d", "h"]), default="d", help="By day or by hour."),
        click.option("--by", default="app", metavar="WHAT", help="app (default), function, user, or tag:NAME."),
        click.option("--app", default="", metavar="APP", help="Of one app only: its name or id."),
        click.option("--tz", default="UTC", show_default=True, help="Time zone that days are of; `local` is yours."),
        click.option("-t", "--tag-names", metavar="NAMES", help="Tags to show, separated by commas; * shows all."),
        click.option("--show-resources", is_flag=True, help="A row for each resource."),
        options.as_json,
        click.option("--csv", "as_csv", is_flag=True, help="Print CSV."),
    )):  # fmt: skip
        function = option(function)
    return function


def budget_options(function: F) -> F:
    """The options of every command that sets a budget. The command hands them to ``set_budget``."""
    for option in reversed((
        click.option("--gpu-seconds", metavar="SECONDS", help="How many seconds of GPUs it may have."),
        click.option("--stop/--finish", default=None, help="When it is used up: stop what runs, or let it finish."),
        click.option("--clear", is_flag=True, help="Take the budget away."),
    )):  # fmt: skip
        function = option(function)
    return function


@billing.command()
@report_options
@options.environment
def report(environment: Optional[str], **asked: Any) -> None:
    """Print costs by day (or hour) and app. Without a range it is this month."""
    show_report(environment or "", **asked)


@billing.command()
@click.option("--for", "named", default="this month", metavar="MONTH", help='"this month", "last month" or 2026-01.')
@options.as_json
def summary(named: str, as_json: bool) -> None:
    """Print what a month cost, by resource."""
    show_summary("", named, as_json=as_json)


@billing.command()
@click.option("--example", is_flag=True, help="Print a prices.toml to begin with.")
@options.as_json
def rates(example: bool, as_json: bool) -> None:
    """Print the prices in force and where they are set."""
    found = session.ask("usage.rates", RatesAsk(), Rates)
    if example:
        print(found.example, end="")
        return
    rows = [(one.resource, f"{one.price:.5g}", found.currency, one.unit) for one in found.rates]
    if found.any_gpu is not None:
        rows.append(("gpu: any other", f"{found.any_gpu:.5g}", found.currency, "GPU-hour"))
    tables.show(("Resource", "Price", "Currency", "For a"), rows, as_json=as_json)
    for note in found.notes:
        print(f"Note: {note}", file=sys.stderr)
    if not as_json:
        said = "defaults; to set your own" if found.defaults else "from it"
        print(f"\n{found.file}: {said} (`alight billing rates --example` prints one)", file=sys.stderr)


@billing.command()
@click.option("--app", metavar="APP", help="An app's name, or the id of a run.")
@click.option("--user", metavar="WHO", help="A user, as `alight billing report --by user` shows them.")
@click.option("--month", "cost", metavar="MONEY", help="What a month may cost.")
@budget_options
@options.environment
@options.as_json
def budget(
    app: Optional[str], user: Optional[str], cost: Optional[str], environment: Optional[str], **rest: Any
) -> None:
    """Show budgets, or set the one of an app or user.

    When a budget is used up new inputs wait, and say so; what runs finishes, or is stopped with --stop. What is not
    given stays as it was set before.
    """
    if app is not None and user is not None:
        raise UsageError("--app and --user exclude each other", hint="set one budget after the other")
    if app is None and user is None:
        if cost is not None or any(rest[name] not in {None, False} for name in ("gpu_seconds", "clear", "stop")):
            raise UsageError("a budget is somebody's", hint="add --app APP or --user WHO")
        show_budgets(session.ask("budget.list", BudgetList(), Budgets), as_json=rest["as_json"])
        return
    kind, name = ("app", app) if app is not None else ("user", user)
    set_budget(kind, name or "", cost, option="--month", environment=environment, **rest)


def set_budget(  # noqa: PLR0913  what a budget is
    kind: str,
    name: str,
    cost: Optional[str],
    *,
    option: str,
    gpu_seconds: Optional[str],
    stop: Optional[bool],
    clear: bool,
    environment: Optional[str],
    as_json: bool,
) -> None:
    """Set, take away or (without limits) show one budget. ``option`` is the one that ``cost`` was given by."""
    most, seconds = money.read(cost, option), money.read(gpu_seconds, "--gpu-seconds")
    where, given = session.environment(environment), most is not None or seconds is not None or stop is not None
    if clear and given:
        raise UsageError("--clear and what it is to be exclude each other")
    if not clear and not given:
        found = session.ask("budget.list", BudgetList(kind, name, where), Budgets)
        show_budgets(found, as_json=as_json, empty=f"{name} has no budget.")
        return
    done = session.ask("budget.set", BudgetSet(kind, name, where, most, seconds, stop), Budgets)
    show_budgets(done, as_json=as_json, empty=f"{name} has no budget any more.")
    if any(one.kind == "app" and not one.apps for one in done.budgets):
        print(f"Nothing is called {name} in {done.budgets[0].environment} now: this is for later.", file=sys.stderr)


def show_budgets(found: Budgets, *, as_json: bool, empty: str = "") -> None:
    """As a table."""
    if as_json:
        print(json.dumps([_budget(one, found.currency) for one in found.budgets], indent=2))
        return
    rows = [
        (
            one.kind,
            one.name,
            one.environment,
            _limit(one, found.currency),
            _spent(one, found.currency),
            "life" if one.kind == "run" else "month",
            ("used up: all is stopped" if one.stop else "used up: new inputs wait") if one.used_up else "",
        )
        for one in found.budgets
    ]
    columns = ("Of", "Name", "Environment", "Budget", "Spent", "By", "State")
    empty = empty or "No budgets: `alight app budget APP --month 100` sets one."
    tables.show(columns, rows, as_json=False, empty=empty)


def show_report(  # noqa: PLR0913  one option each
    environment: str,
    *,
    start: Optional[str],
    end: Optional[str],
    named: Optional[str],
    resolution: str,
    by: str,
    app: str,
    tz: str,
    tag_names: Optional[str],
    show_resources: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Ask and print."""
    if by not in {"app", "function", "user"} and not (by.startswith("tag:") and by != "tag:"):
        raise UsageError(f"--by {by}: a report is by app, function, user, or tag:NAME")
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other")
    name, where = billing_range.zone(tz)
    first, last = billing_range.between(start, end, named, where, datetime.now(timezone.utc))
    asked = UsageAsk(first.timestamp(), last.timestamp(), resolution, by, name, environment, app)
    found = session.ask("usage.report", asked, UsageReported)
    tags = _tags(found, tag_names)
    columns = ["Interval start", "Object ID", "Description", "Environment"]
    columns += ["Resource"] if show_resources else []
    columns += ["Cost", "Idle", "Starting"] if not show_resources else ["Cost"]
    columns += ["Currency", *tags]
    exact = as_json or as_csv
    rows: List[Sequence[Any]] = []
    for one in found.items:
        rows += _rows(one, found.currency, where, tags, resources=show_resources, exact=exact, hours=resolution == "h")
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([column.lower().replace(" ", "_") for column in columns])
        writer.writerows([_harmless(cell) for cell in row] for row in rows)
        return
    asked_of = [f"of {app}"] * bool(app) + [f"in {environment}"] * bool(environment)
    empty = " ".join(["Nothing", *asked_of, "ran in that time."])
    tables.show(columns, rows, as_json=as_json, empty=empty)
    if as_json:
        return
    if found.items:
        total, idle = sum(one.cost for one in found.items), sum(one.idle for one in found.items)
        words = money.in_all(total, idle, found.currency)
        print(f"\n{words}{money.unpriced(_unpriced(found))}", file=sys.stderr)
    if found.since > first.timestamp():
        when = datetime.fromtimestamp(found.since, where).strftime("%Y-%m-%d %H:%M")
        print(f"Usage is counted since {when}.", file=sys.stderr)


def show_summary(environment: str, named: str, *, as_json: bool) -> None:
    """Ask and print."""
    first, last = billing_range.during(named, timezone.utc, datetime.now(timezone.utc))
    asked = UsageAsk(first.timestamp(), last.timestamp(), "", environment=environment)
    found = session.ask("usage.report", asked, UsageReported)
    costs: Dict[str, float] = {}
    used: Dict[str, float] = {}
    for one in found.items:
        for resource, cost in one.by_resource.items():
            costs[resource] = costs.get(resource, 0.0) + cost
        for resource, amount in one.amounts.items():
            used[resource] = used.get(resource, 0.0) + amount
    total, idle = sum(one.cost for one in found.items), sum(one.idle for one in found.items)
    if as_json:
        said = {
            "start": first.isoformat(),
            "end": last.isoformat(),
            "currency": found.currency,
            "cost": round(total, 9),
            "idle": round(idle, 9),
            "cost_by_resource": money.rounded(costs),
            "amounts": money.rounded(used),
            "unpriced": _unpriced(found),
        }
        print(json.dumps(said, indent=2))
        return
    rows = [
        (resource, money.amounts({resource: used[resource]}), money.shown(costs.get(resource, 0.0), found.currency))
        for resource in used
        if resource not in {"container", "cpu_used"}
    ]
    tables.show(("Resource", "Amount", "Cost"), rows, as_json=False, empty="Nothing ran in that time.")
    if rows:
        words = money.in_all(total, idle, found.currency)
        print(f"\n{first:%Y-%m-%d} to {last:%Y-%m-%d}: {words}{money.unpriced(_unpriced(found))}", file=sys.stderr)


def _rows(  # noqa: PLR0913  how a row looks
    one: UsageItem, currency: str, where: tzinfo, tags: Sequence[str], *, resources: bool, exact: bool, hours: bool
) -> List[Sequence[Any]]:
    at = datetime.fromtimestamp(one.at, where)
    begins = at.isoformat() if exact else at.strftime("%Y-%m-%d %H:%M" if hours else "%Y-%m-%d")
    named = f"{one.description}.{one.function}" if one.function else one.description
    # What has no such tag is a row, too.
    head = [begins, one.object_id, named if named or exact else "(none)", one.environment]

    def cell(cost: float) -> Any:
        return round(cost, 9) if exact else money.shown(cost, currency, 4 if cost < 1 else 2)

    tail = [currency, *(one.tags.get(name, "") for name in tags)]
    if resources:
        return [[*head, resource, cell(cost), *tail] for resource, cost in one.by_resource.items()]
    return [[*head, cell(one.cost), cell(one.idle), cell(one.starting), *tail]]


def _harmless(cell: Any) -> Any:
    """Text that a spreadsheet would take for a formula, as text: whoever names an app may not be who opens the file."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in set("=+-@\t\r") else cell


def _tags(found: UsageReported, asked: Optional[str]) -> List[str]:
    if not asked:
        return []
    if asked.strip() == "*":
        return sorted({name for one in found.items for name in one.tags})
    return [name.strip() for name in asked.split(",") if name.strip()]


def _unpriced(found: UsageReported) -> List[str]:
    return sorted({resource for one in found.items for resource in one.unpriced})


def _limit(one: Budget, currency: str) -> str:
    words = [money.exact(one.cost, currency)] if one.cost is not None else []
    words += [f"{one.gpu_seconds:,.10g} GPU-seconds"] if one.gpu_seconds is not None else []
    return ", ".join(words)


def _spent(one: Budget, currency: str) -> str:
    words = [money.shown(one.spent, currency)] if one.cost is not None else []
    words += [f"{one.spent_gpu_seconds:,.0f} GPU-seconds"] if one.gpu_seconds is not None else []
    return ", ".join(words)


def _budget(one: Budget, currency: str) -> Dict[str, Any]:
    return {
        "of": one.kind,
        "name": one.name,
        "environment": one.environment,
        "cost": one.cost,
        "gpu_seconds": one.gpu_seconds,
        "stop": one.stop,
        "spent": round(one.spent, 9),
        "spent_gpu_seconds": round(one.spent_gpu_seconds, 6),
        "used_up": one.used_up,
        "since": one.since or None,
        "currency": currency,
    }
