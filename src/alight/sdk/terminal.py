"""The user's terminal, lent to an app: `alight run -i`, ``app.run(interactive=True)``.

While a container has it, the terminal is raw: keys go to the container's program as they are, Ctrl-C too, and what the
program writes is drawn as it is. However that ends (the program, the container, the connection or this process, even
by a kill that cannot be handled), the terminal's modes are put back.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Optional, Tuple

from alight.sdk import progress
from alight.sdk.lost import LostError
from alight.sdk.sync import call_blocking
from alight.wire import errors
from alight.wire.codec import loads_head
from alight.wire.terminal import TerminalAttach, TerminalWord

if TYPE_CHECKING:
    from alight.sdk.conversation import Stream
    from alight.sdk.running import RunningApp

_LOOK_SECONDS = 0.25  # how often the window's size is looked at
_QUIET_SECONDS = 0.1  # without output, before a program's first words: those before it came another way
_QUIET_MOST = 1.0
_READ = 4096
#: Programs that were cut off may have left these on: pasting in brackets, a hidden cursor, a colour.
_PLAIN = b"\x1b[?2004l\x1b[?25h\x1b[0m"
#: Puts the modes back when this process cannot: its end of the pipe closes with it.
_GUARD = 'cat >/dev/null; stty "$1" <&3'


def check() -> None:
    """Raise InvalidError unless this process has a terminal to lend and shows what containers print."""
    try:
        there = sys.stdin.isatty() and sys.stdout.isatty()
    except (AttributeError, ValueError):
        there = False
    if not there:
        raise errors.InvalidError(
            "an interactive run needs a terminal, and this process has none: its standard input or output is a pipe, a "
            "file or nothing",
            hint="start it from a terminal, without redirections",
        )
    if not progress.is_shown():
        raise errors.InvalidError(
            "app.run(interactive=True) needs the output of containers to be shown",
            hint="put it into `with alight.enable_output():`",
        )


class Terminal:
    """This process's terminal while an app runs with it."""

    def __init__(self, running: RunningApp) -> None:
        self._running = running
        self._stream: Optional[Stream] = None
        self._lock = threading.Lock()
        self._turn = 0  # whose program has the terminal; 0: nobody's
        self._raw: Optional[Raw] = None
        self._line_open = False
        self._wake, self._waker = os.pipe()
        self._closed = False

    async def lend(self) -> None:
        """Offer it to the app's containers. Returns once the server has been asked."""
        message = TerminalAttach(self._running.app_id)
        self._stream = await self._running.client.open("terminal.attach", message, end=False)
        self._stream.listen(self._on_message)

    def close(self) -> None:
        """Have it back for good."""
        self._closed = True
        self._take_back()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.leave()

    def _on_message(self, message: Optional[Tuple[bytes, bytes]], error: Optional[errors.Error]) -> None:
        """Called by the thread that read it."""
        if message is None:
            self._take_back()
            if self._closed:
                return
            if isinstance(error, LostError):
                threading.Thread(target=self._lend_again, args=(error,), daemon=True, name="alight-terminal").start()
            elif error is not None:
                progress.current().warn(f"containers cannot have the terminal any more: {error}")
        elif message[0]:
            word = loads_head(TerminalWord, message[0])
            if word.kind == "connect":
                self._turn = word.turn
                threading.Thread(target=self._serve, args=(word,), daemon=True, name="alight-keys").start()
            elif word.kind == "released":
                self._take_back()
        elif message[1] and self._raw is not None:
            self._line_open = not message[1].endswith(b"\n")
            _write_all(sys.stdout.fileno(), message[1])

    def _lend_again(self, lost: LostError) -> None:
        async def again() -> None:
            await self._running.client.after_loss(lost)
            if not self._closed:
                await self.lend()

        try:
            call_blocking(again())
        except errors.Error as error:
            progress.current().warn(f"containers cannot have the terminal any more: {error}")

    def _serve(self, word: TerminalWord) -> None:
        """In a thread of its own: keys and sizes to one program, until it is over."""
        began = time.monotonic()
        while (now := time.monotonic()) - began < _QUIET_MOST:
            quiet = min(self._running.quiet_for(), now - began)
            if quiet >= _QUIET_SECONDS:
                break
            time.sleep(_QUIET_SECONDS - quiet)
        with self._lock:
            stream = self._stream
            if self._turn != word.turn or self._closed or stream is None:
                return
            where = f"{word.function}() in container {word.container}"
            progress.current().note(f"the terminal is with {where}; Enter ~ . takes it back and interrupts the run")
            progress.connected(is_on=True)
            self._line_open = False
            self._raw = Raw(sys.stdin.fileno())
        size = _size()
        try:
            call_blocking(stream.send(_word(word.turn, size)))
            escape = Escape()
            while self._turn == word.turn:
                ready, _, _ = select.select([sys.stdin.fileno(), self._wake], [], [], _LOOK_SECONDS)
                if self._wake in ready:
                    os.read(self._wake, 1)
                    continue
                if size != _size():
                    size = _size()
                    call_blocking(stream.send(_word(word.turn, size)))
                if ready and not self._type(stream, escape):
                    return
        except errors.Error:
            return  # ``_on_message`` hears of it, too

    def _type(self, stream: Stream, escape: Escape) -> bool:
        """Send what was typed. False when that is over."""
        try:
            keys = os.read(sys.stdin.fileno(), _READ)
        except OSError:
            return False  # the terminal was closed, of which a signal tells the process
        if not keys:
            return False
        keys = escape.passed(keys)
        if escape.asked:
            self._take_back()
            os.kill(os.getpid(), signal.SIGINT)
            return False
        if keys:
            call_blocking(stream.send(None, keys))
        return True

    def _take_back(self) -> None:
        with self._lock:
            self._turn = 0
            raw, self._raw = self._raw, None
            if raw is None:
                return
            os.write(self._waker, b"x")
            with contextlib.suppress(OSError):  # closed meanwhile
                _write_all(sys.stdout.fileno(), (b"\r\n" if self._line_open else b"") + _PLAIN)
            raw.restore()
            progress.connected(is_on=False)


