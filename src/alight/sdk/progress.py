"""What happens while an app runs, told to whoever draws it.

The SDK says what happened and never how it looks: it calls the renderer that is in force, which is silent unless the
command line or ``enable_output()`` put another one in its place. Nothing here prints, and nothing here may be slow: a
renderer is called from whichever thread learned the news, so every method must be safe to call from any thread.
"""

from __future__ import annotations

import contextlib
from typing import Iterator, Protocol


class Renderer(Protocol):
    """Draws what happens. Text is one line of plain words without a full stop; bytes are drawn as they come."""

    def phase(self, text: str) -> None:
        """This is being done now, until the next phase, ``done`` or ``close``."""

    def done(self, text: str) -> None:
        """A step is finished, with its name and what is worth knowing of it (how long, how much)."""

    def note(self, text: str) -> None:
        """Something that a user may want to know and need not act upon."""

    def warn(self, text: str) -> None:
        """Something that a user should act upon, now or later."""

    def build_line(self, image: str, data: bytes) -> None:
        """A piece of an image's build log; pieces need not end where lines do."""

    def output(self, container: str, function: str, fd: int, data: bytes) -> None:
        """What user code wrote to its stdout (``fd`` 1) or stderr (2); pieces need not end where lines do."""

    def waiting(self, call: str, why: str) -> None:
        """Why this call waits, in words; an empty ``why`` says that it waits no longer."""

    def close(self) -> None:
        """Everything was told. Draws what is still held back and gives the terminal back."""


class Silent:
    """The renderer of plain scripts: draws nothing."""

    def phase(self, text: str) -> None:
        """Draw nothing."""

    def done(self, text: str) -> None:
        """Draw nothing."""

    def note(self, text: str) -> None:
        """Draw nothing."""

    def warn(self, text: str) -> None:
        """Draw nothing."""

    def build_line(self, image: str, data: bytes) -> None:
        """Draw nothing."""

    def output(self, container: str, function: str, fd: int, data: bytes) -> None:
        """Draw nothing."""

    def waiting(self, call: str, why: str) -> None:
        """Draw nothing."""

    def counted(self, call: str, text: str) -> None:
        """Draw nothing."""

    def close(self) -> None:
        """Draw nothing."""


def current() -> Renderer:
    """The renderer in force."""
    return _stack[-1]


def is_shown() -> bool:
    """Whether anybody draws; when nobody does, logs need not be fetched at all."""
    return len(_stack) > 1


def counted(call: str, text: str) -> None:
    """How far a call with many inputs is, in words ("map f: 3,210 of 10,000 done"); an empty text says that it ended.

    Told to renderers that have a method of this name and form; the others draw nothing.
    """
    tell = getattr(current(), "counted", None)
    if tell is not None:
        tell(call, text)


def connected(*, is_on: bool) -> None:
    """A container's program has the terminal from now on, or no longer: it draws where it likes, and lines of others
    have to return to the left by themselves.

    Told to renderers that have a method of this name and form; the others draw as ever.
    """
    tell = getattr(current(), "connected", None)
    if tell is not None:
        tell(is_on=is_on)


@contextlib.contextmanager
def showing(renderer: Renderer) -> Iterator[Renderer]:
    """Puts a renderer in force for the length of a ``with`` block and closes it at the end."""
    _stack.append(renderer)
    try:
        yield renderer
    finally:
        _stack.remove(renderer)
        renderer.close()


_stack: list[Renderer] = [Silent()]
