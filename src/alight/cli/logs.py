"""``alight app logs``, ``function logs`` and ``container logs``: lines of output, narrowed, merged and followed.

What was printed to stdout comes on stdout, stderr on stderr, and what Alight did on stderr, like all its own words.
"""

from __future__ import annotations

import functools
import re
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import click

from alight.cli import options, session, tables
from alight.cli.errors import UsageError
from alight.cli.moments import parse_when
from alight.wire import ids
from alight.wire.codec import loads_head
from alight.wire.errors import ConnectionError as LostConnectionError
from alight.wire.logs import SOURCES, STDERR, SYSTEM, LogPiece, LogPieces, LogQuery
from alight.wire.record import replace

_LINES = 100
_PATIENCE = 60.0  # seconds that a server may be away while its logs are followed
_AGAIN = 0.5

Command = Callable[..., None]


def log_options(command: Command) -> Command:
    """The options of every ``logs``. The command gets them as one ``Wanted``."""
    choices = [
        click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until it ends."),
        click.option("--since", metavar="WHEN", help="From then on: 2h 30m (ago), 14:30, yesterday, 2026-01-31T12:00."),
        click.option("--until", metavar="WHEN", help="Up to then."),
        click.option(
            "-n", "--tail", type=click.IntRange(min=0), metavar="N", help=f"Only the last N lines. [default: {_LINES}]"
        ),
        click.option("--all", "everything", is_flag=True, help="All that is kept."),
        click.option("--search", metavar="TEXT", default="", help="Only lines that hold this, in any case."),
        click.option("-s", "--source", type=click.Choice(SOURCES), help="Only these; system is what Alight did."),
        click.option("--timestamps", is_flag=True, help="Put the time before each line."),
        click.option("--show-function-id", is_flag=True, help="Put the function's id before each line."),
        click.option("--show-function-call-id", is_flag=True, help="Put the call's id before each line."),
        click.option("--show-container-id", is_flag=True, help="Put the container's id before each line."),
    ]
    names = [choice(lambda: None).__click_params__[0].name for choice in choices]  # type: ignore[attr-defined]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in names}
        command(wanted=Wanted(chosen), **given)

    for choice in reversed(choices):
        wrapped = choice(wrapped)
    return wrapped


class Wanted:
    """What the options say."""

    def __init__(self, chosen: Dict[str, Any]) -> None:
        self.timestamps: bool = chosen["timestamps"]
        self.shown: Tuple[bool, bool, bool] = (
            chosen["show_container_id"],
            chosen["show_function_id"],
            chosen["show_function_call_id"],
        )
        self._chosen = chosen

    @classmethod
    def plain(cls, *, timestamps: bool) -> Wanted:
        """Nothing but whether there is a time before each line."""
        nothing = {"show_container_id": False, "show_function_id": False, "show_function_call_id": False}
        return cls({"timestamps": timestamps, **nothing})

    def narrowed(self, query: LogQuery) -> LogQuery:
        """The question with what the options add. Raises UsageError for what cannot be meant."""
        chosen = self._chosen
        if chosen["everything"] and chosen["tail"] is not None:
            raise UsageError("--tail excludes --all")
        now = time.time()
        since = parse_when(chosen["since"], now) if chosen["since"] else 0.0
        until = parse_when(chosen["until"], now) if chosen["until"] else 0.0
        if until and since > until:
            raise UsageError("--since is after --until: nothing can be between them")
        tail = chosen["tail"]
        if tail is None:
            tail = -1 if chosen["everything"] or chosen["since"] or chosen["until"] else _LINES
        return replace(
            query,
            since=since,
            until=until,
            tail=tail,
            follow=chosen["follow"],
            search=chosen["search"],
            source=chosen["source"] or "",
        )


@click.command("logs")
@click.argument("app_name", metavar="APP")
@click.option("--function", default="", metavar="FUNCTION", help="Only of this function, by name or id.")
@click.option("--call", "--function-call", default="", metavar="CALL", help="Only of this call, by its id.")
@click.option("--container", default="", metavar="CONTAINER", help="Only of this container, by its id.")
@log_options
@options.environment
def app_logs(
    app_name: str, function: str, call: str, container: str, environment: Optional[str], wanted: Wanted
) -> None:
    """Show what an app's containers printed, and what Alight did with them. APP is a name or an id.

    The last 100 lines, unless --since, --until, -n or --all say otherwise.
    """
    query = LogQuery(app_name, function, call, container, session.environment(environment))
    show(wanted.narrowed(query), wanted)


