"""``alight environment``: sets of names; which there are, and which one is used."""

from __future__ import annotations

import sys
from typing import Any, Optional

import click

from alight.cli import billing, options, session, tables
from alight.cli.config import set_environment
from alight.wire.deploying import EnvironmentListed, EnvironmentNamed
from alight.wire.errors import NotFoundError
from alight.wire.ids import check_environment


@click.group(short_help="Sets of names: make, list, choose, delete them.")
def environment() -> None:
    """Sets of names: make, list, choose, delete them.

    Apps, volumes and secrets of one environment are not seen from another. It comes into being when something is put
    in it, or with `create`; `-e NAME` chooses one for a command.
    """


@environment.command()
def current() -> None:
    """Print the environment in force."""
    print(session.environment(None) or "main")


@environment.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """List environments and how much is in each."""
    found = session.ask("environment.list", EnvironmentListed(), EnvironmentListed).environments
    rows = [(one.name, one.apps, one.volumes, one.secrets, tables.when(one.created_at)) for one in found]
    columns = ("Name", "Apps", "Volumes", "Secrets", "Created at")
    tables.show(columns, rows, as_json=as_json, empty="No environments yet: the first thing that runs makes `main`.")


@environment.command()
@click.argument("name", metavar="NAME")
def create(name: str) -> None:
    """Make an environment."""
    session.tell("environment.create", EnvironmentNamed(check_environment(name)))
    print(f"Made the environment {name}: `-e {name}` uses it", file=sys.stderr)


@environment.command()
@click.argument("name", metavar="NAME")
@options.yes
def delete(name: str, yes: bool) -> None:
    """Stop all apps of an environment, forget its secrets and its names of images, and the environment.

    It is refused while the environment has volumes, dicts or queues, for what they hold would be lost.
    """
    listed = session.ask("environment.list", EnvironmentListed(), EnvironmentListed).environments
    found = next((one for one in listed if one.name == name), None)
    if found is None:
        names = ", ".join(one.name for one in listed)
        hint: Optional[str] = f"there is: {names}" if names else None
        raise NotFoundError(f"there is no environment {name!r}", hint=hint)
    options.confirm(f"Delete the environment {name} with {found.apps} apps and {found.secrets} secrets?", yes=yes)
    session.tell("environment.delete", EnvironmentNamed(name))
    print(f"Deleted the environment {name}", file=sys.stderr)


environment.add_command(set_environment, "use")


@environment.group("billing")
def environment_billing() -> None:
    """What an environment cost. Without ENV it is the one in force."""


@environment_billing.command("report")
@click.argument("name", metavar="[ENV]", required=False)
@billing.report_options
def billing_report(name: Optional[str], **asked: Any) -> None:
    """Print costs by day (or hour) and app."""
    billing.show_report(_named(name), **asked)


@environment_billing.command("summary")
@click.argument("name", metavar="[ENV]", required=False)
@click.option("--for", "named", default="this month", metavar="MONTH", help='"this month", "last month" or 2026-01.')
@options.as_json
def billing_summary(name: Optional[str], named: str, as_json: bool) -> None:
    """Print what a month cost, by resource."""
    billing.show_summary(_named(name), named, as_json=as_json)


def _named(name: Optional[str]) -> str:
    return check_environment(name) if name else session.environment(None) or "main"
