"""Options that many commands share, so that they are spelled and explained once; and the question before harm."""

from __future__ import annotations

import sys
from typing import Any, Callable, TypeVar

import click

from alight.cli import terminal
from alight.wire.errors import Error

F = TypeVar("F", bound=Callable[..., Any])


def environment(function: F) -> F:
    """`-e/--env`, as ``environment``."""
    return click.option("-e", "--env", "environment", metavar="NAME", help="The environment to look in.")(function)


def as_json(function: F) -> F:
    """`--json`, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def yes(function: F) -> F:
    """`-y/--yes`, as ``yes``."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is lost. Raises click.Abort for a no, Error where nobody can be asked."""
    if yes:
        return
    if not terminal.is_terminal(sys.stdin):
        raise Error(f"{question.rstrip('?')}: there is no terminal to ask", hint="add --yes when you mean it")
    click.confirm(question, abort=True, err=True)
