"""Inputs to containers: the queue of each function, first come first served."""

from __future__ import annotations

import heapq

from alight.scheduler.decisions import Decision, Give
from alight.scheduler.state import Container, Function, Input, State


def enqueue(state: State, function: Function, entry: Input, at: float, now: float, *, first: bool = False) -> None:
    """Let an input wait for a container, from ``at`` on. ``first``: it has waited its turn once already."""
    if at > now:
        entry.delayed = True
        set_timer(state, at, "input", entry.input_id)
        return
    if first:
        function.waiting.appendleft(entry.input_id)
    else:
        function.waiting.append(entry.input_id)
    state.hungry[function.function_id] = None


def take_from_queue(function: Function, entry: Input) -> None:
    """Remove an input that waits; one that is delayed is dropped when its time comes."""
    entry.delayed = False
    if entry.input_id in function.waiting:
        function.waiting.remove(entry.input_id)


def give_inputs(state: State, function: Function, decisions: list[Decision]) -> None:
    """Hand what waits to containers that are free."""
    while function.waiting and function.free:
        container = state.containers[next(iter(function.free))]
        entry = state.inputs[function.waiting.popleft()]
        entry.container = container.container_id
        container.inputs[entry.input_id] = entry.attempt
        decisions.append(Give(entry.input_id, entry.attempt, container.container_id))
        if len(container.inputs) >= function.need.max_concurrent:
            del function.free[container.container_id]


def refresh_free(state: State, container: Container, now: float) -> None:
    """Note whether a container can take an input now, and since when it has had none."""
    function = state.functions.get(container.function_id)
    if function is None:
        return
    node = state.nodes.get(container.node_id)
    free = (
        container.ready
        and not container.stopping
        and container.version == function.version
        and node is not None
        and node.connected
        and len(container.inputs) < function.need.max_concurrent
    )
    if free:
        function.free[container.container_id] = None
        if function.waiting:
            state.hungry[function.function_id] = None
    else:
        function.free.pop(container.container_id, None)
    if container.ready and not container.inputs and not container.stopping:
        container.idle_since = now
        # One timer per idle spell would flood the heap on a busy container: the pending one looks again.
        if not container.idle_timer:
            container.idle_timer = True
            set_timer(state, now + function.need.scaledown_window, "idle", container.container_id)


def set_timer(state: State, when: float, kind: str, name: str) -> None:
    """Ask for a step at ``when``."""
    heapq.heappush(state.timers, (when, state.next_order(), kind, name))
