"""Ctrl-C and polite kills during a run: one ends it gently, a second one some time later ends it at once.

A run has something to put in order when it is interrupted: the app on the server. People press Ctrl-C more than once,
so presses that follow each other closely are one.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import Any, Iterator

#: Presses within so many seconds after the first are the same wish.
TOGETHER = 2.0


class Interrupts:
    """How often the user asked to leave."""

    def __init__(self) -> None:
        self.count = 0
        self._last = -TOGETHER

    def on_interrupt(self, _number: int, _frame: Any) -> None:
        """The handler of SIGINT."""
        now = time.monotonic()
        if now - self._last < TOGETHER:
            return
        self._last = now
        self.count += 1
        raise KeyboardInterrupt

    def on_end(self, number: int, _frame: Any) -> None:
        """The handler of SIGTERM and SIGHUP: leave like after Ctrl-C, with the status that shells expect."""
        if self.count == 0:
            self.count += 1
            self._last = time.monotonic()
            raise SystemExit(128 + number)


@contextlib.contextmanager
def handled() -> Iterator[Interrupts]:
    """Within this block signals count; afterwards everything is as it was. Does nothing outside the main thread."""
    interrupts = Interrupts()
    before = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {"SIGINT": interrupts.on_interrupt, "SIGTERM": interrupts.on_end, "SIGHUP": interrupts.on_end}
        for name, handler in handlers.items():
            number = getattr(signal, name, None)  # SIGHUP is not on Windows
            if number is not None and signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
                before[number] = signal.signal(number, handler)
    try:
        yield interrupts
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def ignored() -> None:
    """From now on Ctrl-C does nothing: the process is about to end and has nothing left to put in order."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
