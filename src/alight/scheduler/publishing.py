"""New versions of functions: how they take over from the old ones, and what happens when they do not come up.

Somebody who deploys waits for a trial: the first container of the new version. Until it is ready the old containers go
on serving, so that a version that cannot even be imported harms nobody; ``FunctionReverted`` then takes it back.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from alight.scheduler import dispatch, events, line, members, scale
from alight.scheduler.decisions import Decision, TrialEnded
from alight.scheduler.ending import stop
from alight.scheduler.state import Container, Function, State
from alight.wire.states import ResultStatus

TRIAL_LOOKS = 10.0  # seconds after which a trial that found no room is given up: old ones must make room for new ones
_WHY = "the function was published anew"
_TAKEN_OVER = "a newer version of the function took the place of its container"
_GRACE = 10.0  # seconds that a container with inputs gets to end when it is replaced at once


def published(state: State, event: events.FunctionPublished, now: float, decisions: list[Decision]) -> None:
    """Enter a function, or its newer version."""
    function = state.functions.get(event.function_id)
    old: list[Container] = []
    pace = None
    if function is None:
        function = Function(event.function_id, event.app_id, event.name, event.need, event.need.slots)
        state.functions[event.function_id] = function
    else:
        old, pace = [state.containers[name] for name in function.containers], function.pace
        _renew(function, event)
    function.kept, function.awake = event.kept, function.awake or event.kept
    serving = [one for one in old if one.container_id in function.serving] if not event.recreate else []
    if event.resumed:
        function.proven = function.version - 1
    elif event.trial and serving:
        function.pace = pace  # or each deploy under load would start containers as if nothing were known
    else:
        function.proven = function.version
        serving = []
    for container in old:
        if container in serving:
            continue
        dispatch.refresh(state, container, now)
        if event.recreate:
            for one in members.all_of(state, container):
                one.frees = _TAKEN_OVER
            stop(state, container, _WHY, decisions, _GRACE)
        else:
            _leave(state, container, now, decisions)
    if event.trial:
        anyway = event.anyway and (event.resumed or _has_machine(state))
        if anyway or old or function.waiting or (function.kept and function.need.min_containers):
            function.trial = math.inf if event.resumed else now
            line.set_timer(state, now + TRIAL_LOOKS, "trial", function.function_id)
        else:
            function.proven = function.version
            decisions.append(TrialEnded(function.function_id))
    state.hungry[function.function_id] = None


def reverted(state: State, event: events.FunctionReverted, now: float, decisions: list[Decision]) -> None:
    """Back to the version before. Where its containers serve still, they stay."""
    function = state.functions.get(event.function_id)
    if function is None or function.proven == function.version:
        again = events.FunctionPublished(event.function_id, event.app_id, event.name, event.need, kept=event.kept)
        published(state, again, now, decisions)
        return
    failed, proven = function.version, function.proven
    _renew(function, event)
    function.proven, function.kept = function.version, event.kept
    for name in list(function.containers):
        container = state.containers[name]
        if proven <= container.version < failed:
            for one in members.all_of(state, container):
                one.version = function.version
            if not container.ready and not container.stopping:
                function.starting.add(name)
            dispatch.refresh(state, container, now)
        else:
            dispatch.refresh(state, container, now)
            _leave(state, container, now, decisions)
    state.hungry[function.function_id] = None


def retired(state: State, event: events.FunctionRetired, now: float, decisions: list[Decision]) -> None:
    """No more of it: what waits ends, what runs may finish."""
    function = state.functions.get(event.function_id)
    if function is None:
        return
    function.retired, function.kept, function.awake, function.trial = event.error, False, False, None
    function.need = replace(function.need, min_containers=0, buffer_containers=0)
    function.version += 1
    function.proven = function.version
    function.starting.clear()
    scale.fail_waiting(state, function, ResultStatus.CANCELLED, event.error, decisions)
    for name in list(function.containers):
        container = state.containers[name]
        dispatch.refresh(state, container, now)
        _leave(state, container, now, decisions)


def take_over(state: State, function: Function, now: float, decisions: list[Decision], said: str = "") -> None:
    """The newest version serves from now on; containers of earlier ones finish what they have begun."""
    function.trial = None
    function.proven = function.version
    decisions.append(TrialEnded(function.function_id, said=said))
    for name in list(function.containers):
        container = state.containers[name]
        if container.version < function.proven:
            dispatch.refresh(state, container, now)
            _leave(state, container, now, decisions)
    state.hungry[function.function_id] = None


def give_up(function: Function, status: str, error: dict[str, Any], decisions: list[Decision]) -> None:
    """No container of the newest version comes up. Nothing starts, and nothing fails, until it is taken back."""
    function.trial, function.halted = None, True
    function.start_failures = 0
    decisions.append(TrialEnded(function.function_id, error, status))


def look_at_trial(state: State, function: Function, now: float, decisions: list[Decision]) -> None:
    """See whether a trial has a container at all. Where there is no room for one, nothing can be tried beforehand."""
    if function.trial is None:
        return
    if function.trial == math.inf and _has_machine(state):
        function.trial = now  # of a trial that is gone on with: until now there was no machine to look at
    if now >= max(function.trial, function.start_after) + TRIAL_LOOKS and not scale.has_new(state, function):
        beside = " beside the old ones" if function.containers else ""
        said = f"no machine had room for a container of {function.name}(){beside}: it was not tried first"
        take_over(state, function, now, decisions, said)
        return
    line.set_timer(state, now + TRIAL_LOOKS, "trial", function.function_id)


def _has_machine(state: State) -> bool:
    return any(node.connected for node in state.nodes.values())


def _renew(function: Function, event: events.FunctionPublished | events.FunctionReverted) -> None:
    function.need, function.slots, function.name, function.pace = event.need, event.need.slots, event.name, None
    function.version += 1
    function.start_failures, function.start_after = 0, 0.0
    function.starting.clear()
    function.trial, function.halted, function.retired = None, False, None


def _leave(state: State, container: Container, now: float, decisions: list[Decision]) -> None:
    if container.open:
        dispatch.recall(state, container, now, decisions)
    else:
        stop(state, container, _WHY, decisions)