class Raw:
    """A terminal in raw mode: every key is a byte, and no byte is more than that."""

    def __init__(self, descriptor: int) -> None:
        import termios  # noqa: PLC0415  only where there is a terminal
        import tty  # noqa: PLC0415

        self._descriptor = descriptor
        self._modes = termios.tcgetattr(descriptor)
        self._guard = self._start_guard()
        tty.setraw(descriptor, termios.TCSADRAIN)

    def restore(self) -> None:
        """Put the modes back. What was typed and not read was meant for the program, and goes."""
        import termios  # noqa: PLC0415

        with contextlib.suppress(termios.error):  # closed meanwhile
            termios.tcflush(self._descriptor, termios.TCIFLUSH)
            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._modes)
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.wait()
            guard.stdin.close()

    def _start_guard(self) -> Any:
        """A process in a session of its own, which no key reaches and which outlives this one by a moment."""
        terminal = os.dup(self._descriptor)
        try:
            modes = subprocess.run(
                ["stty", "-g"], stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
            )
            return subprocess.Popen(
                ["/bin/sh", "-c", _GUARD.replace("3", str(terminal)), "sh", modes.stdout.decode().strip()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[terminal],
                start_new_session=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None  # without stty, a kill -9 leaves what `reset` mends
        finally:
            os.close(terminal)


class Escape:
    """Finds Enter ~ . among keys. A held ``~`` is passed on with the key after it."""

    def __init__(self) -> None:
        self.asked = False
        self._at_start = True
        self._held = False

    def passed(self, keys: bytes) -> bytes:
        """The keys that the program gets. Sets ``asked`` at the escape, and drops what comes after it."""
        out = bytearray()
        for key in keys:
            if self._held:
                self._held = False
                if key == ord("."):
                    self.asked = True
                    break
                out.append(ord("~"))
            elif self._at_start and key == ord("~"):
                self._held = True
                continue
            out.append(key)
            self._at_start = key in b"\r\n"
        return bytes(out)


def _word(turn: int, size: Tuple[int, int]) -> TerminalWord:
    return TerminalWord("size", turn=turn, columns=size[0], rows=size[1], term=os.environ.get("TERM", ""))


def _size() -> Tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns = rows = 0
    return columns or 80, rows or 24


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
