"""``interact()``: the terminal of `alight run -i`, connected to a function that runs in a container.

From then on, until the input ends, standard input, output and error of the container's process are a terminal: that
of the user, with its size, its keys and its Ctrl-C. What goes through it is not in the app's log; what is printed
before and after it is. An input's timeout counts on meanwhile.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Optional, Tuple

from alight.sdk.client import PATIENCE, default_client
from alight.sdk.sync import call_blocking, dual_function, sleep
from alight.wire import ambient, errors
from alight.wire.codec import loads_head
from alight.wire.terminal import TerminalOpen, TerminalWord

if TYPE_CHECKING:
    from alight.sdk.conversation import Stream
    from alight.sdk.screen import Screen

_END_SECONDS = 5.0
_PAUSE = 0.2


@dual_function
async def interact() -> None:
    """Connect the terminal of `alight run -i` to this place in the function, until the input ends.

    While another container has the terminal, this waits for its turn and says so. A second use by the same input does
    nothing. Raises InvalidError outside of a container, and where the app was run without `-i`.
    """
    if ambient.container is None:
        raise errors.InvalidError(
            "interact() connects a terminal to a function that runs in a container, and this is not one",
            hint="call it in a function, and run that with `alight run -i`",
        )
    input_id = ambient.current_input_id.get() or ""
    if ambient.terminal is not None and ambient.terminal.input_id == input_id:
        return
    # Whoever has the terminal in this same process ends before this is granted: there is one turn at a time.
    stream, size = await _patiently(input_id)
    Terminal(input_id, stream).begin(size)


async def _patiently(input_id: str) -> Tuple[Stream, TerminalWord]:
    """``_granted``, over lost connections: of the client that lends the terminal, the server, or this machine."""
    until: Optional[float] = None
    while True:
        asked = time.monotonic()
        try:
            return await _granted(input_id)
        except errors.Error as error:
            # After a loss, others count as well: the server may not know this container or the terminal yet.
            lost = isinstance(error, errors.ConnectionError)
            if lost and (until is None or time.monotonic() - asked > PATIENCE):
                until = time.monotonic() + PATIENCE
            if until is None or time.monotonic() > until:
                raise
        await sleep(_PAUSE)  # the client finds the server again, and lends its terminal again


async def _granted(input_id: str, *, aloud: bool = True) -> Tuple[Stream, TerminalWord]:
    """Ask for the terminal and wait for it."""
    stream = await default_client().open("terminal.open", TerminalOpen(input_id), end=False)
    try:
        while True:
            word = _word(await stream.recv())
            if word.kind == "size":
                return stream, word
            if aloud and word.text:
                sys.stderr.write(f"alight: interact() waits for the terminal: {word.text}\n")
                sys.stderr.flush()
    except BaseException:
        stream.leave()
        raise


def _word(message: Optional[Tuple[bytes, bytes]]) -> TerminalWord:
    if message is None:
        raise errors.ServiceError("the server ended the request for a terminal without a word: try again")
    return loads_head(TerminalWord, message[0])


class Terminal:
    """The user's terminal while an input of this process has it. The runtime finds it in ``ambient.terminal``."""

    def __init__(self, input_id: str, stream: Stream) -> None:
        self.input_id = input_id
        self._stream = stream
        self._screen = _screen()
        self._connecting = threading.Lock()
        self._patience = PATIENCE
        self._gone = False  # for good: nobody is at the other end
        self._leaving = False
        self._ended = threading.Event()

    def begin(self, size: TerminalWord) -> None:
        """Connect. ``size`` is the server's word that this process has the terminal."""
        self._resize(size)
        if size.term:
            os.environ["TERM"] = size.term
        ambient.terminal = self
        self._screen.connect(self._show)
        threading.Thread(target=self._read, name="alight-terminal-in", daemon=True).start()

    def leave(self) -> None:
        """After user code: give the terminal back, if the input that ends here has it. What was written to it is with
        the user, or on its way, before whatever this process sends next."""
        if (ambient.current_input_id.get() or "") != self.input_id:
            return
        self._patience = _END_SECONDS
        self._screen.disconnect()
        ambient.terminal = None
        self._leaving = True
        if not self._gone:
            self._stream.end()
            self._ended.wait(_END_SECONDS)

    def interrupt(self) -> None:
        """SIGINT came, in the main thread: Ctrl-C, for the input that has the terminal and nobody else."""
        if (ambient.current_input_id.get() or "") == self.input_id:
            raise KeyboardInterrupt

    def _show(self, output: bytes) -> None:
        """In the screen's thread."""
        while not self._gone:
            stream = self._stream
            try:
                call_blocking(stream.send(None, output))
            except errors.Error:
                self._connect_again(stream)
            else:
                return

    def _read(self) -> None:
        """In a thread of its own: keys and sizes as they come."""
        while not self._gone:
            stream = self._stream
            try:
                message = call_blocking(stream.recv())
            except errors.Error:
                message = None
            if message is not None:
                if message[0]:
                    self._resize(loads_head(TerminalWord, message[0]))
                if message[1]:
                    self._screen.feed(message[1])
            elif self._leaving:
                break
            else:
                self._connect_again(stream)
        self._ended.set()

    def _connect_again(self, lost: Stream) -> None:
        """The way to the terminal broke: of the node, the server or the client one is being started again. The
        program stays where it is, and waits."""
        with self._connecting:
            if self._stream is not lost:
                return
            began = time.monotonic()
            while time.monotonic() - began < self._patience:
                try:
                    self._stream, size = call_blocking(_granted(self.input_id, aloud=False))
                except errors.Error:
                    time.sleep(_PAUSE)
                else:
                    self._resize(size)
                    return
            self._gone = True  # the app has lost its client, and ends before long

    def _resize(self, word: TerminalWord) -> None:
        if word.rows and word.columns:
            self._screen.resize(word.rows, word.columns)


def _screen() -> Screen:
    global _made  # noqa: PLW0603  one for a process
    if _made is None:
        from alight.sdk.screen import Screen  # noqa: PLC0415  only systems with terminals have what it imports

        _made = Screen()
    return _made


_made: Optional[Screen] = None

__all__ = ["interact"]
