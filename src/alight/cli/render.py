"""Draws what happens while an app runs: one status line at a time, and the output of containers as it comes.

Alight's own words go to stderr, so that ``alight run job.py > out.txt`` holds what the job printed and nothing else.
Output passes through byte by byte unless a person is looking, and then it is only kept from harming the terminal. No
method here may raise because a reader went away half-way; that is the command's business (`errors.py`).
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from typing import IO, Dict, List, Optional, Set, Tuple

from alight.cli import terminal
from alight.cli.terminal import ControlFilter, Style

#: Two containers speak "in the same moment" when their lines alternate within this many seconds.
TOGETHER = 3.0
#: A phase that is over sooner than this many seconds draws no spinner: a flash says nothing.
PATIENCE = 0.12
#: Without a terminal, a wait is worth a line after this many seconds.
LASTING = 2.0
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def make_renderer(*, timestamps: bool = False) -> Drawing:
    """The renderer for this process's stdout and stderr, whatever they are connected to."""
    return Drawing(sys.stdout, sys.stderr, timestamps=timestamps)


class Drawing:
    """A `Renderer` (see ``sdk/progress.py``) over two text streams. Safe to call from any thread."""

    def __init__(self, out: IO[str], err: IO[str], *, timestamps: bool = False) -> None:
        self._sinks = {1: _Sink(out), 2: _Sink(err)}
        self._status = _Status(err)
        self._style = Style(colour=terminal.wants_colour(err))
        self._lock = threading.RLock()
        self._timestamps = timestamps
        self._lines: Dict[Tuple[str, int], bytearray] = {}
        self._builds: Dict[str, bytearray] = {}
        self._waits: Dict[str, str] = {}
        self._counts: Dict[str, str] = {}  # how far calls of many inputs are
        self._voices = _Voices()
        self._open: Optional[Tuple[str, int]] = None  # whose unfinished line the cursor stands in
        self._said: List[str] = []
        self._noted = ""  # the last note: what a call waits for may have been told of its app just before
        self._waited: Set[str] = set()  # calls of which it was said that they wait
        self._timer: Optional[threading.Timer] = None

    # what Alight says

    def phase(self, text: str) -> None:
        """Show what is being done now; an empty text shows nothing again."""
        with self._lock:
            self._status.show(text)

    def done(self, text: str) -> None:
        self._say(f"{self._style.good('✓')} {text}")

    def note(self, text: str) -> None:
        self._noted = text
        self._say(self._style.faint(f"· {text}"))

    def warn(self, text: str) -> None:
        with self._lock:
            if text in self._said:  # once is enough
                return
            self._said.append(text)
        self._say(f"{self._style.warning('! warning:')} {text}")

    def waiting(self, call: str, why: str) -> None:
        """Show why a call waits. Without a terminal a reason that lasts is a line, each once."""
        with self._lock:
            self._waits.pop(call, None)
            if why:
                self._waits[call] = why
            if self._status.live:
                self._show_calls()
            elif why and call in self._waited:
                self._say_wait(call)
            elif why and self._timer is None:
                self._timer = threading.Timer(LASTING, self._say_waits)
                self._timer.daemon = True
                self._timer.start()

    def counted(self, call: str, text: str) -> None:
        """Show how far a call of many inputs is, until an empty text ends it. Draws nothing without a terminal."""
        with self._lock:
            self._counts.pop(call, None)
            if text:
                self._counts[call] = text
            self._show_calls()

    def build_line(self, image: str, data: bytes) -> None:
        """Build logs are drawn by whole lines, indented; of a line that redraws itself only the last state."""
        with self._lock:
            held = self._builds.setdefault(image, bytearray())
            held += data
            *whole, rest = bytes(held).split(b"\n")
            self._builds[image] = bytearray(rest)
            for line in whole:
                self._build_text(image, line)

    # what user code says

    def output(self, container: str, function: str, fd: int, data: bytes) -> None:
        """Draw output of a container now, unfinished lines too, unless several containers speak at once."""
        if not data:
            return
        with self._lock:
            sink = self._sinks[2 if fd == 2 else 1]
            self._status.clear()
            together = self._voices.heard(container)
            if self._timestamps or (together and sink.terminal):
                self._by_lines(sink, (container, fd), function, data, name_speaker=together)
            elif sink.terminal:
                self._live(sink, (container, fd), data)
            else:
                sink.write(data)
            self._status.resume(unless=self._open is not None)

    def end_line(self) -> None:
        """Finish a line that user code left unfinished, so that the next words of Alight begin a line."""
        with self._lock:
            self._finish_line()

    def connected(self, *, is_on: bool) -> None:
        """A container's program has the terminal: no status line, and lines that return to the left themselves."""
        with self._lock:
            self._status.clear()
            self._finish_line()
            for sink in self._sinks.values():
                sink.raw = is_on and sink.terminal
            self._status.paused = is_on
            if not is_on:
                self._status.resume()

    def close(self) -> None:
        with self._lock:
            self._waits.clear()
            self._counts.clear()
            if self._timer is not None:
                self._timer.cancel()
            self._status.show("")
            for image, held in self._builds.items():
                if held:
                    self._build_text(image, bytes(held))
            self._builds.clear()
            for (container, fd), held in self._lines.items():
                if held:
                    sink = self._sinks[2 if fd == 2 else 1]
                    sink.write(self._label(container, "", name_speaker=False) + sink.filtered(bytes(held)) + b"\n")
            self._lines.clear()
            for sink in self._sinks.values():
                sink.flush()
            self._finish_line()
            self._status.stop()

    # helpers

    def _say(self, text: str) -> None:
        with self._lock:
            self._status.clear()
            self._finish_line()
            self._sinks[2].write(terminal.clean(text).encode() + b"\n" if self._sinks[2].terminal else _line(text))
            self._status.resume()

    def _show_calls(self) -> None:
        # A line that user code has not finished yet keeps its place: counts come often.
        self._status.show(_together({**self._waits, **self._counts}), held=self._open is not None)

    def _say_waits(self) -> None:
        """Called when somebody has waited for a while: why, for each that still does."""
        with self._lock:
            self._timer = None
            for call in self._waits:
                self._waited.add(call)
                self._say_wait(call)

    def _say_wait(self, call: str) -> None:
        why = self._waits[call]
        reason = re.sub(r"[0-9][0-9,.]*", "#", why)  # a place in line that moves on is no news
        if why != self._noted and reason not in self._said:
            self._said.append(reason)
            self._say(self._style.faint(f"· {why}"))

    def _build_text(self, image: str, line: bytes) -> None:
        text = line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode(errors="replace")
        label = f"{image[-6:]} " if len(self._builds) > 1 else ""
        self._say(self._style.faint(f"  │ {label}{text}"))

    def _live(self, sink: _Sink, source: Tuple[str, int], data: bytes) -> None:
        held = self._lines.pop(source, None)
        if held:
            data = bytes(held) + data
        if self._open is not None and self._open[0] != source[0]:
            self._finish_line()
        sink.write(sink.filtered(data))
        self._open = None if data.endswith(b"\n") else source

    def _by_lines(
        self, sink: _Sink, source: Tuple[str, int], function: str, data: bytes, *, name_speaker: bool
    ) -> None:
        self._finish_line()
        held = self._lines.setdefault(source, bytearray())
        held += data
        *whole, rest = bytes(held).split(b"\n")
        self._lines[source] = bytearray(rest if rest.endswith(b"\r") else rest.rsplit(b"\r", 1)[-1])
        label = self._label(source[0], function, name_speaker=name_speaker and sink.terminal)
        for line in whole:
            text = line.rstrip(b"\r").rsplit(b"\r", 1)[-1] if sink.terminal else line
            sink.write(label + sink.filtered(text) + b"\n")

    def _label(self, container: str, function: str, *, name_speaker: bool) -> bytes:
        parts = []
        if self._timestamps:
            parts.append(time.strftime("%Y-%m-%d %H:%M:%S"))
        if name_speaker:
            parts.append(f"[{function} {container[-6:]}]" if function else f"[{container[-6:]}]")
        if not parts:
            return b""
        return (self._style.place(" ".join(parts)) + " ").encode()

    def _finish_line(self) -> None:
        if self._open is not None:
            self._sinks[2 if self._open[1] == 2 else 1].write(b"\n")
            self._open = None


