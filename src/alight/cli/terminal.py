"""What a terminal may be sent: colours and carriage returns of user code, and nothing that moves, hides or answers.

Output of containers is somebody else's bytes. A terminal obeys them, so before they reach one everything is taken out
that could draw over other lines, change the title, or make the terminal type by itself. Files and pipes are not
terminals: they get every byte, and must never pass through here.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import IO, Any


def is_terminal(stream: IO[Any]) -> bool:
    """Whether a person is looking at this stream. False for closed and for replaced streams without a descriptor."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def wants_colour(stream: IO[Any]) -> bool:
    """Whether this stream may be coloured: a terminal that is able to, and nobody who set NO_COLOR."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Columns of the terminal; 100 when there is none, so that tables in pipes are the same everywhere."""
    return shutil.get_terminal_size((100, 24)).columns


class Style:
    """Colours by what they mean. Every method returns the text as it is when colour is not wanted."""

    def __init__(self, *, colour: bool) -> None:
        self.colour = colour

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        return self._paint("1;31", text)

    def warning(self, text: str) -> str:
        return self._paint("33", text)

    def strong(self, text: str) -> str:
        return self._paint("1", text)

    def faint(self, text: str) -> str:
        return self._paint("2", text)

    def place(self, text: str) -> str:
        return self._paint("36", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text


class ControlFilter:
    """Bytes of user code in, bytes that are safe for a terminal out.

    Remembers a sequence that was cut in two between pieces. One filter per stream.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What of this piece, and of what was held back before it, may be shown now."""
        data = self._held + data
        cut = _UNFINISHED.search(data)
        self._held = b""
        if cut and len(data) - cut.start() <= _LONGEST:
            self._held = data[cut.start() :]
            data = data[: cut.start()]
        return _CONTROL.sub(_keep_colour, data)

    def flush(self) -> bytes:
        """Forget a sequence that never ended: it could not be shown anyway, unless it is part of a character."""
        held, self._held = self._held, b""
        return b"" if held.startswith(b"\x1b") else held


def clean(text: str) -> str:
    """One string for the terminal: names, messages and log lines that came from somewhere else."""
    return ControlFilter().feed(text.encode(errors="replace")).decode(errors="replace")


#: Longer than any honest sequence: past it, an unfinished one is no sequence but text that begins like one.
_LONGEST = 4096

_CONTROL = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours are among them
    rb"|\x1b[\]PX^_].*?(?:\x07|\x1b\\)"  # OSC, DCS, SOS, PM, APC up to their end
    rb"|\x1b[ -/]*[0-~]?"  # every other escape
    rb"|\xc2[\x80-\x9f]"  # C1 controls as UTF-8
    rb"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]",  # C0 but tab, line feed, carriage return
    re.DOTALL,
)
_UNFINISHED = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_](?:(?!\x07|\x1b\\).)*|[ -/]*)\Z|\xc2\Z",
    re.DOTALL,
)
_COLOUR = re.compile(rb"\x1b\[[0-9;:]*m")


def _keep_colour(found: re.Match[bytes]) -> bytes:
    return found.group() if _COLOUR.fullmatch(found.group()) else b""
