"""A terminal in a container, over a WebSocket: a shell that ends with its page."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import msgspec

from alight.dashboard.reading import Asked
from alight.dashboard.seams import Conversation, Talk
from alight.wire import errors
from alight.wire.execs import ExecStart, ExecWord

_decode = msgspec.json.Decoder(ExecWord).decode
_MOST = 1000  # rows or columns
_SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash -l || exec sh -l")


def start_of(asked: Asked) -> ExecStart:
    """What is to run. Raises InvalidError."""
    columns, rows = _side(asked.number("columns", 80)), _side(asked.number("rows", 24))
    return ExecStart(asked.names[0], _SHELL, terminal=True, rows=rows, columns=columns, term="xterm-256color")


async def serve(asked: Asked, start: ExecStart, talk: Talk) -> None:
    """Carry keys and output until the shell or the page ends."""
    try:
        program = asked.ask.open(asked.who, "container.exec", start)
    except errors.Error as error:
        await _end(talk, 1, error.message)
        return
    keys = asyncio.ensure_future(_keys(talk, program))
    output = asyncio.ensure_future(_output(talk, program))
    try:
        await asyncio.wait({keys, output}, return_when=asyncio.FIRST_COMPLETED)
    finally:
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


async def _output(talk: Talk, program: Conversation) -> None:
    try:
        async with aclosing(program.read()) as messages:  # type: ignore[type-var]
            async for head, body in messages:
                word = None if head is None else head if isinstance(head, ExecWord) else _decode(bytes(head))
                if word is None or word.kind == "stderr":
                    await talk.send(bytes(body))
                elif word.kind == "ended":
                    await _end(talk, word.status, word.text)
                    return
    except errors.Error as error:
        await _end(talk, 1, error.message)


async def _end(talk: Talk, status: int, text: str) -> None:
    await talk.send(json.dumps({"ended": status, "text": text}))


def _side(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= _MOST:
        raise errors.InvalidError(f"{str(value)[:20]!r} is no size of a terminal")
    return int(value)