class _Sink:
    """One of our two streams. Writes bytes, after whatever text was written to it before."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.terminal = terminal.is_terminal(stream)
        self.raw = False
        self._filter = ControlFilter()

    def filtered(self, data: bytes) -> bytes:
        return self._filter.feed(data) if self.terminal else data

    def write(self, data: bytes) -> None:
        if self.raw:
            data = data.replace(b"\n", b"\r\n")
        binary = getattr(self._stream, "buffer", None)
        if binary is None:  # a stream that a test or a notebook put in place
            self._stream.write(data.decode(errors="replace"))
            self._stream.flush()
            return
        self._stream.flush()
        binary.write(data)
        binary.flush()

    def flush(self) -> None:
        rest = self._filter.flush()
        if rest:
            self.write(rest)


class _Voices:
    """Notices that several containers speak at once: one is heard, another, and then the first again."""

    def __init__(self) -> None:
        self._last = ""
        self._heard: Dict[str, float] = {}
        self._until: Dict[str, float] = {}

    def heard(self, container: str) -> bool:
        now = time.monotonic()
        if container != self._last and now - self._heard.get(container, -TOGETHER) < TOGETHER:
            self._until[container] = now + TOGETHER
            self._until[self._last] = now + TOGETHER
        self._last = container
        self._heard[container] = now
        return now < self._until.get(container, 0.0)


class _Status:
    """The one line at the bottom that says what is going on. Draws nothing where there is no terminal to redraw."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._style = Style(colour=terminal.wants_colour(stream))
        self.live = terminal.is_terminal(stream) and self._style.colour
        self.paused = False
        self._text = ""
        self._since = 0.0
        self._drawn = False
        self._held = False
        self._frame = 0
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._stopped = False

    def show(self, text: str, *, held: bool = False) -> None:
        """Draw this from now on, or once ``resume`` is called; an empty text draws nothing."""
        if not self.live:
            return
        with self._lock:
            if not text:
                self._erase()
            elif not self._text:
                self._since = time.monotonic()
            self._text = text
            self._held = held
            if text and self._thread is None:
                self._thread = threading.Thread(target=self._animate, name="alight-status", daemon=True)
                self._thread.start()
        self._wake.set()

    def clear(self) -> None:
        """Take the line away while something else is written; ``resume`` brings it back."""
        if self.live:
            with self._lock:
                self._held = True
                self._erase()

    def resume(self, *, unless: bool = False) -> None:
        if self.live and not unless:
            with self._lock:
                self._held = False

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=1)
            self._thread = None

    def _animate(self) -> None:
        while not self._stopped:
            self._wake.wait(0.1 if self._text else None)
            self._wake.clear()
            with self._lock, contextlib.suppress(OSError, ValueError):
                if self._text and not self._held and not self.paused and time.monotonic() - self._since >= PATIENCE:
                    self._draw()
            time.sleep(0.05)

    def _draw(self) -> None:
        self._frame = (self._frame + 1) % len(_FRAMES)
        seconds = int(time.monotonic() - self._since)
        took = f" {seconds} s" if seconds >= 3 else ""
        room = max(10, terminal.width() - len(took) - 4)
        text = terminal.clean(self._text.replace("\n", " "))
        text = text if len(text) <= room else text[: room - 1] + "…"
        self._stream.write(f"\r\x1b[2K{self._style.place(_FRAMES[self._frame])} {text}{self._style.faint(took)}")
        self._stream.flush()
        self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write("\r\x1b[2K")
                self._stream.flush()
            self._drawn = False


def _together(calls: Dict[str, str]) -> str:
    """What is said of several calls in one line: the newest, and how many more there are."""
    if not calls:
        return ""
    texts = list(calls.values())
    more = len(texts) - 1
    return texts[-1] + (f" (and {more} more)" if more else "")


def _line(text: str) -> bytes:
    return text.encode(errors="replace") + b"\n"
