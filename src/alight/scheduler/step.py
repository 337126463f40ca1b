"""The one function that changes the state: facts in, decisions out.

Time is an argument. Call it with no events when ``next_wake`` has come.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from alight.scheduler import dispatch, events, retry, scale
from alight.scheduler.decisions import Adopted, Again, Cancel, Decision, Fail, Finish, Give, Stop
from alight.scheduler.state import Container, Function, Input, Node, State
from alight.wire.errors import InternalFailure, RemoteError, to_wire
from alight.wire.states import ResultStatus

_START_BACKOFF = 60.0


def step(state: State, happened: Iterable[events.Event], now: float) -> list[Decision]:
    """Take in what happened and say what to do. Decisions are in the order in which they must be carried out."""
    decisions: list[Decision] = []
    for event in happened:
        _HANDLERS[type(event)](state, event, now, decisions)
    _fire_timers(state, now, decisions)
    scale.feed(state, now, decisions)
    return decisions


def next_wake(state: State) -> float | None:
    """When to call ``step`` again if nothing happens before."""
    return state.timers[0][0] if state.timers else None


# machines


def _on_node_joined(state: State, event: events.NodeJoined, now: float, decisions: list[Decision]) -> None:
    node = state.nodes.get(event.node_id)
    held = {one.container_id: one for one in event.held}
    if node is not None:
        for container_id in list(node.containers):
            if container_id not in held:
                _lose_container(state, container_id, now, decisions, _lost(node.hostname))
        node.connected = True
        _resize(node, event)
    else:
        node = Node(event.node_id, event.hostname, event.cpus, event.memory)
        node.memory_free = event.memory
        _resize(node, event)
        state.nodes[event.node_id] = node
    for one in event.held:
        _adopt(state, node, one, now, decisions)
    scale.everyone_is_hungry(state)


def _resize(node: Node, event: events.NodeJoined) -> None:
    node.hostname, node.cpus = event.hostname, event.cpus
    node.memory_free += event.memory - node.memory
    node.memory = event.memory
    taken = {gpu.uuid for gpu in node.gpus} - set(node.gpus_free)
    node.gpus = event.gpus
    node.gpus_free = {gpu.uuid: gpu for gpu in event.gpus if gpu.uuid not in taken}


def _adopt(state: State, node: Node, held: events.Held, now: float, decisions: list[Decision]) -> None:
    """Take up a container that a node holds, as it is; one that nobody needs any more is stopped."""
    container = state.containers.get(held.container_id)
    function = state.functions.get(held.function_id)
    known = container is not None
    if container is None:
        if function is None:
            decisions.append(Stop(held.container_id, node.node_id, "its app has ended", 10.0))
            return
        fresh = Container(
            held.container_id,
            function.function_id,
            node.node_id,
            held.memory,
            function.need.cpu,
            held.gpus,
            function.version,
        )
        container = scale.add_container(state, function, fresh)
    if held.ready and not container.ready:
        _mark_ready(state, container, now)
    _say_again(state, container, held, decisions)
    for input_id in held.inputs:
        entry = state.inputs.get(input_id)
        if entry is not None and entry.container not in {"", held.container_id}:
            decisions.append(Cancel(input_id, held.container_id, node.node_id))  # it runs elsewhere by now
            container.inputs[input_id] = 0
        elif function is not None and not (known and entry is None):  # known and gone: it was cancelled
            if entry is None:
                entry = Input(input_id, function.function_id, state.next_order(), arrived=now)
                state.inputs[input_id] = entry
            elif not entry.container:
                dispatch.take_from_queue(function, entry)
            entry.container = held.container_id
            container.inputs[input_id] = entry.attempt
            decisions.append(Adopted(input_id, held.container_id))
    dispatch.refresh_free(state, container, now)


def _say_again(state: State, container: Container, held: events.Held, decisions: list[Decision]) -> None:
    """What was said to a container while its machine was away may be lost: say it again, the machine knows both."""
    if container.stopping:
        decisions.append(Stop(container.container_id, container.node_id, "it was to stop", 10.0))
        return
    for input_id, attempt in list(container.inputs.items()):
        entry = state.inputs.get(input_id)
        wanted = entry is not None and entry.container == container.container_id and entry.attempt == attempt
        if wanted and input_id not in held.inputs:
            # Lost on the way there, or its answer is on the way here: a node takes an attempt once only.
            decisions.append(Give(input_id, attempt, held.container_id))
        elif not wanted and input_id in held.inputs:
            decisions.append(Cancel(input_id, held.container_id, container.node_id))
        elif not wanted:
            del container.inputs[input_id]


def _on_node_away(state: State, event: events.NodeAway, now: float, decisions: list[Decision]) -> None:
    node = state.nodes.get(event.node_id)
    if node is not None:
        node.connected = False
        for container_id in node.containers:
            dispatch.refresh_free(state, state.containers[container_id], now)


def _on_node_gone(state: State, event: events.NodeGone, now: float, decisions: list[Decision]) -> None:
    node = state.nodes.get(event.node_id)
    if node is None or node.connected:
        return
    for container_id in list(node.containers):
        _lose_container(state, container_id, now, decisions, _lost(node.hostname))
    del state.nodes[event.node_id]


# functions and apps


def _on_function(state: State, event: events.FunctionPublished, now: float, decisions: list[Decision]) -> None:
    function = state.functions.get(event.function_id)
    if function is None:
        function = Function(event.function_id, event.app_id, event.name, event.need)
        state.functions[event.function_id] = function
        return
    function.need, function.name = event.need, event.name
    function.version += 1
    function.start_failures, function.start_after = 0, 0.0
    for container_id in list(function.containers):
        container = state.containers[container_id]
        dispatch.refresh_free(state, container, now)
        if not container.inputs:
            scale.stop(state, container, "the function was published anew", decisions)
    if function.waiting:
        state.hungry[function.function_id] = None


def _on_app_ended(state: State, event: events.AppEnded, now: float, decisions: list[Decision]) -> None:
    for function in [function for function in state.functions.values() if function.app_id == event.app_id]:
        for container_id in list(function.containers):
            container = state.containers[container_id]
            scale.stop(state, container, "the app was stopped", decisions, event.grace if container.inputs else 30.0)
        for entry in [entry for entry in state.inputs.values() if entry.function_id == function.function_id]:
            del state.inputs[entry.input_id]
        del state.functions[function.function_id]
        state.hungry.pop(function.function_id, None)


# inputs


def _on_input(state: State, event: events.InputArrived, now: float, decisions: list[Decision]) -> None:
    function = state.functions.get(event.function_id)
    if event.input_id in state.inputs:
        return
    if function is None:
        error = RemoteError("its app was stopped before this call could run")
        decisions.append(Fail(event.input_id, ResultStatus.CANCELLED, to_wire(error)))
        return
    entry = Input(
        event.input_id,
        event.function_id,
        state.next_order(),
        event.attempt,
        event.retries,
        event.failures,
        event.parent,
        arrived=now,
    )
    state.inputs[event.input_id] = entry
    function.awake = True
    dispatch.enqueue(state, function, entry, event.not_before, now)


def _on_cancelled(state: State, event: events.InputCancelled, now: float, decisions: list[Decision]) -> None:
    entry = state.inputs.pop(event.input_id, None)
    if entry is None:
        return
    function = state.functions.get(entry.function_id)
    container = state.containers.get(entry.container)
    if container is None:
        if function is not None:
            dispatch.take_from_queue(function, entry)
        return
    # Its slot is free when the container has answered; the answer itself is dropped.
    if event.kill:
        scale.stop(state, container, "its call was cancelled", decisions, 0.0)
    else:
        decisions.append(Cancel(entry.input_id, container.container_id, container.node_id))


def _on_attempt_ended(state: State, event: events.AttemptEnded, now: float, decisions: list[Decision]) -> None:
    container = state.containers.get(event.container_id)
    if container is not None and container.inputs.pop(event.input_id, None) is not None:
        if event.status == ResultStatus.TIMEOUT:
            scale.stop(state, container, "its input ran too long", decisions, 0.0)
        function = state.functions.get(container.function_id)
        if function is not None and function.need.single_use:
            scale.stop(state, container, "it serves one input only", decisions)
        dispatch.refresh_free(state, container, now)
    entry = state.inputs.get(event.input_id)
    if entry is None or entry.attempt != event.attempt:
        return
    if entry.container not in {event.container_id, ""}:
        return
    if entry.container == "" and entry.input_id in _queue_of(state, entry):
        # The answer came before the machine said that it holds this input: no need to run it again.
        dispatch.take_from_queue(state.functions[entry.function_id], entry)
    if retry.is_ours(event.status):
        _try_elsewhere(state, entry, now, decisions, ResultStatus.INTERNAL, None)
        return
    _users_failure_or_end(state, entry, event.status, now, decisions)


def _queue_of(state: State, entry: Input) -> Iterable[str]:
    function = state.functions.get(entry.function_id)
    return function.waiting if function is not None else ()


def _users_failure_or_end(
    state: State, entry: Input, status: str, now: float, decisions: list[Decision], *, users_fault: bool = False
) -> bool:
    """Retry by the user's policy, else end with the answer. Returns whether it is tried again."""
    function = state.functions.get(entry.function_id)
    policy = function.need.retries if function is not None else None
    delay = retry.users_retry(status, entry, policy, users_fault=users_fault) if policy is not None else None
    if delay is None or function is None:
        del state.inputs[entry.input_id]
        if not users_fault:
            decisions.append(Finish(entry.input_id, entry.attempt))
        return False
    entry.retries += 1
    _again(state, entry, now, decisions, delay=delay)
    return True


