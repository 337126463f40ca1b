"""``alight app budget``: what an app may cost in a month, or a run in its life."""

from __future__ import annotations

from typing import Any, Optional

import click

from alight.cli import options
from alight.cli.billing import budget_options, set_budget
from alight.cli.errors import UsageError


@click.command("budget")
@click.argument("app_name", metavar="APP")
@click.option("--month", metavar="MONEY", help="What a month may cost, over all that runs under this name.")
@click.option("--cost", metavar="MONEY", help="The same for the id of a run: what all of it may cost.")
@budget_options
@options.environment
@options.as_json
def app_budget(
    app_name: str, month: Optional[str], cost: Optional[str], environment: Optional[str], **rest: Any
) -> None:
    """Show or set the budget of an app. APP is a name, or the id of a run.

    When it is used up new inputs wait, and say so; what runs finishes, or is stopped with --stop. What is not given
    stays as it was set before.
    """
    if month is not None and cost is not None:
        raise UsageError("--month and --cost say the same", hint="--month for an app by its name, --cost for one run")
    if cost is not None:
        set_budget("app", app_name, cost, option="--cost", environment=environment, **rest)
    else:
        set_budget("app", app_name, month, option="--month", environment=environment, **rest)
