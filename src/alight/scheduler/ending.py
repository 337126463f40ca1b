"""The end of containers, as far as the scheduler asks for it."""

from __future__ import annotations

from alight.scheduler import dispatch
from alight.scheduler.decisions import Decision, Stop
from alight.scheduler.state import Container, State

#: Why a container ends that would wait for work that may not begin.
NO_BUDGET = "a budget of its app is used up"


def stop(state: State, container: Container, why: str, decisions: list[Decision], grace: float = 30.0) -> None:
    """Ask for the end of a container; it holds its place until it is gone. What it has not begun comes back."""
    if container.stopping:
        return
    container.stopping = True
    name = container.container_id
    function = state.functions.get(container.function_id)
    if function is not None:
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
    if container.open or not container.ready or function is None:
        return
    if container.draining:
        stop(state, container, container.draining, decisions)
    elif function.app_id in state.budgets:
        stop(state, container, NO_BUDGET, decisions)
    elif container.version < function.proven:
        stop(state, container, "the function was published anew", decisions)
    elif container.served and function.need.single_use:
        stop(state, container, "it serves one input only", decisions)
