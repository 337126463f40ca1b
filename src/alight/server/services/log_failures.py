"""Inputs that failed, as lines of their app's log: what was raised and where, also when nobody waited for the answer.

A map of a million inputs that all fail is told in a few lines: after so many of an app in a while, the rest is counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from alight.server.services.call import Call
from alight.server.services.published import Published
from alight.server.services.system_log import SystemLog
from alight.wire.commands import Output
from alight.wire.failure import Failure
from alight.wire.states import ResultStatus

MOST = 20  # lines of one app
WHILE = 10.0  # seconds
_FRAMES = 8  # of the user's code, the innermost
_LONGEST = 500  # characters of an exception's own words


@dataclass
class _Said:
    """What was told of an app in this while, and what was only counted, by function."""

    lines: int = 0
    more: Counter[str] = field(default_factory=Counter)


class FailureLines:
    """Fills ``Outcomes.on_failed``."""

    def __init__(self, words: SystemLog, functions: Mapping[str, Published]) -> None:
        self._words = words
        self._functions = functions
        self._said: dict[str, _Said] = {}

    def failed(self, call: Call, output: Output, count: int, again: bool) -> None:
        """So many inputs of a call have ended like this, or are tried ``again``. Cancelled ones are no news."""
        function = self._functions.get(call.function_id)
        if function is None or output.status == ResultStatus.CANCELLED:
            return
        said = self._said.get(function.app_id)
        if said is None:
            said = self._said[function.app_id] = _Said()
            asyncio.get_running_loop().call_later(WHILE, self._rest, function.app_id)
        if said.lines >= MOST:
            said.more[function.function_id] += count
            return
        said.lines += 1
        text = words(call, output, count, function.spec.name, again=again)
        self._words.say(
            function.app_id, text, container=output.container, function=function.function_id, call=call.call_id
        )

    def _rest(self, app_id: str) -> None:
        said = self._said.pop(app_id)
        for function_id, count in said.more.items():
            function = self._functions.get(function_id)
            name = function.spec.name if function is not None else function_id
            text = f"{count:,} more times an input of {name}() failed in {WHILE:.0f} s"
            self._words.say(app_id, text, function=function_id)


def words(call: Call, output: Output, count: int, name: str, *, again: bool) -> str:
    """A line of what failed and why, and a line for each frame of the user's code."""
    if count > 1:
        which = f"{count:,} inputs of {call.call_id}"
    elif call.total == 1:
        which = call.call_id
    else:
        which = f"input {output.position} of {call.call_id}"
    ended = "failed and is tried again" if again else "failed"
    failure = output.failure
    if failure is None:
        return f"{name}(): {which} {ended}: {_cut(str((output.error or {}).get('message', output.status)))}"
    frames = [one for one in failure.frames if one.user][-_FRAMES:]
    lines = [f"  {one.file}, line {one.line}, in {one.name}: {one.text}" for one in frames]
    return "\n".join([f"{name}(): {which} {ended}: {raised(failure)}", *lines])


def raised(failure: Failure) -> str:
    """ "ValueError: no", with the exception that it came from."""
    said = f"{failure.type.removeprefix('builtins.')}: {_cut(failure.message)}".removesuffix(": ")
    return f"{said} (from {raised(failure.cause)})" if failure.cause is not None else said


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
