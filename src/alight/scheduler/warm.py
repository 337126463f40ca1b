"""The common case: a call of one input that finds a container with nothing to do, and its answer.

What ``calls``, ``dispatch`` and ``scale`` do about any event, cut down to what is left of it when nothing waits, nobody
is short of room and nothing of the call was tried before. Each function says whether that is so; where it is not, it
has done nothing and the long way begins. Must never decide anything that the long way would not.
"""

from __future__ import annotations

from alight.scheduler import dispatch, line
from alight.scheduler.decisions import Decision, Finish, Give
from alight.scheduler.events import AttemptsEnded, InputsArrived
from alight.scheduler.state import Call, Run, State
from alight.wire.states import ResultStatus

_ONE = ((0, 1),)


def arrived(state: State, event: InputsArrived, now: float, decisions: list[Decision]) -> bool:
    """A call that nobody knows goes to the container that has been idle for longest."""
    function = state.functions.get(event.function_id)
    call_id = event.call_id
    if (
        function is None
        or function.waiting
        or not function.idle
        or event.ranges != _ONE
        or event.attempts
        or call_id in state.calls
        or (state.budgets and function.app_id in state.budgets)
        or function.quarantine
        or not _is_calm(state)
    ):
        return False
    need = function.need
    if need.single_use or need.min_containers or need.buffer_containers or need.cluster:
        return False  # what the container does now says how many there should be
    name = next(iter(function.idle))
    container = state.containers[name]
    if container.waits or container.blocked:
        return False
    function.awake = True
    call = Call(call_id, event.function_id, state.next_order(), event.parent, now)
    call.top = 1
    call.held_by(name)
    state.calls[call_id] = call
    container.runs[call_id] = [Run(call_id, 0, 1, 1, state.next_order())]
    container.open = 1
    container.served = True
    container.moved = now
    del function.idle[name]
    if not container.recalled and dispatch.room(function, container) > 0:
        function.partly[name] = None
    decisions.append(Give(call_id, 0, 1, 1, name))
    return True


def answered(state: State, event: AttemptsEnded, now: float, decisions: list[Decision]) -> bool:
    """The value of the one input that a container had, and that its call had: both have nothing left."""
    name, call_id, positions = event.container_id, event.call_id, event.positions
    container, call = state.containers.get(name), state.calls.get(call_id)
    if (
        container is None
        or call is None
        or container.gang
        or event.status != ResultStatus.SUCCESS
        or container.open != 1
    ):
        return False
    runs = container.runs.get(call_id)
    function = state.functions.get(container.function_id)
    if runs is None or function is None or type(positions) is not range or len(positions) != 1:
        return False
    run = runs[0]
    if (
        run.left is not None
        or run.start != positions.start
        or run.attempt != event.attempt
        or len(call.containers) != 1
        or call.waiting
        or call.first
        or call.suspects
        or call.delayed
        or call.tried
        or call.items
    ):
        return False
    if (
        function.waiting
        or function.quarantine
        or name not in function.serving  # it is stopping, stalled, of an earlier version, on a machine that is away …
        or len(function.serving) != len(function.idle) + 1  # it may take over what another one has not begun
        or container.draining
        or container.waits
        or container.blocked
        or function.need.single_use
        or not _is_calm(state)
    ):
        return False
    del container.runs[call_id]
    del state.calls[call_id]
    container.open = 0
    container.moved = container.idle_since = now
    dispatch.learn_pace(function, event.busy, 1)
    function.partly.pop(name, None)
    function.idle[name] = None
    if not container.idle_timer:
        container.idle_timer = True
        line.set_timer(state, now + function.need.scaledown_window, "idle", name)
    decisions.append(Finish(call_id, positions, event.attempt, name))
    return True


def _is_calm(state: State) -> bool:
    """Whether no function has something to be looked at before or after this."""
    return not (state.starved or state.hungry or state.idled)