def _try_elsewhere(
    state: State, entry: Input, now: float, decisions: list[Decision], status: str, error: dict[str, Any] | None
) -> None:
    """After a fault of ours: three containers, then it is an error."""
    function = state.functions.get(entry.function_id)
    if function is None:
        state.inputs.pop(entry.input_id, None)
        return
    if retry.our_retry(entry):
        entry.failures += 1
        _again(
            state, entry, now, decisions, delay=None, why=str((error or {}).get("message") or "its container was lost")
        )
        return
    del state.inputs[entry.input_id]
    final = dict(error or to_wire(InternalFailure("its container was lost")))
    final["message"] = f"{final.get('message', '')} (tried in {entry.failures + 1} containers)"
    decisions.append(Fail(entry.input_id, status, final))


def _again(
    state: State, entry: Input, now: float, decisions: list[Decision], *, delay: float | None, why: str = ""
) -> None:
    """Queue the next attempt: at the back after the user's ``delay``, at the front when the fault was ours (None)."""
    entry.attempt += 1
    entry.container = ""
    at = now + (delay or 0.0)
    decisions.append(Again(entry.input_id, entry.attempt, entry.retries, entry.failures, at, why))
    dispatch.enqueue(state, state.functions[entry.function_id], entry, at, now, first=delay is None)