@click.command("logs")
@click.argument("function_name", metavar="FUNCTION")
@click.option("--call", "--function-call", default="", metavar="CALL", help="Only of this call, by its id.")
@click.option("--container", default="", metavar="CONTAINER", help="Only of this container, by its id.")
@click.option("--all-variants", is_flag=True, hidden=True, help="What is done anyway.")
@log_options
@options.environment
def function_logs(
    function_name: str, call: str, container: str, all_variants: bool, environment: Optional[str], wanted: Wanted
) -> None:
    """Show what a function's containers printed. FUNCTION is an id, or APP/NAME."""
    del all_variants
    app, function = _function(function_name)
    query = LogQuery(app, function, call, container, session.environment(environment))
    show(wanted.narrowed(query), wanted)


@click.command("logs")
@click.argument("container_id", metavar="CONTAINER")
@log_options
def container_logs(container_id: str, wanted: Wanted) -> None:
    """Show what a container printed. CONTAINER is its id."""
    if not container_id.startswith(f"{ids.CONTAINER}-"):
        raise UsageError(
            f"{container_id!r} is no id of a container",
            hint=f"it looks like {ids.CONTAINER}-…: `alight container list`",
        )
    show(wanted.narrowed(LogQuery(container=container_id)), wanted)


def show(query: LogQuery, wanted: Optional[Wanted] = None) -> None:
    """Print the answer. What is followed is taken up again when the server was away for a moment."""
    from alight.cli import render  # noqa: PLC0415  start-up weight

    drawing = render.make_renderer()
    printer = Printer(drawing, wanted)
    since = time.monotonic()
    try:
        while True:
            try:
                for head, body in session.stream("logs.query", query):
                    message = loads_head(LogPieces, head)
                    printer.show(message, body)
                    query = replace(query, after=message.cursor)
                    since = time.monotonic()
                return
            except LostConnectionError:
                if not query.follow or time.monotonic() - since > _PATIENCE:
                    raise
                time.sleep(_AGAIN)
    finally:
        drawing.close()


class Printer:
    """Draws lines as they come, with what was asked to stand before each."""

    def __init__(self, drawing: Any, wanted: Optional[Wanted]) -> None:
        self._drawing = drawing
        self._wanted = wanted
        self._names: Dict[str, str] = {}
        self._inside: Dict[Tuple[str, str], bool] = {}  # whether a line of this container and source is unfinished

    def show(self, message: LogPieces, body: bytes) -> None:
        """Draw one message of an answer."""
        self._names.update(message.functions)
        for piece, lines in message.cut(body):
            before = self._before(piece)
            if piece.source == SYSTEM:
                for line in lines.decode(errors="replace").splitlines():
                    self._drawing.note(before + line)
                continue
            key = (piece.container, piece.source)
            data = _each(lines, before.encode(), inside=self._inside.get(key, False)) if before else lines
            self._inside[key] = not data.endswith(b"\n")
            name = self._names.get(piece.function, "")
            self._drawing.output(piece.container, name, 2 if piece.source == STDERR else 1, data)
        if message.ended:
            self._drawing.note(message.ended)

    def _before(self, piece: LogPiece) -> str:
        if self._wanted is None:
            return ""
        words: List[str] = [tables.when(piece.at) or ""] if self._wanted.timestamps else []
        ids_shown = zip(self._wanted.shown, (piece.container, piece.function, piece.call))
        words += [one or "-" for shown, one in ids_shown if shown]
        return "".join(f"{word} " for word in words)


def _each(data: bytes, before: bytes, *, inside: bool) -> bytes:
    lines = data.split(b"\n")
    whole = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    return b"".join(line if inside and not number else before + line for number, line in enumerate(whole))


def _function(text: str) -> Tuple[str, str]:
    """App and function of what was typed."""
    if text.startswith(f"{ids.FUNCTION}-"):
        return "", text
    app, found, function = re.sub("::", "/", text).partition("/")
    if not found or not app or not function:
        raise UsageError(f"{text!r} names no function", hint="write APP/FUNCTION, or its id (fu-…)")
    return app, function
