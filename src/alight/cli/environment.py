"""``alight environment``: which names are looked up where. Environments appear when they are used."""

from __future__ import annotations

import click

from alight.cli import session
from alight.cli.config import set_environment


@click.group(short_help="Which environment to use.")
def environment() -> None:
    """Which environment to use.

    An environment is a set of names: apps, volumes and secrets of one are not seen from another. It comes into being
    when something is put in it; `-e NAME` chooses one for a command.
    """


@environment.command()
def current() -> None:
    """Print the environment in force."""
    print(session.environment(None) or "main")


environment.add_command(set_environment, "use")
