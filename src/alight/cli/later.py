"""Commands that users know and that Alight does not have yet: each says so in one sentence, and nothing else."""

from __future__ import annotations

from typing import List, Tuple

import click

from alight.wire.errors import UnimplementedError


def _later(name: str, does: str, instead: str = "") -> click.Command:
    """A command that takes any words and refuses them kindly, so that scripts fail with a reason."""

    @click.command(
        name,
        help=f"{does}. This version cannot do it yet.",
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: Tuple[str, ...]) -> None:
        del words
        raise UnimplementedError(f"`alight {name}` is not there yet: {_lower(does)}", hint=instead or None)

    return command


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


function = _later("function", "It will show functions, their calls and their scaling")

NAMES: List[str] = [command.name or "" for command in (function,)]
