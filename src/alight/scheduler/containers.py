"""What happens to functions and their containers: scaled, ended; ready, gone, failed to start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from alight.scheduler import calls, dispatch, events, gangs, held, line, members, place, publishing, scale
from alight.scheduler.decisions import Cancel, Decision, Stop
from alight.scheduler.ending import dissolve, lose_member, stop
from alight.scheduler.state import Call, Container, Run, State, spans
from alight.wire.errors import InternalFailure, to_wire

_START_BACKOFF = 60.0
_START_TRIES = 3


def scaled(state: State, event: events.FunctionScaled, now: float, decisions: list[Decision]) -> None:
    """Change how many containers a function may have, and for how long idle ones stay."""
    function = state.functions.get(event.function_id)
    if function is None:
        return
    function.need, function.slots = event.need, event.need.slots
    function.awake = function.awake or function.kept
    for name in list(function.containers):
        container = state.containers[name]
        since = container.idle_since
        dispatch.refresh(state, container, now)
        if container.ready and not container.open and not container.stopping:
            container.idle_since = since  # it has been idle for as long as it was
            line.set_timer(state, max(now, since + event.need.scaledown_window), "idle", name)
    state.hungry[function.function_id] = None


def app_ended(state: State, event: events.AppEnded, now: float, decisions: list[Decision]) -> None:
    """Forget an app's functions and calls, interrupt what runs of them, and end its containers."""
    gone = {one.function_id for one in state.functions.values() if one.app_id == event.app_id}
    for call in [call for call in state.calls.values() if call.function_id in gone]:
        for name in call.containers:
            container = state.containers[name]
            held.drop(container, call.call_id)
            gangs.forget_answer(state, container, call.call_id, decisions)
            # Nobody waits for it: the container's grace is for its exit hooks.
            decisions.append(Cancel(call.call_id, -1, name, container.node_id))
        del state.calls[call.call_id]
    for function_id in gone:
        function = state.functions[function_id]
        for name in list(function.containers):
            container = state.containers[name]
            stop(state, container, "the app was stopped", decisions, event.grace if container.open else 30.0)
            state.orphaned.update(dict.fromkeys((name, *members.others(state, container)), container.node_id))
        del state.functions[function_id]
        state.hungry.pop(function_id, None)
        state.starved.pop(function_id, None)


def ready(state: State, event: events.ContainerReady, now: float, decisions: list[Decision]) -> None:
    """A container takes inputs from now on."""
    container = state.containers.get(event.container_id)
    if container is not None and not container.ready:
        mark_ready(state, container, now, decisions)


def mark_ready(state: State, container: Container, now: float, decisions: list[Decision]) -> None:
    """Note that a container has started; another one may start on its machine."""
    container.ready = True
    function = state.functions.get(container.function_id)
    is_up = members.is_up(state, container)
    if function is not None and is_up:
        function.starting.discard((members.leader(state, container) or container).container_id)
        function.start_failures = 0
    node = state.nodes[container.node_id]
    node.starting -= 1
    dispatch.refresh(state, container, now)
    if function is not None and is_up and function.trial is not None and container.version == function.version:
        publishing.take_over(state, function, now, decisions)
    if node.starting == node.starts_at_once - 1:
        place.room_on(state, node)
        scale.room_appeared(state)


def waits(state: State, event: events.InputsWaiting, now: float, decisions: list[Decision]) -> None:
    """Inputs of a container wait for other calls. Behind one that waits, nothing can begin: that is taken back."""
    container = state.containers.get(event.container_id)
    if container is None or not container.ready or container.rank:
        return
    container.waits = min(event.count, container.open)
    was = container.blocked
    if not container.waits:
        container.moved = now  # the time that it waited is not the time that it ran
    dispatch.refresh(state, container, now)
    if container.blocked:
        dispatch.recall(state, container, now, decisions)
    if container.blocked is not was:
        scale.room_appeared(state)


