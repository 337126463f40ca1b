"""What happens to inputs: they arrive, are answered, returned, tried again, cancelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from alight.scheduler import dispatch, events, gangs, held, line, retry
from alight.scheduler.decisions import Again, Cancel, Decision, Fail, Finish
from alight.scheduler.ending import dissolve, end_if_done, stop
from alight.scheduler.state import Call, Container, Function, Run, State, Tried, spans
from alight.wire.errors import InternalFailure, RemoteError, to_wire
from alight.wire.states import ResultStatus

_STOPPED = "a container of its cluster was told to stop"


def arrived(state: State, event: events.InputsArrived, now: float, decisions: list[Decision]) -> None:
    """Inputs of a call get in line; those that are known already do not get in twice."""
    function = state.functions.get(event.function_id)
    if function is None:
        error = to_wire(RemoteError("its app was stopped before this call could run"))
        decisions.extend(Fail(event.call_id, range(*one), ResultStatus.CANCELLED, error) for one in event.ranges)
        return
    call = state.calls.get(event.call_id)
    if call is None:
        call = Call(event.call_id, event.function_id, state.next_order(), event.parent, now)
        state.calls[event.call_id] = call
    elif call.parent is None:
        call.parent = event.parent
    function.awake = True
    tried = {one.position: one for one in event.attempts} if event.attempts else {}
    for start, end in event.ranges:
        known = _known(state, call) if start < call.top else ()
        if not known and not tried:
            line.join(state, function, call, (start, end, 1))
        else:
            for gap in _between(known, start, end):
                _enter(state, function, call, gap, tried, now)
        call.top = max(call.top, end)
    line.forget_if_done(state, call)


def cancelled(state: State, event: events.CallCancelled, now: float, decisions: list[Decision]) -> None:
    """Forget a call. What runs of it holds its slot until it is answered; the answer itself is dropped."""
    call = state.calls.pop(event.call_id, None)
    if call is None:
        return
    function = state.functions.get(call.function_id)
    if function is not None:
        line.clear(function, call)
    for name in list(call.containers):
        container = state.containers[name]
        held.drop(container, call.call_id)
        gangs.forget_answer(state, container, call.call_id, decisions)
        if event.kill:
            stop(state, container, "its call was cancelled", decisions, 0.0)
        else:
            decisions.append(Cancel(call.call_id, -1, name, container.node_id))


def answered(state: State, event: events.AttemptsEnded, now: float, decisions: list[Decision]) -> None:
    """A container has answered inputs: those that it held count, and they end or are tried again."""
    container = state.containers.get(event.container_id)
    if container is not None and container.gang:
        said = gangs.answered(state, container, event, now, decisions)
        if said is None:
            return
        event, container = said, state.containers[said.container_id]
    positions = event.positions
    found: Sequence[int] = ()
    if container is not None:
        found = held.release(state, container, event.call_id, event.attempt, positions)
        if container.gang and found and event.status != ResultStatus.SUCCESS:
            dissolve(state, state.gangs[container.gang], container, decisions)
        _note_answer(state, container, event, now, decisions)
    call = state.calls.get(event.call_id)
    if call is None:
        return
    function = state.functions[call.function_id]
    if len(found) < len(positions):
        # The answer came before the machine said that it holds these inputs: no need to run them again.
        there = set(found)
        late = line.leave(function, call, [one for one in positions if one not in there], event.attempt)
        if late:
            found = sorted([*found, *late])
    if not found:
        return
    if event.status == ResultStatus.SUCCESS:
        _end(call, found)
        decisions.append(Finish(call.call_id, found, event.attempt, event.container_id))
    else:
        _failed(state, function, call, (found, event), now, decisions)
    line.forget_if_done(state, call)


def items_came(state: State, event: events.ItemsCame, now: float, decisions: list[Decision]) -> None:
    """From now on this generator's input is not tried again."""
    call = state.calls.get(event.call_id)
    if call is not None:
        call.gave_items(event.position)


def returned(state: State, event: events.InputsReturned, now: float, decisions: list[Decision]) -> None:
    """What a container had not begun waits again, before all others."""
    container = state.containers.get(event.container_id)
    if container is None:
        return
    container.recalled = False
    if container.gang:
        _returned_by_one(state, container, event, now, decisions)
        return
    for run in sorted(event.runs, key=lambda run: -run.start):
        call = state.calls.get(run.call_id)
        gone = held.release(state, container, run.call_id, run.attempt, range(run.start, run.stop), begun=False)
        if call is not None and gone:
            suspect = any(call.tried[one].failures for one in gone if one in call.tried) if call.tried else False
            requeue(state, call, gone, run.attempt, suspect=suspect)
    dispatch.refresh(state, container, now)
    end_if_done(state, container, decisions)


