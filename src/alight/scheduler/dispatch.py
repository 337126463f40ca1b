"""Inputs to containers: how many at a time, from which call, and what to take back.

A container that runs one input at a time gets about ``AHEAD`` seconds of work, measured by its function's pace, so that
tiny inputs share the cost of a message and long ones are never stuck behind each other.
"""

from __future__ import annotations

from alight.scheduler import held, line, members
from alight.scheduler.decisions import Decision, Give, Recall
from alight.scheduler.state import Container, Function, Span, State
from alight.wire.chunk import MOST

AHEAD = 0.020  # seconds of work in a container: some ten times what a round to the server takes
PREFETCH_BELOW = 0.050  # seconds; of longer inputs none waits inside a container: the round costs under a twentieth
STALL = 0.1  # seconds without an answer after which what waits in a container is taken back
RECALL_WORTH = 0.005  # seconds of work below which taking back costs more than it brings


def give_inputs(state: State, function: Function, now: float, decisions: list[Decision]) -> None:
    """Hand what waits to containers that can take it."""
    if function.app_id in state.budgets:
        return
    while function.waiting:
        if function.suspects and _give_suspect(state, function, now, decisions):
            continue
        if not function.first and not function.line:
            return
        free = function.idle or function.partly
        if not free:
            return
        container = state.containers[next(iter(free))]
        most = _portion(function, container)
        if most <= 0:
            free.popitem(last=False)
            continue
        kind = "first" if function.first else "line"
        call = state.calls[next(iter(function.first or function.line))]
        span = line.take(function, call, most, kind)
        _give(state, container, call.call_id, span, now, decisions)
        refresh(state, container, now)


def refresh(state: State, container: Container, now: float) -> None:
    """Sort a container by what it can do now, and note since when it has had nothing to do."""
    function = state.functions.get(container.function_id)
    leader = members.leader(state, container) if container.gang else container
    if function is None or leader is None:
        return
    container = leader
    name, count = container.container_id, container.open
    _note_blocked(state, function, container)
    container.stalled = container.stalled and count > 0  # all that it had was returned, or never came to it
    function.idle.pop(name, None)
    function.partly.pop(name, None)
    serves = (
        container.ready
        and not container.stopping
        and not container.draining
        and container.version >= function.proven
        and not container.stalled
        and not (container.blocked and function.slots == 1)
        and state.nodes[container.node_id].connected
        and not (container.served and function.need.single_use)
        and (not container.gang or members.may_serve(state, container))
    )
    if serves:
        function.serving.add(name)
        if not count:
            function.idle[name] = None
            state.idled = True
            if len(function.serving) > len(function.idle):
                state.hungry[function.function_id] = None  # it may take over what another one has not begun
        elif (
            not container.recalled
            and not container.gang
            and function.quarantine != name
            and room(function, container) > 0
            and not held.is_alone(container)
        ):
            function.partly[name] = None
        if function.waiting:
            state.hungry[function.function_id] = None
    else:
        function.serving.discard(name)
    if not count and container.ready and not container.stopping:
        container.idle_since = now
        # One timer per idle spell would flood the heap on a busy container: the pending one looks again.
        if not container.idle_timer:
            container.idle_timer = True
            line.set_timer(state, now + function.need.scaledown_window, "idle", name)


def take_back(state: State, function: Function, now: float, decisions: list[Decision]) -> None:
    """While a container is idle and nothing waits, ask the one that holds most to return what it has not begun."""
    if function.waiting or not function.idle or function.slots != 1:
        return
    most: Container | None = None
    for name in function.containers:
        container = state.containers[name]
        if container.recalled:
            return
        if container.open > 1 and not container.stopping and (most is None or container.open > most.open):
            most = container
    if most is None:
        return
    if (most.open - 1) * (function.pace or AHEAD) >= RECALL_WORTH or now - most.moved >= STALL:
        recall(state, most, now, decisions)
    else:
        look_later(state, function, now)


def recall(state: State, container: Container, now: float, decisions: list[Decision]) -> None:
    """Ask for what a container has not begun, once until it answers. One that runs all it has is not asked."""
    function = state.functions.get(container.function_id)
    if container.recalled or not container.ready or function is None:
        return
    if container.open <= 1 or function.slots != 1 or not state.nodes[container.node_id].connected:
        return
    container.recalled = True
    decisions.append(Recall(container.container_id, container.node_id))
    refresh(state, container, now)


