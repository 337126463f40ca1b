"""``enable_output()``: see progress and the output of containers when a plain script runs an app.

The command line's renderer draws when it can be imported; without it, plain lines.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from typing import Any, Iterator

from alight.sdk import progress


@contextlib.contextmanager
def enable_output(show_progress: bool = True) -> Iterator[None]:
    """Within this block, apps show what they do and what their containers print."""
    del show_progress  # of older scripts; a renderer that has no terminal shows little anyway
    with progress.showing(_renderer()):
        yield


def _renderer() -> progress.Renderer:
    try:
        # By name: the command line stands above this package, and a container doesn't have it.
        found: Any = importlib.import_module("alight.cli.render")
    except ImportError:
        return PlainLines()
    renderer: progress.Renderer = found.make_renderer()
    return renderer


class PlainLines(progress.Silent):
    """Output as it comes, and what a user should know as lines on stderr."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def note(self, text: str) -> None:
        """A line on stderr."""
        self._say(text)

    def warn(self, text: str) -> None:
        """A line on stderr."""
        self._say(f"Warning: {text}")

    def build_line(self, image: str, data: bytes) -> None:
        """The log, on stderr."""
        del image
        self._write(sys.stderr, data)

    def output(self, container: str, function: str, fd: int, data: bytes) -> None:
        """The bytes, to the stream that they were written to."""
        del container, function
        self._write(sys.stdout if fd == 1 else sys.stderr, data)

    def _say(self, text: str) -> None:
        self._write(sys.stderr, text.encode() + b"\n")

    def _write(self, stream: Any, data: bytes) -> None:
        with self._lock:
            raw = getattr(stream, "buffer", None)
            if raw is None:
                stream.write(data.decode(errors="replace"))
            else:
                stream.flush()
                raw.write(data)
            stream.flush()