def _returned_by_one(
    state: State, container: Container, event: events.InputsReturned, now: float, decisions: list[Decision]
) -> None:
    """A member of a gang will not run an input: the others, which may have begun, cannot go on without it."""
    lost_runs: list[Run] = []
    for run in event.runs:
        positions = range(run.start, run.stop)
        if any(one.attempt == run.attempt for one in container.runs.get(run.call_id, ())):
            lost_runs += dissolve(state, state.gangs[container.gang], container, decisions)
        held.release(state, container, run.call_id, run.attempt, positions)
    function = state.functions.get(container.function_id)
    for one in lost_runs:
        call = state.calls.get(one.call_id)
        for position in (position for low, high in spans(one) for position in range(low, high)):
            if call is not None and function is not None:
                innocent(state, function, (call, position), one.attempt, (now, _STOPPED), decisions)
    dispatch.refresh(state, container, now)
    end_if_done(state, container, decisions)


def requeue(state: State, call: Call, positions: Sequence[int], attempt: int, *, suspect: bool = False) -> None:
    """Inputs that had not begun, or are tried again at once, go to the front of the line."""
    function = state.functions.get(call.function_id)
    if function is None:
        return
    start = end = -1
    for position in sorted(positions, reverse=True) if not isinstance(positions, range) else ():
        if position == start - 1:
            start = position
            continue
        if start >= 0:
            line.join_first(state, function, call, (start, end, attempt), suspect=suspect)
        start, end = position, position + 1
    if isinstance(positions, range):
        start, end = positions.start, positions.stop
    line.join_first(state, function, call, (start, end, attempt), suspect=suspect)


def lost(  # noqa: PLR0913, PLR0917  what is known of a loss
    state: State,
    call: Call,
    position: int,
    attempt: int,
    event: events.ContainerEnded,
    now: float,
    decisions: list[Decision],
) -> None:
    """An input that had begun in a container that ended: whose fault it was says whether it is tried again."""
    function = state.functions[call.function_id]
    tried = call.record(position)
    tried.attempt = max(tried.attempt, attempt)
    if position in call.items:
        _fail(call, position, event.status, event.error, decisions)
    elif not event.users_fault:
        try_elsewhere(state, function, (call, position), now, decisions, (event.status, event.error))
    elif not _by_policy(state, function, (call, position), event.status, now, decisions, users_fault=True):
        _fail(call, position, event.status, event.error, decisions)


def try_elsewhere(
    state: State,
    function: Function,
    which: tuple[Call, int],
    now: float,
    decisions: list[Decision],
    said: tuple[str, dict[str, Any] | None],
) -> None:
    """After a fault of ours: three containers, the later ones to itself, then it is an error."""
    call, position = which
    status, error = said
    tried = call.record(position)
    if not retry.our_retry(tried):
        final = dict(error or to_wire(InternalFailure("its container was lost")))
        final["message"] = f"{final.get('message', '')} (tried in {tried.failures + 1} containers)"
        _fail(call, position, status, final, decisions)
        return
    tried.failures += 1
    tried.attempt += 1
    why = str((error or {}).get("message") or "its container was lost")
    decisions.append(Again(call.call_id, position, tried.attempt, tried.retries, tried.failures, now, why))
    line.join_first(state, function, call, (position, position + 1, tried.attempt), suspect=True)


def innocent(
    state: State,
    function: Function,
    which: tuple[Call, int],
    attempt: int,
    ended: tuple[float, str],
    decisions: list[Decision],
) -> None:
    """Its container ended at a time and for a reason that has nothing to do with it: again, at no charge."""
    call, position = which
    now, why = ended
    tried = call.record(position)
    tried.attempt = max(tried.attempt, attempt) + 1
    decisions.append(Again(call.call_id, position, tried.attempt, tried.retries, tried.failures, now, why))
    line.join_first(state, function, call, (position, position + 1, tried.attempt), suspect=tried.failures > 0)


def end_delays(state: State, call_id: str, now: float) -> None:
    """The time of some retries has come: they wait for a container now."""
    call = state.calls.get(call_id)
    function = state.functions.get(call.function_id) if call is not None else None
    if call is None or function is None:
        return
    for position in [one for one, at in call.delayed.items() if at <= now]:
        del call.delayed[position]
        _join_tried(state, function, call, position)