def look(state: State, function: Function, now: float, decisions: list[Decision]) -> None:
    """See which containers have answered nothing for long: they get no more, and return what they have not begun."""
    function.looking = False
    for name in list(function.serving):
        container = state.containers[name]
        if function.slots == 1 and container.open and now - container.moved >= slow(function):
            container.stalled = True
            recall(state, container, now, decisions)
            refresh(state, container, now)
        elif container.open > 1:
            look_later(state, function, now)
    state.hungry[function.function_id] = None


def look_later(state: State, function: Function, now: float) -> None:
    """Have ``look`` called after a while."""
    if not function.looking:
        function.looking = True
        line.set_timer(state, now + slow(function), "look", function.function_id)


def slow(function: Function) -> float:
    """Seconds without an answer that say that an input takes much longer than usual."""
    return max(STALL, 4 * (function.pace or 0.0))


def learn_pace(function: Function, busy: float, count: int) -> None:
    """Take in how long some inputs took. Slower ones count more: too much ahead is worse than too little."""
    if busy <= 0:
        return
    seen, known = busy / count, function.pace
    function.pace = seen if known is None else known + (seen - known) * (0.5 if seen > known else 0.2)


def _give(state: State, container: Container, call_id: str, span: Span, now: float, decisions: list[Decision]) -> None:
    if not container.open:
        container.moved = now
    others = held.hold_together(state, container, call_id, span)
    decisions.append(Give(call_id, span[0], span[1], span[2], container.container_id, others))


def _give_suspect(state: State, function: Function, now: float, decisions: list[Decision]) -> bool:
    """Give one suspect a container of its own; without an empty one, see that one gets empty."""
    if function.idle:
        container = state.containers[next(iter(function.idle))]
        call = state.calls[next(iter(function.suspects))]
        span = line.take(function, call, 1, "suspects")
        if not container.open:
            container.moved = now
        others = held.hold_together(state, container, call.call_id, span, alone=True)
        decisions.append(Give(call.call_id, span[0], span[1], span[2], container.container_id, others))
        was, function.quarantine = function.quarantine, ""
        if was and was in state.containers:
            refresh(state, state.containers[was], now)
        refresh(state, container, now)
        return True
    if function.quarantine not in function.serving and function.serving and not function.starting:
        function.quarantine = min(function.serving, key=lambda name: (state.containers[name].open, name))
        refresh(state, state.containers[function.quarantine], now)
    return False


def room(function: Function, container: Container) -> int:
    """How many more inputs a container may be given, whatever waits."""
    slots = function.slots
    if slots > 1:
        return slots - container.open + min(container.waits, container.open)
    pace, count = function.pace, container.open
    if function.need.single_use or pace is None or pace >= PREFETCH_BELOW:
        return 1 - count
    most = min(MOST, max(2, int(AHEAD / pace)) if pace > 0 else MOST)
    # Refilled at half: each refill is worth its message.
    return most - count if count * 2 <= most else 0


def _portion(function: Function, container: Container) -> int:
    """How many inputs to give a container now: never more than its fair part of what waits."""
    more = room(function, container)
    if function.slots > 1:
        if function.need.batch_size:
            return more  # batches are better full
        return min(more, -(-function.waiting // max(1, len(function.idle) + len(function.partly))))
    # Nor is it filled up to that part while it has half of it: what waits last is shared finely.
    part = max(1, function.waiting // (2 * max(1, len(function.serving))))
    if part >= more + container.open:
        return more
    return part - container.open if container.open * 2 <= part else 0


def _note_blocked(state: State, function: Function, container: Container) -> None:
    """All inputs of a container wait for other calls, or no longer: its CPU is free meanwhile."""
    if not container.waits and not container.blocked:
        return
    container.waits = min(container.waits, container.open)
    slots = function.slots
    blocked = container.open > 0 and container.waits >= (1 if slots == 1 else container.open)
    if blocked is container.blocked:
        return
    container.blocked = blocked
    state.nodes[container.node_id].cpu_used += -container.cpu if blocked else container.cpu
    if blocked:
        function.blocked.add(container.container_id)
    else:
        function.blocked.discard(container.container_id)
    state.hungry[function.function_id] = None
