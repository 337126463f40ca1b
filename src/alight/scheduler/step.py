"""The one function that changes the state: facts in, decisions out.

Time is an argument. Call it with no events when ``next_wake`` has come.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from alight.scheduler import budgets, calls, containers, events, machines, publishing, scale, warm
from alight.scheduler.decisions import Decision
from alight.scheduler.dispatch import look
from alight.scheduler.state import State


def step(state: State, happened: Sequence[events.Event], now: float) -> list[Decision]:
    """Take in what happened and say what to do. Decisions are in the order in which they must be carried out."""
    decisions: list[Decision] = []
    common = None
    if len(happened) == 1 and not (state.timers and state.timers[0][0] <= now):
        common = _COMMON.get(type(happened[0]))
    if common is None or not common(state, happened[0], now, decisions):
        for event in happened:
            _HANDLERS[type(event)](state, event, now, decisions)
    if state.timers and state.timers[0][0] <= now:
        _fire_timers(state, now, decisions)
    if state.hungry or state.idled:
        scale.feed(state, now, decisions)
    return decisions


def next_wake(state: State) -> float | None:
    """When to call ``step`` again if nothing happens before."""
    return state.timers[0][0] if state.timers else None


def _fire_timers(state: State, now: float, decisions: list[Decision]) -> None:
    while state.timers and state.timers[0][0] <= now:
        _, _, kind, name = heapq.heappop(state.timers)
        if kind == "input":
            calls.end_delays(state, name, now)
        elif kind == "idle":
            container = state.containers.get(name)
            if container is not None:
                scale.stop_if_idle(state, container, now, decisions)
        elif name in state.functions:
            if kind == "look":
                look(state, state.functions[name], now, decisions)
            elif kind == "trial":
                publishing.look_at_trial(state, state.functions[name], now, decisions)
            state.hungry[name] = None


_HANDLERS: dict[type, Any] = {
    events.NodeJoined: machines.joined,
    events.GpusChanged: machines.gpus_changed,
    events.NodeAway: machines.away,
    events.NodeGone: machines.gone,
    events.FunctionPublished: publishing.published,
    events.FunctionReverted: publishing.reverted,
    events.FunctionRetired: publishing.retired,
    events.FunctionScaled: containers.scaled,
    events.AppEnded: containers.app_ended,
    events.AppsHeld: budgets.held,
    events.InputsArrived: calls.arrived,
    events.CallCancelled: calls.cancelled,
    events.AttemptsEnded: calls.answered,
    events.ItemsCame: calls.items_came,
    events.InputsReturned: calls.returned,
    events.ContainerReady: containers.ready,
    events.ContainerEnded: containers.ended,
    events.StopAsked: containers.stop_asked,
    events.StartFailed: containers.start_failed,
    events.InputsWaiting: containers.waits,
}

_COMMON: dict[type, Any] = {events.InputsArrived: warm.arrived, events.AttemptsEnded: warm.answered}