# containers


def _on_ready(state: State, event: events.ContainerReady, now: float, decisions: list[Decision]) -> None:
    container = state.containers.get(event.container_id)
    if container is not None and not container.ready:
        _mark_ready(state, container, now)


def _mark_ready(state: State, container: Container, now: float) -> None:
    container.ready = True
    function = state.functions.get(container.function_id)
    if function is not None:
        function.starting -= 1
        function.start_failures = 0
    state.nodes[container.node_id].starting -= 1
    dispatch.refresh_free(state, container, now)
    if container.node_id in state.nodes:
        scale.everyone_is_hungry(state)  # one more may start now


def _on_ended(state: State, event: events.ContainerEnded, now: float, decisions: list[Decision]) -> None:
    container = state.containers.get(event.container_id)
    if container is None:
        return
    inputs = list(container.inputs.items())
    scale.remove_container(state, container)
    for input_id, attempt in reversed(inputs):
        entry = state.inputs.get(input_id)
        if entry is None or entry.attempt != attempt:
            continue
        entry.container = ""
        if event.users_fault:
            if not _users_failure_or_end(state, entry, event.status, now, decisions, users_fault=True):
                decisions.append(
                    Fail(input_id, event.status, event.error or to_wire(RemoteError("its container ended")))
                )
        else:
            _try_elsewhere(state, entry, now, decisions, event.status, event.error)


