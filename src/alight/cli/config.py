"""``alight config``: the settings in force and where each comes from."""

from __future__ import annotations

import json
from typing import Any

import click

from alight.cli import options, tables
from alight.sdk import config as settings
from alight.sdk.environment import DEFAULT_ENVIRONMENT
from alight.wire.ids import check_environment

_SECRETS = frozenset({"token_secret"})


@click.group(short_help="Show the settings in force.")
def config() -> None:
    """Show the settings in force."""


@config.command()
@click.option("--redact/--no-redact", default=True, help="Hide the token's secret. [default: yes]")
@options.as_json
def show(redact: bool, as_json: bool) -> None:
    """Show every setting, its value and where it comes from."""
    loaded = settings.load()
    values = {name: _shown(name, value, redact=redact) for name, value in loaded.values.items()}
    if as_json:
        print(json.dumps({"profile": loaded.profile, "home": str(settings.home()), **values}, indent=2))
        return
    rows = [(name, value, loaded.sources.get(name, "default")) for name, value in values.items()]
    rows = [("profile", loaded.profile, str(settings.path())), ("home", str(settings.home()), "ALIGHT_HOME"), *rows]
    tables.show(("Setting", "Value", "From"), rows, as_json=False)


@config.command("set-environment")
@click.argument("name", metavar="ENVIRONMENT")
def set_environment(name: str) -> None:
    """Use this environment from now on, in the profile in force."""
    profile = settings.load().profile or "default"
    settings.store_profile(profile, {"environment": check_environment(name)}, activate=False)
    print(f"The profile {profile} uses the environment {name}")


def _shown(name: str, value: Any, *, redact: bool) -> Any:
    if name == "environment":
        return value or DEFAULT_ENVIRONMENT
    return "***" if redact and value and name in _SECRETS else value
