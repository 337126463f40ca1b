"""``alight app budget``: what an app may cost in a month, or a run in its life."""

from __future__ import annotations

from typing import Optional

import click

from alight.cli import options
from alight.cli.billing import set_budget
from alight.cli.errors import UsageError


@click.command("budget")
@click.argument("app_name", metavar="APP")
@click.option("--month", metavar="MONEY", help="What a month may cost, over all that runs under this name.")
@click.option("--cost", metavar="MONEY", help="The same for the id of a run: what all of it may cost.")
@click.option("--gpu-seconds", metavar="SECONDS", help="How many seconds of GPUs it may have.")
@click.option("--stop/--finish", default=False, help="When it is used up: stop what runs, or let it finish (default).")
@click.option("--clear", is_flag=True, help="Take the budget away.")
@options.environment
@options.as_json
def app_budget(  # noqa: PLR0913, PLR0917  one option each
    app_name: str,
    month: Optional[str],
    cost: Optional[str],
    gpu_seconds: Optional[str],
    stop: bool,
    clear: bool,
    environment: Optional[str],
    as_json: bool,
) -> None:
    """Show or set the budget of an app. APP is a name, or the id of a run.

    When it is used up new inputs wait, and say so; what runs finishes, or is stopped with --stop.
    """
    if month is not None and cost is not None:
        raise UsageError("--month and --cost say the same", hint="--month for an app by its name, --cost for one run")
    limits = (month if month is not None else cost, gpu_seconds)
    set_budget("app", app_name, limits, stop=stop, clear=clear, environment=environment, as_json=as_json)
