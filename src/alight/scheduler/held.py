"""What containers hold: runs opened when inputs are given, closed as they are answered, returned or lost."""

from __future__ import annotations

from collections.abc import Sequence

from alight.scheduler import members
from alight.scheduler.state import Container, Run, State, size


def hold(state: State, container: Container, call_id: str, span: tuple[int, int, int], *, alone: bool = False) -> None:
    """Enter inputs that a container was given."""
    start, stop, attempt = span
    run = Run(call_id, start, stop, attempt, state.next_order(), alone)
    runs = container.runs.get(call_id)
    if runs is None:
        container.runs[call_id] = [run]
        call = state.calls.get(call_id)
        if call is not None:
            call.held_by(container.container_id)
    else:
        runs.append(run)
    container.open += stop - start
    container.served = True
    note(state, container, call_id, stop - start)


def hold_together(
    state: State, container: Container, call_id: str, span: tuple[int, int, int], *, alone: bool = False
) -> tuple[str, ...]:
    """``hold`` for a container and all of its gang; the ids of those others."""
    hold(state, container, call_id, span, alone=alone)
    if not container.gang:
        return ()
    others = members.others(state, container)
    for name in others:
        hold(state, state.containers[name], call_id, span, alone=alone)
    return others


def release(
    state: State, container: Container, call_id: str, attempt: int, positions: Sequence[int], begun: bool = True
) -> Sequence[int]:
    """Let go of inputs that a container is done with; of these, those that it held and that somebody wants."""
    found: Sequence[int] = ()
    before = container.open
    runs = container.runs.get(call_id)
    if runs is not None:
        found = _close(runs, attempt, positions)
        container.open -= len(found)
        if not runs:
            del container.runs[call_id]
            call = state.calls.get(call_id)
            if call is not None and call.containers:
                call.containers.pop(container.container_id, None)
    if len(found) < len(positions) and container.dropped:
        dropped = container.dropped.get(call_id)
        if dropped is not None:
            container.open -= len(_close(dropped, attempt, positions))
            if not dropped:
                del container.dropped[call_id]
    note(state, container, call_id, container.open - before, begun=begun)
    return found


def note(state: State, container: Container, call_id: str, count: int, *, begun: bool = True) -> None:
    """Tell who accounts for containers' time that one was given inputs, or is done with some."""
    if state.moves is not None and count:
        state.moves.append((container.container_id, call_id, count, begun))


def drop(container: Container, call_id: str) -> None:
    """Nobody wants the answers for this call any more. Its inputs hold their slots until the container says so."""
    runs = container.runs.pop(call_id, None)
    if runs:
        container.dropped.setdefault(call_id, []).extend(runs)


def in_order(container: Container) -> list[Run]:
    """Its runs as they were given: what a container that takes one input at a time begins in this order."""
    return sorted((run for runs in container.runs.values() for run in runs), key=lambda run: run.order)


def is_alone(container: Container) -> bool:
    """Whether it holds an input that nothing may share a container with."""
    return len(container.runs) == 1 and any(run.alone for runs in container.runs.values() for run in runs)


def _close(runs: list[Run], attempt: int, positions: Sequence[int]) -> Sequence[int]:
    """Take positions out of runs, and say which were there."""
    ordered = type(positions) is range and positions.step == 1
    if ordered and positions:
        # Nearly always answers come in order: then this is all there is to do.
        run = runs[0]
        if run.left is None and run.attempt == attempt and run.start == positions[0] and positions[-1] < run.stop:
            run.start = positions[-1] + 1
            if run.start == run.stop:
                del runs[0]
            return positions
    wanted = None if ordered else set(positions)
    pieces: list[range] = []
    for run in [run for run in runs if run.attempt == attempt]:
        if wanted is None and run.left is None:
            assert type(positions) is range
            low, high = max(run.start, positions.start), min(run.stop, positions.stop)
            if low >= high:
                continue
            if low == run.start:
                run.start = high
            elif high == run.stop:
                run.stop = low
            else:
                run.left = {*range(run.start, low), *range(high, run.stop)}
            _join(pieces, low, high)
        else:
            if run.left is None:
                run.left = set(range(run.start, run.stop))
            taken = run.left.intersection(positions if wanted is None else wanted)
            run.left -= taken
            for position in sorted(taken):
                _join(pieces, position, position + 1)
        if not size(run):
            runs.remove(run)
    if len(pieces) <= 1:
        return pieces[0] if pieces else ()
    return tuple(position for piece in pieces for position in piece)


def _join(pieces: list[range], low: int, high: int) -> None:
    if pieces and pieces[-1].stop == low:
        pieces[-1] = range(pieces[-1].start, high)
    else:
        pieces.append(range(low, high))