def _note_answer(
    state: State, container: Container, event: events.AttemptsEnded, now: float, decisions: list[Decision]
) -> None:
    function = state.functions.get(container.function_id)
    container.moved, container.stalled = now, False
    if event.status == ResultStatus.TIMEOUT:
        container.timed_out = True
        stop(state, container, "its input ran too long", decisions, 0.0)
    if function is not None and event.positions and container.version >= function.proven:
        dispatch.learn_pace(function, event.busy, len(event.positions))
    end_if_done(state, container, decisions)
    dispatch.refresh(state, container, now)


def _failed(
    state: State,
    function: Function,
    call: Call,
    what: tuple[Sequence[int], events.AttemptsEnded],
    now: float,
    decisions: list[Decision],
) -> None:
    positions, event = what
    final: list[int] = []
    container = state.containers.get(event.container_id)
    freed = container.frees if container is not None and event.status == ResultStatus.TERMINATED else ""
    for position in positions:
        if freed and position not in call.items:
            innocent(state, function, (call, position), event.attempt, (now, freed), decisions)
            continue
        if event.attempt > 1:
            tried = call.record(position)
            tried.attempt = max(tried.attempt, event.attempt)
        if retry.is_ours(event.status) and position not in call.items:
            try_elsewhere(state, function, (call, position), now, decisions, (ResultStatus.INTERNAL, None))
        elif not _by_policy(state, function, (call, position), event.status, now, decisions):
            final.append(position)
    if final:
        _end(call, final)
        decisions.append(Finish(call.call_id, tuple(final), event.attempt, event.container_id))


def _by_policy(  # noqa: PLR0913  what is known of a failure
    state: State,
    function: Function,
    which: tuple[Call, int],
    status: str,
    now: float,
    decisions: list[Decision],
    *,
    users_fault: bool = False,
) -> bool:
    """Try again if the user's policy says so; whether it does."""
    call, position = which
    if position in call.items:
        return False  # another attempt would give its items twice
    tried = call.tried.get(position) or Tried()
    delay = retry.users_retry(status, tried, function.need.retries, users_fault=users_fault)
    if delay is None:
        return False
    tried = call.record(position)
    tried.retries += 1
    tried.attempt += 1
    at = now + delay
    decisions.append(Again(call.call_id, position, tried.attempt, tried.retries, tried.failures, at))
    if at > now:
        line.join_later(state, call, position, at)
    else:
        _join_tried(state, function, call, position)
    return True


def _join_tried(state: State, function: Function, call: Call, position: int) -> None:
    tried = call.tried.get(position) or Tried()
    span = (position, position + 1, tried.attempt)
    if tried.failures:
        line.join_first(state, function, call, span, suspect=True)
    else:
        line.join(state, function, call, span)


def _fail(call: Call, position: int, status: str, error: dict[str, Any] | None, decisions: list[Decision]) -> None:
    _end(call, (position,))
    said = error or to_wire(RemoteError("its container ended"))
    decisions.append(Fail(call.call_id, range(position, position + 1), status, said))


def _end(call: Call, positions: Sequence[int]) -> None:
    """No record stays of inputs that are done."""
    if call.tried:
        for position in positions:
            call.tried.pop(position, None)
    if call.items:
        call.items.difference_update(positions)


def _enter(
    state: State, function: Function, call: Call, span: tuple[int, int], tried: dict[int, events.Attempt], now: float
) -> None:
    """Inputs of one range, of which some were tried before."""
    start, end = span
    for position in sorted(one for one in tried if start <= one < end):
        if position > start:
            line.join(state, function, call, (start, position, 1))
        start = position + 1
        one = tried[position]
        known = call.record(position)
        known.attempt, known.retries, known.failures = one.attempt, one.retries, one.failures
        if one.not_before > now:
            line.join_later(state, call, position, one.not_before)
        else:
            _join_tried(state, function, call, position)
    if start < end:
        line.join(state, function, call, (start, end, 1))


def _known(state: State, call: Call) -> list[tuple[int, int]]:
    """What of a call waits or runs already, as ranges in order."""
    ranges = [(one[0], one[1]) for waiting in (call.waiting, call.first, call.suspects) for one in waiting]
    ranges += [(position, position + 1) for position in call.delayed]
    for name in call.containers:
        for run in state.containers[name].runs[call.call_id]:
            ranges += spans(run)
    return sorted(ranges)


def _between(ranges: Sequence[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """What of ``start`` to ``end`` lies in none of the ranges."""
    for low, high in ranges:
        if low > start and start < end:
            yield start, min(low, end)
        start = max(start, high)
    if start < end:
        yield start, end
