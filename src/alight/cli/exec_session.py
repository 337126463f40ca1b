"""A program in a container, connected to this process: its terminal, or its three streams as they are.

However it ends (the program, the container, the connection, Ctrl-C, a kill), the terminal's modes are put back, and
what was started there is ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Dict, Iterator, Optional, Tuple

from alight.cli import terminal
from alight.cli.errors import NO_READER, Interrupted
from alight.sdk.client import default_client
from alight.sdk.lost import LostError
from alight.sdk.sync import call_blocking
from alight.sdk.terminal import Escape, Raw
from alight.wire import errors
from alight.wire.codec import loads_head
from alight.wire.execs import ExecStart, ExecWord

if TYPE_CHECKING:
    from alight.sdk.conversation import Stream

_READ = 64 << 10
_INTERRUPT, _RESIZED, _OVER = b"i", b"w", b"o"


def has_terminal() -> bool:
    """Whether a person sits at both ends of this process."""
    return terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)


def run(container_id: str, argv: Tuple[str, ...], *, pty: bool, env: Optional[Dict[str, str]] = None) -> int:
    """Run a program there and return its exit status. Raises NotFoundError, ConnectionError and what forbids it."""
    columns, rows = _size() if pty else (0, 0)
    start = ExecStart(
        container_id,
        argv,
        env=env or {},
        terminal=pty,
        rows=rows,
        columns=columns,
        term=os.environ.get("TERM", "") if pty else "",
    )
    stream = call_blocking(default_client().open("container.exec", start, end=False))
    try:
        return _Session(stream, pty=pty).run()
    except BrokenPipeError:  # whoever read our output has enough
        return NO_READER
    except LostError as error:
        raise errors.ConnectionError(
            "the connection to the server was lost, and the program in the container was ended with it",
            hint="see `alight server status`",
        ) from error
    finally:
        stream.leave()


class _Session:
    """One program, from its first word to its last."""

    def __init__(self, stream: Stream, *, pty: bool) -> None:
        self._stream = stream
        self._pty = pty
        self._wake, self._waker = os.pipe()
        self._interrupts = 0
        self._escape = Escape()

    def run(self) -> int:
        with self._signals():
            word = self._next()
            if word.kind == "started":
                # Not before: what is typed while a container starts stays for whoever reads it if it does not.
                word = self._connected()
        if word.text:
            # What ended the program, when it was not its own doing.
            print(f"alight: {terminal.clean(word.text)}", file=sys.stderr, flush=True)
        return word.status

    def _connected(self) -> ExecWord:
        raw = Raw(sys.stdin.fileno()) if self._pty and terminal.is_terminal(sys.stdin) else None
        typing = threading.Thread(target=self._type, name="alight-keys", daemon=True)
        typing.start()
        try:
            return self._next()
        finally:
            os.write(self._waker, _OVER)
            if raw is not None:
                raw.restore()

    def _next(self) -> ExecWord:
        """The next word that is not output; that is written as it comes."""
        while True:
            message = call_blocking(self._stream.recv())
            if message is None:
                raise errors.ServiceError("the server ended the program's stream without a word of its end")
            head, body = message
            word = loads_head(ExecWord, head) if head else None
            if word is not None and word.kind != "stderr":
                return word
            _write_all(2 if word is not None else 1, body)

    def _type(self) -> None:
        """In a thread of its own: what is typed or piped in, sizes and signals."""
        stdin: Optional[int] = sys.stdin.fileno() if sys.stdin is not None else None
        try:
            if stdin is None:
                call_blocking(self._stream.send(ExecWord("eof")))
            while True:
                ready, _, _ = select.select([one for one in (stdin, self._wake) if one is not None], [], [])
                if self._wake in ready and not self._woken(os.read(self._wake, 1)):
                    return
                if stdin in ready and not self._pass_on(sys.stdin.fileno()):
                    stdin = None
        except (errors.Error, ValueError):
            return  # the main thread hears of it, too

    def _pass_on(self, stdin: int) -> bool:
        """Send what is there. False at its end."""
        try:
            data = os.read(stdin, _READ)
        except BlockingIOError:
            return True
        except OSError:
            data = b""  # the terminal was closed, of which a signal tells the process
        if not data:
            call_blocking(self._stream.send(ExecWord("eof")))
            return False
        if self._pty:
            data = self._escape.passed(data)
            if self._escape.asked:
                os.kill(os.getpid(), signal.SIGTERM)
                return False
        if data:
            call_blocking(self._stream.send(None, data))
        return True

    def _woken(self, why: bytes) -> bool:
        if why == _INTERRUPT:
            call_blocking(self._stream.send(ExecWord("signal", signal=signal.SIGINT)))
        elif why == _RESIZED and self._pty:
            columns, rows = _size()
            call_blocking(self._stream.send(ExecWord("size", rows=rows, columns=columns)))
        return why != _OVER

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C goes to the program, a second one leaves it; other kills leave it at once."""
        handlers = {signal.SIGINT: self._on_interrupt, signal.SIGTERM: self._on_end, signal.SIGHUP: self._on_end}
        if self._pty:
            handlers[signal.SIGWINCH] = self._on_resize
        before: Dict[int, Any] = {number: signal.signal(number, one) for number, one in handlers.items()}
        try:
            yield
        finally:
            for number, earlier in before.items():
                signal.signal(number, earlier)

    def _on_interrupt(self, _number: int, _frame: Any) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            raise KeyboardInterrupt("Interrupted twice: the program in the container was ended")
        os.write(self._waker, _INTERRUPT)

    def _on_resize(self, _number: int, _frame: Any) -> None:
        os.write(self._waker, _RESIZED)

    def _on_end(self, number: int, _frame: Any) -> None:
        if self._escape.asked:
            raise Interrupted("Left: the program in the container was ended")
        raise SystemExit(128 + number)


def _size() -> Tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        columns = rows = 0
    return columns or 80, rows or 24


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
