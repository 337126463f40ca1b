"""The end of containers, as far as the scheduler asks for it."""

from __future__ import annotations

from dataclasses import replace

from alight.scheduler import dispatch, held, members
from alight.scheduler.decisions import Aside, Cancel, Decision, Stop
from alight.scheduler.state import Container, Function, Gang, Run, State

#: Seconds that the rest of a gang gets to end in when one of it was lost: it waits for that one, mostly.
GANG_GRACE = 5.0

#: Why a container ends that would wait for work that may not begin.
NO_BUDGET = "a budget of its app is used up"


def stop(state: State, container: Container, why: str, decisions: list[Decision], grace: float = 30.0) -> None:
    """Ask for the end of a container, and of its gang. It holds its place until it is gone. What it has not begun comes
    back."""
    for one in members.all_of(state, container) if container.gang else (container,):
        _stop(state, one, why, decisions, grace)


def _stop(state: State, container: Container, why: str, decisions: list[Decision], grace: float) -> None:
    if container.stopping:
        return
    container.stopping = True
    name = container.container_id
    function = state.functions.get(container.function_id)
    if function is not None and not container.rank:
        function.idle.pop(name, None)
        function.partly.pop(name, None)
        function.serving.discard(name)
        function.starting.discard(name)
        function.leaving.add(name)
    if grace > 0 and function is not None:
        grace = max(grace, function.need.exit_grace)
    decisions.append(Stop(name, container.node_id, why, grace))


def begin_drain(state: State, container: Container, why: str, now: float, decisions: list[Decision]) -> None:
    """Let a container finish what it has begun and end it then. One that has nothing ends at once."""
    if container.stopping or container.draining:
        return
    if not container.open:
        stop(state, container, why, decisions)
        return
    container.draining = why
    function = state.functions.get(container.function_id)
    if function is not None:
        function.leaving.add(container.container_id)
    dispatch.refresh(state, container, now)
    dispatch.recall(state, container, now, decisions)


def end_if_done(state: State, container: Container, decisions: list[Decision]) -> None:
    """Stop a container that had only to finish what it ran."""
    function = state.functions.get(container.function_id)
    leader = members.leader(state, container)
    if leader is None or leader.open or not leader.ready or function is None:
        return
    why = why_over(state, function, leader)
    if why:
        stop(state, leader, why, decisions)


def why_over(state: State, function: Function, container: Container) -> str:
    """Why a container gets no more inputs and ends with its last; "" for one that serves."""
    if container.draining:
        return container.draining
    if function.app_id in state.budgets:
        return NO_BUDGET
    if container.version < function.proven:
        return "the function was published anew"
    return "it serves one input only" if container.served and function.need.single_use else ""


def lose_member(state: State, container: Container, now: float, decisions: list[Decision]) -> list[Run]:
    """A member of a gang is gone. Returns the runs that are lost with it.

    One that had answered its input leaves the others to finish theirs; the gang ends then.
    """
    gang, leader = state.gangs[container.gang], members.leader(state, container)
    if gang.over or leader is None:
        return []
    if container.rank and not container.runs and leader.ready:
        begin_drain(state, leader, f"rank {container.rank} of its cluster has ended", now, decisions)
        return []
    return dissolve(state, gang, container, decisions)


def dissolve(state: State, gang: Gang, lost: Container, decisions: list[Decision]) -> list[Run]:
    """End a gang because of a member that was ``lost``, or failed its input; the runs that it had."""
    if gang.over:
        return []
    gang.over = True
    leader = gang.members[0]
    # Copies: those that are dropped here get smaller as they are answered.
    runs = [replace(run) for run in held.in_order(state.containers[leader])] if leader in state.containers else []
    if gang.answer is not None:
        decisions.append(Aside(gang.answer.call_id, leader, keep=False))
        gang.answer = None
    for one in members.all_of(state, lost):
        for call_id in list(one.runs):
            held.drop(one, call_id)
            call = state.calls.get(call_id)
            if call is not None and call.containers:
                call.containers.pop(one.container_id, None)
            if one is not lost:
                decisions.append(Cancel(call_id, -1, one.container_id, one.node_id))
    why = f"rank {lost.rank} of its cluster has ended" if len(gang.members) > 1 else "its cluster has ended"
    stop(state, lost, why, decisions, GANG_GRACE)
    return runs