def ended(
    state: State, event: events.ContainerEnded, now: float, decisions: list[Decision], *, with_machine: bool = False
) -> None:
    """A container is gone. What had begun in it is tried again or fails, the rest waits again as if never given.

    Which inputs had begun is known roughly: of a container that takes one at a time, the first that was not answered.
    Answers that it had not sent are lost with it, so that one may be innocent; hence all go on one by one, each in a
    container of its own, until the guilty one is found. A lost machine says nothing against its inputs.
    """
    container = state.containers.get(event.container_id)
    if container is None:
        return
    function = state.functions.get(container.function_id)
    runs = held.in_order(container)
    if container.gang:
        container.stopping = True  # it need not be told
        if not state.gangs[container.gang].over:
            event = replace(event, error=gangs.named(event.error, container, state.gangs[container.gang]))
        runs = lose_member(state, container, now, decisions)
    for run in runs:
        call = state.calls.get(run.call_id)
        if call is not None and call.containers:
            call.containers.pop(container.container_id, None)
    scale.remove_container(state, container)
    if function is None:
        return
    at_once = function.slots > 1
    first = True
    begun: list[tuple[Run, Call, Sequence[int]]] = []
    back: list[tuple[Run, Call, range]] = []
    for run in runs:
        call = state.calls[run.call_id]
        for start, end in spans(run):
            if at_once:
                begun.append((run, call, range(start, end)))
                continue
            if first and not container.timed_out:
                begun.append((run, call, range(start, start + 1)))
                start += 1  # noqa: PLW2901  the rest of it
            first = False
            if start < end:
                back.append((run, call, range(start, end)))
    innocent = ""
    if container.timed_out:
        innocent = "another input of its container ran too long"
    elif container.frees:
        innocent = container.frees
    suspect = not (innocent or with_machine)
    for run, call, positions in reversed(back):
        calls.requeue(state, call, positions, run.attempt, suspect=suspect)
    for run, call, among in reversed(begun):
        for position in reversed(among):
            if innocent and position not in call.items:
                calls.innocent(state, function, (call, position), run.attempt, (now, innocent), decisions)
            else:
                calls.lost(state, call, position, run.attempt, event, now, decisions)
    for run in runs:
        call_left = state.calls.get(run.call_id)
        if call_left is not None:
            line.forget_if_done(state, call_left)


def stop_asked(state: State, event: events.StopAsked, now: float, decisions: list[Decision]) -> None:
    """End a container because somebody says so; asked again, with the grace that is asked for now."""
    del now
    container = state.containers.get(event.container_id)
    if container is None:
        return
    if container.stopping:
        decisions.append(Stop(container.container_id, container.node_id, event.why, event.grace))
        return
    stop(state, container, event.why, decisions, event.grace)
    if container.function_id in state.functions:
        state.hungry[container.function_id] = None


def start_failed(state: State, event: events.StartFailed, now: float, decisions: list[Decision]) -> None:
    """A container did not start: try again later, or give up on what waits for it."""
    container = state.containers.get(event.container_id)
    if container is None:
        return
    function = state.functions.get(container.function_id)
    stopping, container.stopping = container.stopping, True
    error = event.error
    if container.gang:
        gang = state.gangs[container.gang]
        error = gangs.named(error, container, gang)
        dissolve(state, gang, container, decisions)
    scale.remove_container(state, container)
    if function is None or container.version != function.version or stopping:
        return
    function.start_failures += 1
    others = any(
        members.is_up(state, state.containers[one]) for one in function.containers if one != container.container_id
    )
    if function.trial is not None:
        others = False  # of the version before: they say nothing of this one
    if (event.final and not others) or function.start_failures >= _START_TRIES:
        error = error or to_wire(InternalFailure(f"no container of {function.name}() could be started"))
        if function.trial is not None:
            publishing.give_up(function, event.status, error, decisions)
            return
        scale.fail_waiting(state, function, event.status, error, decisions)
        function.start_failures = 0
        function.awake = False  # the next input will show whether it starts by then
        return
    function.start_after = now + min(_START_BACKOFF, 0.1 * 4**function.start_failures)
    line.set_timer(state, function.start_after, "feed", function.function_id)
