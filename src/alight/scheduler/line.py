"""Who waits for a container: the calls of a function, in turn, and what of each."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

from alight.scheduler.state import Call, Function, Span, State

Lines = tuple[tuple[deque[Span] | list[Span], OrderedDict[str, None]], ...]


def join(state: State, function: Function, call: Call, span: Span) -> None:
    """Inputs wait behind those of their call; a call that had none gets its turn after all others."""
    waiting = call.waiting
    if waiting and waiting[-1][1] == span[0] and waiting[-1][2] == span[2]:
        waiting[-1] = (waiting[-1][0], span[1], span[2])
    else:
        call.wait_behind(span)
        function.line[call.call_id] = None
    function.waiting += span[1] - span[0]
    state.hungry[function.function_id] = None


def join_first(state: State, function: Function, call: Call, span: Span, *, suspect: bool = False) -> None:
    """Inputs that had their turn once wait before all others; suspects wait for a container of their own."""
    line, calls = (call.suspects, function.suspects) if suspect else (call.first, function.first)
    if line and line[0][0] == span[1] and line[0][2] == span[2]:
        line[0] = (span[0], line[0][1], span[2])
    else:
        call.wait_first(span, suspect=suspect)
    calls[call.call_id] = None
    function.waiting += span[1] - span[0]
    state.hungry[function.function_id] = None


def join_later(state: State, call: Call, position: int, at: float) -> None:
    """An input waits for a time, and then for a container."""
    call.wait_until(position, at)
    set_timer(state, at, "input", call.call_id)


def take(function: Function, call: Call, most: int, calls: str = "line") -> Span:
    """Remove up to ``most`` inputs from one of a call's lines. Its next turn comes after the others'."""
    if calls == "line":
        return _take_of(function, call, call.waiting, function.line, most)
    if calls == "first":
        return _take_of(function, call, call.first, function.first, most)
    return _take_of(function, call, call.suspects, function.suspects, most)


def _take_of(
    function: Function, call: Call, spans: deque[Span] | list[Span], turns: OrderedDict[str, None], most: int
) -> Span:
    start, stop, attempt = spans[0]
    if stop - start > most:
        stop = start + most
        spans[0] = (stop, spans[0][1], attempt)
    else:
        del spans[0]
    if not spans:
        del turns[call.call_id]
    elif len(turns) > 1:
        turns.move_to_end(call.call_id)
    function.waiting -= stop - start
    return start, stop, attempt


def leave(function: Function, call: Call, positions: Sequence[int], attempt: int | None = None) -> list[int]:
    """Take inputs out of line: those of ``positions`` that wait (at this attempt, when one is named)."""
    gone: list[int] = []
    lines: Lines = ((call.waiting, function.line), (call.first, function.first), (call.suspects, function.suspects))
    wanted = positions if isinstance(positions, range) else set(positions)
    for spans, turns in lines:
        if not spans:
            continue
        kept: list[Span] = []
        for span in spans:
            start, stop, at = span
            inside = sorted(_inside(span, wanted)) if attempt is None or at == attempt else []
            if not inside:
                kept.append(span)
                continue
            gone += inside
            for one in inside:
                if one > start:
                    kept.append((start, one, at))
                start = one + 1
            if start < stop:
                kept.append((start, stop, at))
        spans.clear()
        spans.extend(kept)
        if not spans:
            turns.pop(call.call_id, None)
    function.waiting -= len(gone)
    return gone


def clear(function: Function, call: Call) -> list[range]:
    """Take all of a call out of line; what was in it, in order."""
    gone = sorted((span[0], span[1]) for spans in (call.waiting, call.first, call.suspects) for span in spans)
    lines: Lines = ((call.waiting, function.line), (call.first, function.first), (call.suspects, function.suspects))
    for spans, turns in lines:
        if spans:
            spans.clear()
        turns.pop(call.call_id, None)
    function.waiting -= sum(stop - start for start, stop in gone)
    return [range(start, stop) for start, stop in gone]


def calls_in_line(state: State, function: Function) -> list[Call]:
    """The calls of a function that wait for a container, those that come first first."""
    return [state.calls[one] for one in {**function.suspects, **function.first, **function.line}]


def oldest(state: State, function: Function) -> int:
    """When the first in line arrived, as an order over all functions."""
    for calls in (function.suspects, function.first, function.line):
        for call_id in calls:
            return state.calls[call_id].order
    return state.count


def forget_if_done(state: State, call: Call) -> None:
    """A call without open inputs is no longer known here."""
    if not (call.containers or call.waiting or call.first or call.delayed or call.suspects):
        state.calls.pop(call.call_id, None)


def waiting_in(call: Call) -> int:
    """Inputs of a call that wait for a container."""
    return sum(stop - start for spans in (call.waiting, call.first, call.suspects) for start, stop, _ in spans)


def set_timer(state: State, when: float, kind: str, name: str) -> None:
    """Ask for a step at ``when``."""
    heapq.heappush(state.timers, (when, state.next_order(), kind, name))


def _inside(span: Span, wanted: range | set[int]) -> Iterable[int]:
    if isinstance(wanted, range):
        return range(max(span[0], wanted.start), min(span[1], wanted.stop))
    if len(wanted) < span[1] - span[0]:
        return [one for one in wanted if span[0] <= one < span[1]]
    return wanted.intersection(range(span[0], span[1]))
