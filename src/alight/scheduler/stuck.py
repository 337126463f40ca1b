"""Children that only their own waiting parents could make room for: they fail, for else they would wait for ever."""

from __future__ import annotations

from dataclasses import replace

from alight.scheduler import gpu_room, line, members, place
from alight.scheduler.decisions import Decision, Fail
from alight.scheduler.state import STUCK_SECONDS, Call, Container, Function, State, spans
from alight.wire.errors import ResourceExhaustedError, to_wire
from alight.wire.states import ResultStatus


def fail_if_stuck(state: State, function: Function, now: float, decisions: list[Decision]) -> None:
    """End the children in a function's line when it has been stuck for ``STUCK_SECONDS``: some pass by themselves."""
    if not function.waiting or not _is_stuck(state, function, now):
        function.stuck_since = None
        return
    if function.stuck_since is None:
        function.stuck_since = now
    # Not "now - since": that may come out a hair below and set the same timer for ever.
    if now < function.stuck_since + STUCK_SECONDS:
        line.set_timer(state, function.stuck_since + STUCK_SECONDS, "feed", function.function_id)
        return
    for call in line.calls_in_line(state, function):
        names = parents(state, call)
        if not names:
            continue
        who = ", ".join(f"{name}()" for name in names)
        error = ResourceExhaustedError(
            f"{function.name}() can never start: {who}, which wait for it, hold what it needs "
            f"({_what(state, function)})",
            hint="let the caller ask for less, raise max_containers, or call it from a machine with more room",
        )
        for positions in line.clear(function, call):
            for position in [one for one in call.tried if one in positions]:
                del call.tried[position]
            decisions.append(Fail(call.call_id, positions, ResultStatus.IMPOSSIBLE, to_wire(error)))
        line.forget_if_done(state, call)
    function.stuck_since = None


def parents(state: State, call: Call) -> list[str]:
    """The names of the functions whose inputs wait for this call, nearest first."""
    names: list[str] = []
    seen = {call.call_id}
    parent = call.parent
    while parent is not None and parent[0] not in seen:
        seen.add(parent[0])
        above = state.calls.get(parent[0])
        if above is None:
            break
        function = state.functions.get(above.function_id)
        if above.containers and function is not None:
            names.append(function.name)
        parent = above.parent
    return names


def never_free(state: State, now: float) -> set[str]:
    """Containers that keep what they hold, by all that is known: kept ready, or waiting for what can never run."""
    free = {name for name, one in state.containers.items() if _frees_itself(state, one)}
    runs_something = any(one.open and not one.blocked for one in state.containers.values())
    rest = {name for name, one in state.containers.items() if name not in free}
    children = _children(state, rest) if rest else {}
    moved = True
    while moved:
        moved = False
        for name in list(rest):
            container = state.containers[name]
            container = members.leader(state, container) or container  # a gang waits as one
            if not container.blocked:
                continue
            mine = children.get(container.container_id, [])
            # One that waits for calls nobody here knows may get its answer as long as anything runs.
            if any(_moves(state, call, rest, now) for call in mine) or (not mine and runs_something):
                rest.discard(name)
                moved = True
    return rest


def may_start(state: State, function: Function, kept: set[str], now: float) -> bool:
    """Whether a container for this function may be had once all but ``kept`` have ended."""
    if function.starting or function.serving or function.start_after > now:
        return True
    most = function.need.max_containers
    if most is not None and len(function.containers) - len(function.blocked) >= most:
        return True  # one that runs will end or be free
    choices = place.requests(state, function.need)
    for node in state.nodes.values():
        if not node.connected:
            return True
        mine = [state.containers[name] for name in node.containers if name in kept]
        memory = node.memory - sum(one.memory for one in mine)
        if memory < function.need.memory_in_all:
            continue
        # Those out of service may come back: that they are waited for is no reason to fail.
        left = gpu_room.of([replace(gpu, fault="") for gpu in node.gpus], mine)
        if place.pick_all(choices, left, function.need) is not None:
            return True
    return not state.nodes


def _is_stuck(state: State, function: Function, now: float) -> bool:
    if not any(parents(state, call) for call in line.calls_in_line(state, function)):
        return False
    if function.starting or function.serving or function.start_after > now:
        return False
    return not may_start(state, function, never_free(state, now), now)


def _frees_itself(state: State, container: Container) -> bool:
    container = members.leader(state, container) or container
    if container.blocked:
        return False
    function = state.functions.get(container.function_id)
    if container.open or not container.ready or container.stopping or function is None:
        return True
    return len(function.containers) - len(function.leaving) > function.need.min_containers


def _moves(state: State, call: Call, kept: set[str], now: float) -> bool:
    """Whether anything of a call runs, or may."""
    if call.delayed or any(name not in kept for name in call.containers):
        return True
    if not (call.waiting or call.first or call.suspects):
        return False
    function = state.functions.get(call.function_id)
    return function is not None and may_start(state, function, kept, now)


def _children(state: State, containers: set[str]) -> dict[str, list[Call]]:
    """The open calls that inputs of these containers have made."""
    by_parent: dict[str, list[Call]] = {}
    for call in state.calls.values():
        if call.parent is not None:
            by_parent.setdefault(call.parent[0], []).append(call)
    found: dict[str, list[Call]] = {}
    for name in containers:
        for call_id, runs in state.containers[name].runs.items():
            for call in by_parent.get(call_id, ()):
                assert call.parent is not None
                at = call.parent[1]
                if any(start <= at < stop for run in runs for start, stop in spans(run)):
                    found.setdefault(name, []).append(call)
    return found


def _what(state: State, function: Function) -> str:
    need = function.need
    if need.max_containers is not None and len(function.containers) >= need.max_containers:
        return f"max_containers={need.max_containers}"
    if need.gpus:
        return f"a GPU: {', '.join(need.gpus)}"
    return f"memory: {need.memory_in_all} MiB"
