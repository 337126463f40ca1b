"""``alight nfs``: the old name of ``alight volume``, for scripts that have it."""

from __future__ import annotations

import sys
from typing import Any

import click

from alight.cli.volume import volume

#: What network file systems could do.
_COMMANDS = ("list", "create", "delete", "ls", "get", "put", "rm")


class _Old(click.Group):
    """The commands of volumes, each with a word on its new name."""

    def invoke(self, ctx: click.Context) -> Any:
        print("`alight nfs` has gone out of use: write `alight volume`", file=sys.stderr)
        return super().invoke(ctx)


nfs = _Old(
    "nfs",
    {name: volume.commands[name] for name in _COMMANDS},
    help="The old name of `alight volume`: the same commands on the same volumes.",
    short_help="Old name of `alight volume`.",
)
