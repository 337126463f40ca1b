"""What a failed step said: cut to its tail, without credentials, with the known causes explained.

The only place that knows how the messages of pip, uv and apt look.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable

from alight.builder import causes
from alight.wire.errors import ImageBuildError

#: How many last lines an error carries.
TAIL = 20

_URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)|(?<=://)[^/\s:@]{8,}(?=@)")
_HIDDEN = "****"


class Redactor:
    """Takes secret values and credentials in URLs out of text."""

    def __init__(self, values: Iterable[str]) -> None:
        lines = {line for value in values for line in value.splitlines() if len(line.strip()) >= 4}
        self._values = sorted(lines, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, _HIDDEN)
        return _URL_CREDENTIALS.sub(_HIDDEN, text)


class Output:
    """Bytes in any pieces become redacted lines, each handed on once; the last of them stay for an error.

    Of a line that is drawn over and over (progress bars) the last drawing of each piece counts, so that a log is not
    made of them and nobody waits for a newline that never comes.
    """

    def __init__(self, redact: Callable[[str], str], on_line: Callable[[str], None]) -> None:
        self._redact = redact
        self._on_line = on_line
        self._rest = b""
        self.tail: deque[str] = deque(maxlen=TAIL)

    def feed(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._take(line)
        if b"\r" in self._rest[:-1]:
            *drawn, self._rest = self._rest.split(b"\r")
            self._take(drawn[-1])
        if len(self._rest) > 65536:  # a line without end must not grow in memory
            self.close()

    def close(self) -> None:
        if self._rest:
            self._take(self._rest)
            self._rest = b""

    def _take(self, line: bytes) -> None:
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        text = self._redact(shown.decode("utf-8", "replace").rstrip())
        if text:
            self.tail.append(text)
            self._on_line(text)


def step_failed(title: str, status: int, tail: Iterable[str]) -> ImageBuildError:
    """The error for a step that ended with ``status``; the last lines are in its details, not in its sentence."""
    lines = list(tail)
    died = f"was ended by signal {-status}" if status < 0 else f"failed with exit status {status}"
    cause, hint = explain("\n".join(lines))
    return ImageBuildError(
        f"the image step {title} {died}{cause}", hint=hint, step=title, exit_status=status, tail=lines
    )


def disk_full(title: str) -> ImageBuildError:
    """The error for a disk that filled up outside a step's own command."""
    return ImageBuildError(
        f"the image step {title} failed: no space left on the disk that holds images", hint=causes.DISK_HINT, step=title
    )


def explain(text: str) -> tuple[str, str | None]:
    """(": what went wrong", hint) for the causes that are known, ("", None) for the others."""
    for pattern, cause, hint in causes.CAUSES:
        found = re.search(pattern, text, re.IGNORECASE)
        if found:
            named = next((group for group in found.groups() if group), "").strip("`'\".,:")
            package = causes.package_with(named)
            known = f'put .apt_install("{package}") before this step' if package else hint
            return ": " + cause.format(named), known
    return "", None
