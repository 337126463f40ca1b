"""A terminal in a container, over a WebSocket: a shell that ends with its page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from alight.dashboard.reading import Asked
from alight.dashboard.seams import Conversation, Talk
from alight.wire import errors
from alight.wire.execs import ExecStart, ExecWord

_decode = msgspec.json.Decoder(ExecWord).decode
_MOST = 1000  # rows or columns
#: Told what kept a terminal from being opened, "" for nothing.
Written = Callable[[str], Awaitable[None]]
_SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash -l || exec sh -l")


def start_of(asked: Asked) -> ExecStart:
    """What is to run. Raises InvalidError."""
    columns, rows = _side(asked.number("columns", 80)), _side(asked.number("rows", 24))
    return ExecStart(asked.names[0], _SHELL, terminal=True, rows=rows, columns=columns, term="xterm-256color")


async def serve(asked: Asked, start: ExecStart, talk: Talk, written: Written) -> None:
    """Carry keys and output until the shell or the page ends.

    ``written`` is told once that a shell came to be, or what kept it from it.
    """
    told = False

    async def once(problem: str) -> None:
        nonlocal told
        if not told:
            told = True
            await written(problem)

    try:
        program = asked.ask.open(asked.who, "container.exec", start)
    except errors.Error as error:
        await once(error.message)
        await _end(talk, 1, error.message)
        return
    keys = asyncio.ensure_future(_keys(talk, program))
    output = asyncio.ensure_future(_output(talk, program, once))
    try:
        await asyncio.wait({keys, output}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await once("")
        await program.leave()
        for task in (keys, output):
            task.cancel()
        await asyncio.gather(keys, output, return_exceptions=True)


async def _keys(talk: Talk, program: Conversation) -> None:
    while (message := await talk.recv()) is not None:
        if isinstance(message, bytes):
            program.say(None, message)
            continue
        try:
            columns, rows = json.loads(message)["size"]
            program.say(ExecWord("size", rows=_side(rows), columns=_side(columns)))
        except (ValueError, KeyError, TypeError, errors.InvalidError):
            await _end(talk, 1, "a message of the page could not be read")
            return


async def _output(talk: Talk, program: Conversation, written: Written) -> None:
    try:
        async with aclosing(program.read()) as messages:  # type: ignore[type-var]
            async for head, body in messages:
                await written("")
                word = None if head is None else head if isinstance(head, ExecWord) else _decode(bytes(head))
                if word is None or word.kind == "stderr":
                    await talk.send(bytes(body))
                elif word.kind == "ended":
                    await _end(talk, word.status, word.text)
                    return
    except errors.Error as error:
        await written(error.message)
        await _end(talk, 1, error.message)


async def _end(talk: Talk, status: int, text: str) -> None:
    await talk.send(json.dumps({"ended": status, "text": text}))


def _side(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= _MOST:
        raise errors.InvalidError(f"{str(value)[:20]!r} is no size of a terminal")
    return int(value)
