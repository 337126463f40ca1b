"""The pseudo-terminal of a container's process: made at its first use, kept for the process's life.

Kept, because closing one hangs up on everybody who has it as their terminal. While nobody is connected, what is still
written to it (by a program that was left running) goes to the process's own output, and so to the log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import threading
from typing import Any, Callable, List, Optional

from alight.wire import errors

with contextlib.suppress(ImportError):  # systems without them import this and make no Screen
    import fcntl
    import termios

_READ = 32 << 10
_STREAMS = (0, 1, 2)


class Screen:
    """A pseudo-terminal with this process's programs on one side and ``feed``/``sink`` on the other."""

    def __init__(self) -> None:
        try:
            self._master, self._slave = os.openpty()
        except OSError as error:
            raise errors.ExecutionError(f"this container cannot have a terminal: {error.strerror or error}") from error
        self._modes = termios.tcgetattr(self._slave)
        self._end = b"\0alight " + os.urandom(12).hex().encode() + b"\0"
        self._saved: List[int] = []
        self._stdin: Any = None
        self._sigint: Any = None
        self._sink: Optional[Callable[[bytes], None]] = None
        self._drained = threading.Event()
        self._take_control()
        threading.Thread(target=self._read, name="alight-terminal-out", daemon=True).start()

    def connect(self, sink: Callable[[bytes], None]) -> None:
        """Put the terminal in place of standard input, output and error. ``sink`` gets what programs write to it, in
        a thread of its own, and may block.
        """
        termios.tcsetattr(self._slave, termios.TCSANOW, self._modes)  # an earlier program may have left others
        termios.tcflush(self._slave, termios.TCIFLUSH)
        self._sink = sink
        if _in_main_thread():
            self._sigint = signal.getsignal(signal.SIGINT)
        _flush()
        self._saved = [_copy(descriptor) for descriptor in _STREAMS]
        for descriptor in _STREAMS:
            os.dup2(self._slave, descriptor)
        self._stdin = sys.stdin
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115  for as long as it is there

    def disconnect(self) -> None:
        """Put things back. When this returns, the sink has had everything, and gets nothing more."""
        _flush()
        if self._saved:
            saved, self._saved = self._saved, []
            for descriptor, earlier in zip(_STREAMS, saved):
                os.dup2(earlier, descriptor)
                os.close(earlier)
            sys.stdin = self._stdin
        if self._sigint is not None and _in_main_thread():
            signal.signal(signal.SIGINT, self._sigint)  # a debugger puts its own there and forgets it
        self._sigint = None
        # What is written last comes out last: behind it, the sink has had everything.
        self._drained.clear()
        termios.tcflush(self._slave, termios.TCIFLUSH)
        _write_all(self._slave, self._end)
        self._drained.wait()

    def feed(self, keys: bytes) -> None:
        """What the user typed. Blocks while programs take none of it."""
        if not self._controls and self._interrupts(keys):
            os.kill(os.getpid(), signal.SIGINT)
        _write_all(self._master, keys)

    def resize(self, rows: int, columns: int) -> None:
        """The user's window has this size; programs get SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _take_control(self) -> None:
        """Become the controlling terminal of this process, so that Ctrl-C is a signal and shells have job control."""
        with contextlib.suppress(OSError):
            os.setsid()  # fails where it is its session's first process already
        try:
            fcntl.ioctl(self._slave, termios.TIOCSCTTY, 0)
            self._controls = True
        except OSError:
            self._controls = False  # it has another one: Ctrl-C is then translated by ``feed``

    def _interrupts(self, keys: bytes) -> bool:
        modes = termios.tcgetattr(self._slave)
        return bool(modes[3] & termios.ISIG) and modes[6][termios.VINTR] in keys

    def _read(self) -> None:
        held = b""
        while True:
            held += os.read(self._master, _READ)
            shown, end, rest = held.partition(self._end)
            if not end:
                shown, held = _without_beginning_of(self._end, shown)
            if shown:
                if self._sink is not None:
                    self._sink(shown)
                else:
                    _write_all(1, shown)
            if end:
                held, self._sink = rest, None
                self._drained.set()


def _without_beginning_of(mark: bytes, data: bytes) -> tuple[bytes, bytes]:
    """``data`` in two: what is no part of ``mark``, and the end that could become it."""
    for size in range(min(len(mark) - 1, len(data)), 0, -1):
        if data.endswith(mark[:size]):
            return data[:-size], data[-size:]
    return data, b""


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _copy(descriptor: int) -> int:
    try:
        return os.dup(descriptor)
    except OSError:  # it was closed
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # user code replaced or closed it
            stream.flush()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
