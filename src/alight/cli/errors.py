"""The one place where errors become words, hints and exit codes.

    0 done · 1 it failed · 2 the command line was wrong · 130 interrupted · 141 the reader of our output went away

Everything else raises. Nothing else in Alight prints an error or ends the process.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Optional

import click

from alight.cli import terminal, tracebacks
from alight.cli.terminal import Style
from alight.wire import errors as wire

FAILED = 1
USAGE = 2
INTERRUPTED = 130
NO_READER = 141


class UsageError(click.UsageError):
    """The command line was wrong, and this is how to make it right."""

    def __init__(self, message: str, *, hint: Optional[str] = None) -> None:
        super().__init__(message)
        self.hint = hint


class Interrupted(Exception):
    """Ctrl-C, and what has become of what was going on."""


class UserCodeError(Exception):
    """Carries an exception of the user's script, so that it is never mistaken for one of ours."""

    def __init__(self, error: BaseException, *, hint: Optional[str] = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.hint = hint


def report(error: BaseException) -> int:
    """Print what went wrong to stderr and return the exit code. Never raises for what it is given."""
    style = Style(colour=terminal.wants_colour(sys.stderr))
    if isinstance(error, click.exceptions.Exit):
        return int(error.exit_code)
    if isinstance(error, SystemExit):
        return _exit_code(error)
    if isinstance(error, BrokenPipeError):
        _leave_closed_pipe()
        return NO_READER
    if isinstance(error, click.UsageError) and type(error).__name__ == "NoArgsIsHelpError":  # click 8.2 and later
        print(error.format_message())
        return 0
    if isinstance(error, (KeyboardInterrupt, Interrupted)):
        begin = "\n" if terminal.is_terminal(sys.stderr) else ""  # the terminal has drawn ^C
        _print(begin + style.warning(_clean(str(error) or "Interrupted")))
        return INTERRUPTED
    if isinstance(error, UserCodeError):
        return _report_user_code(error, style)
    if isinstance(error, wire.Error):
        return _report_ours(error, style)
    if isinstance(error, click.ClickException):
        return _report_click(error, style)
    if isinstance(error, click.Abort):
        _say(style, "aborted", None if terminal.is_terminal(sys.stdin) else "there is no terminal to ask: add --yes")
        return FAILED
    if tracebacks.show_all():
        _print(traceback.format_exc().rstrip() if sys.exc_info()[1] is error else tracebacks.render(error, style))
        return FAILED
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        where = f" ({error.filename})" if error.filename else ""
        _say(style, f"{(error.strerror or str(error)).lower()}{where}", None)
        return FAILED
    _say(
        style,
        f"a fault of Alight's own: {type(error).__name__}: {error}",
        "ALIGHT_TRACEBACK=1 shows where; please report it",
    )
    return FAILED


def _report_user_code(carrier: UserCodeError, style: Style) -> int:
    error = carrier.error
    if isinstance(error, (UserCodeError, click.exceptions.Exit, click.ClickException, KeyboardInterrupt, SystemExit)):
        return report(error)
    if isinstance(error, BrokenPipeError) and not tracebacks.has_user_frames(error):
        return report(error)
    if isinstance(error, wire.Error):
        return _report_ours(error, style, place=tracebacks.user_place(error))
    _print(tracebacks.render(error, style).rstrip("\n"))
    if carrier.hint:
        _hint(style, carrier.hint)
    return FAILED


def _report_ours(error: wire.Error, style: Style, *, place: str = "") -> int:
    if tracebacks.show_all():
        _print(tracebacks.render(error, style).rstrip("\n"))
    told = isinstance(error, wire.SerializationError)  # its sentence holds what the pickler said
    if (
        error.__cause__ is not None
        and not told
        and tracebacks.has_user_frames(error.__cause__)
        and not tracebacks.show_all()
    ):
        _print(tracebacks.render(error.__cause__, style).rstrip("\n"))
    _say(style, str(error) + (style.faint(f" (at {place})") if place else ""), error.hint)
    return FAILED


def _report_click(error: click.ClickException, style: Style) -> int:
    hint = getattr(error, "hint", None)
    context = getattr(error, "ctx", None)
    if hint is None and isinstance(error, click.UsageError) and context is not None:
        hint = f"`{context.command_path} --help` shows how"
    _say(style, _lower_first(error.format_message().strip().rstrip(".")), hint)
    return int(error.exit_code)


def _say(style: Style, message: str, hint: Optional[str]) -> None:
    _print(f"{style.bad('Error:')} {_clean(message)}")
    if hint:
        _hint(style, hint)


def _hint(style: Style, hint: str) -> None:
    _print(f"{style.place('hint:')} {_clean(hint)}")


def _clean(text: str) -> str:
    return terminal.clean(text)


def _print(text: str) -> None:
    try:
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _leave_closed_pipe()


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    _print(str(error.code))
    return FAILED


def _leave_closed_pipe() -> None:
    """Point our streams at nothing, so that Python's own flush at exit has nobody to complain about."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nothing, stream.fileno())
    os.close(nothing)


def _lower_first(text: str) -> str:
    """Click begins with a capital; our sentences follow "Error:" without one, except where it is a name."""
    word = text.partition(" ")[0]
    return text[:1].lower() + text[1:] if word[1:].islower() and word.isalpha() else text
