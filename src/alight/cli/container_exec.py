"""``alight container exec``: a program in a container that runs."""

from __future__ import annotations

from typing import Optional, Tuple

import click


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--pty/--no-pty", "pty", default=None, help="A terminal there; the default: when there is one here.")
@click.argument("container_id", metavar="CONTAINER")
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(container_id: str, words: Tuple[str, ...], pty: Optional[bool]) -> int:
    """Run a program in a running container.

    With the container's files, environment and limits. Its exit status becomes this command's.
    """
    from alight.cli import exec_session  # noqa: PLC0415  start-up weight

    if words[0] == "--":  # what stands behind it is the command, as before it
        words = words[1:]
    if not words:
        raise click.UsageError("the command that is to run there is missing")
    with_terminal = exec_session.has_terminal() if pty is None else pty
    return exec_session.run(container_id, words, pty=with_terminal)
