"""``alight profile``: which server to use. Reads and writes the configuration file and talks to nobody."""

from __future__ import annotations

import sys

import click

from alight.cli import options, tables
from alight.sdk import config
from alight.wire.errors import NotFoundError


@click.group(short_help="Which server to use.")
def profile() -> None:
    """Which server to use."""


@profile.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """List profiles; the one in force is marked."""
    current_name = config.load().profile
    rows = [
        (
            name == current_name if as_json else ("•" if name == current_name else ""),
            name,
            table.get("server_url") or "",
        )
        for name, table in sorted(config.read_profiles().items())
    ]
    tables.show(
        ("Active", "Profile", "Server"),
        rows,
        as_json=as_json,
        empty="No profiles: this machine's own server is used. `alight setup URL` adds one.",
    )


@profile.command()
def current() -> None:
    """Print the profile in force."""
    name = config.load().profile
    if not name:
        raise NotFoundError("no profile is in force: this machine's own server is used", hint="`alight profile list`")
    print(name)


@profile.command()
@click.argument("name", metavar="PROFILE")
def activate(name: str) -> None:
    """Use this profile from now on."""
    config.activate_profile(name)
    print(f"Using the profile {name}", file=sys.stderr)