def _on_start_failed(state: State, event: events.StartFailed, now: float, decisions: list[Decision]) -> None:
    container = state.containers.get(event.container_id)
    if container is None:
        return
    function = state.functions.get(container.function_id)
    scale.remove_container(state, container)
    if function is None:
        return
    if container.version != function.version or container.stopping:
        return
    function.start_failures += 1
    others = any(state.containers[one].ready for one in function.containers)
    if (event.final and not others) or function.start_failures >= 3:
        error = event.error or to_wire(InternalFailure(f"no container of {function.name}() could be started"))
        for entry in [state.inputs[input_id] for input_id in function.waiting]:
            dispatch.take_from_queue(function, entry)
            del state.inputs[entry.input_id]
            decisions.append(Fail(entry.input_id, event.status, error))
        function.start_failures = 0
        return
    function.start_after = now + min(_START_BACKOFF, 0.1 * 4**function.start_failures)
    dispatch.set_timer(state, function.start_after, "feed", function.function_id)


def _on_cpu_lent(state: State, event: events.CpuLent, now: float, decisions: list[Decision]) -> None:
    container = state.containers.get(event.container_id)
    if container is None or container.cpu_lent == event.on:
        return
    container.cpu_lent = event.on
    node = state.nodes[container.node_id]
    node.cpu_used += -container.cpu if event.on else container.cpu


def _lose_container(
    state: State, container_id: str, now: float, decisions: list[Decision], error: dict[str, Any]
) -> None:
    container = state.containers[container_id]
    if not container.ready:
        failed = events.StartFailed(container_id, ResultStatus.INTERNAL, error, final=False)
        _on_start_failed(state, failed, now, decisions)
        return
    _on_ended(state, events.ContainerEnded(container_id, ResultStatus.TERMINATED, error), now, decisions)


def _lost(hostname: str) -> dict[str, Any]:
    return to_wire(RemoteError(f"its container on {hostname} was lost"))


# timers


def _fire_timers(state: State, now: float, decisions: list[Decision]) -> None:
    while state.timers and state.timers[0][0] <= now:
        _, _, kind, name = heapq.heappop(state.timers)
        if kind == "input":
            entry = state.inputs.get(name)
            function = state.functions.get(entry.function_id) if entry is not None else None
            if entry is not None and function is not None and entry.delayed:
                entry.delayed = False
                dispatch.enqueue(state, function, entry, 0.0, now)
        elif kind == "idle":
            container = state.containers.get(name)
            if container is not None:
                scale.stop_if_idle(state, container, now, decisions)
        elif name in state.functions:
            state.hungry[name] = None


_HANDLERS: dict[type, Any] = {
    events.NodeJoined: _on_node_joined,
    events.NodeAway: _on_node_away,
    events.NodeGone: _on_node_gone,
    events.FunctionPublished: _on_function,
    events.AppEnded: _on_app_ended,
    events.InputArrived: _on_input,
    events.InputCancelled: _on_cancelled,
    events.AttemptEnded: _on_attempt_ended,
    events.ContainerReady: _on_ready,
    events.ContainerEnded: _on_ended,
    events.StartFailed: _on_start_failed,
    events.CpuLent: _on_cpu_lent,
}
