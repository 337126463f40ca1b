"""Terminals that clients of apps lend, and the containers that take turns at them.

Nothing here is kept: when the server is restarted, client and container both come again and find each other.
"""

from __future__ import annotations

import asyncio
from collections import deque

from alight.link.peer import Stream
from alight.link.stream import decode
from alight.wire import errors
from alight.wire.terminal import TerminalWord


class Turn:
    """One container that wants the terminal, or has it."""

    def __init__(self, stream: Stream, container: str, function: str) -> None:
        self.stream = stream
        self.container = container
        self.function = function
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end(self, error: errors.Error | None = None) -> None:
        """It had its turn, or will have none."""
        if self.over.done():
            return
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)


class Line:
    """One lent terminal and who waits for it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.waiting: deque[Turn] = deque()
        self.current: Turn | None = None
        self._count = 0
        self._changed = asyncio.Event()

    def join(self, turn: Turn) -> str:
        """Wait for the terminal. Returns who has it until then, in words; nothing when it is free."""
        ahead = [one for one in (self.current, *self.waiting) if one is not None and not one.stream.broken]
        self.waiting.append(turn)
        self._changed.set()
        if not ahead:
            return ""
        more = f", and {len(ahead) - 1} more wait" if len(ahead) > 1 else ""
        return f"{ahead[0].function}() in container {ahead[0].container} has the terminal{more}"

    async def serve(self) -> None:
        """One turn after the other, until the client leaves. What then waits or has the terminal is told."""
        turns = asyncio.get_running_loop().create_task(self._turns())
        try:
            async for head, body in self.stream:
                await self._from_client(head, body)
        except errors.ConnectionError:
            return  # the client is gone; it may come back with another stream
        finally:
            turns.cancel()
            gone = errors.ConnectionError("the client that lent its terminal is gone")
            for turn in (self.current, *self.waiting):
                if turn is not None:
                    turn.end(gone)
            self.waiting.clear()

    async def _turns(self) -> None:
        while True:
            while not self.waiting:
                self._changed.clear()
                await self._changed.wait()
            turn = self.waiting.popleft()
            if turn.stream.broken:
                turn.end()
                continue
            self.current = turn
            self._count += 1
            word = TerminalWord("connect", turn=self._count, container=turn.container, function=turn.function)
            await self.stream.send(word)
            try:
                async for _, body in turn.stream:
                    await self.stream.send(None, body)
            except errors.Error:
                if self.stream.broken:
                    return  # ``serve`` is about to see it
            self.current = None
            # In this order: whatever the container does after its turn, the client has its terminal back before it.
            await self.stream.send(TerminalWord("released", turn=self._count))
            turn.end()

    async def _from_client(self, head: bytes, body: bytes) -> None:
        """Sizes and keys, to whoever has the terminal, at the pace at which they are taken."""
        turn = self.current
        if turn is None or (head and decode(TerminalWord, head).turn != self._count):
            return
        try:
            await turn.stream.send_raw(head, body)
        except errors.Error:
            return  # the container is gone; ``_turns`` sees it


class Terminals:
    """The terminal of each app, as far as one is lent."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}

    async def lend(self, app_id: str, stream: Stream) -> None:
        """Serve a client's terminal until the client leaves."""
        earlier = self._lines.get(app_id)
        if earlier is not None:
            await earlier.stream.fail(errors.ClientClosed("another connection of this client lends the terminal now"))
            earlier.stream.on_error(errors.ConnectionError("replaced"))
        line = self._lines[app_id] = Line(stream)
        try:
            await line.serve()
        finally:
            if self._lines.get(app_id) is line:
                del self._lines[app_id]

    async def use(self, app_id: str, turn: Turn) -> None:
        """Return when the container had its turn. Raises InvalidError where no terminal is lent."""
        line = self._lines.get(app_id)
        if line is None:
            raise errors.InvalidError(
                f"{turn.function}() asked for your terminal, and this app was not run with one",
                hint=f"run it as `alight run -i SCRIPT.py::{turn.function}` in a terminal",
            )
        who = line.join(turn)
        if who:
            await turn.stream.send(TerminalWord("waiting", text=who))
        await turn.over
