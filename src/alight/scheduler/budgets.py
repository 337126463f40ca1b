"""Apps that have used up a budget: nothing of them begins, and nothing of them waits for work at somebody's cost."""

from __future__ import annotations

from alight.scheduler import events, members
from alight.scheduler.decisions import Decision
from alight.scheduler.ending import NO_BUDGET, stop
from alight.scheduler.state import State

_GRACE = 30.0  # seconds that what runs gets to end, when it is to end


def held(state: State, event: events.AppsHeld, now: float, decisions: list[Decision]) -> None:
    """Hold these apps and let the others go on. What runs ends the containers of a held app as it ends."""
    del now
    before, state.budgets = state.budgets, dict(event.why)
    for function in state.functions.values():
        if function.app_id in state.budgets:
            for name in list(function.containers):
                container = state.containers[name]
                if container.open and function.app_id in event.stop:
                    for one in members.all_of(state, container):
                        one.frees = NO_BUDGET
                elif container.open:
                    continue
                stop(state, container, NO_BUDGET, decisions, _GRACE)
        elif function.app_id in before:
            state.hungry[function.function_id] = None
