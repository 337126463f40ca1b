"""Containers to machines: start what waiting inputs need, stop what nobody uses."""

from __future__ import annotations

from alight.scheduler import dispatch, place
from alight.scheduler.decisions import Decision, Fail, Start, Stop
from alight.scheduler.state import STUCK_SECONDS, Container, Function, State
from alight.wire.errors import Error, ResourceExhaustedError, to_wire
from alight.wire.states import ResultStatus


def feed(state: State, now: float, decisions: list[Decision]) -> None:
    """Serve the hungry functions: free containers first, then one new container each in turn until none can start."""
    for function_id in list(state.hungry):
        function = state.functions[function_id]
        dispatch.give_inputs(state, function, decisions)
        if not _wants(state, function):
            state.hungry.pop(function_id, None)
    if not state.hungry:
        return
    # Whoever has least starts first, then whoever has waited longest: a long queue does not starve a short one.
    order = sorted(state.hungry, key=lambda function_id: _turn(state, state.functions[function_id]))
    progress = True
    while progress and order:
        progress = False
        for function_id in list(order):
            function = state.functions[function_id]
            if not _wants(state, function):
                order.remove(function_id)
                state.hungry.pop(function_id, None)
            elif _start_one(state, function, now, decisions):
                progress = True
            else:
                order.remove(function_id)
    for function_id in list(state.hungry):
        _fail_if_stuck(state, state.functions[function_id], now, decisions)


def everyone_is_hungry(state: State) -> None:
    """Room has appeared: let every function with a queue look at it."""
    for function in state.functions.values():
        if function.waiting or function.need.min_containers:
            state.hungry[function.function_id] = None


def add_container(state: State, function: Function, container: Container) -> Container:
    """Enter a container that starts, and take what it holds from its machine."""
    node = state.nodes[container.node_id]
    state.containers[container.container_id] = container
    node.containers[container.container_id] = None
    node.memory_free -= container.memory
    node.cpu_used += container.cpu
    node.starting += 1
    for uuid in container.gpus:
        node.gpus_free.pop(uuid, None)
    function.containers[container.container_id] = None
    function.starting += 1
    return container


def remove_container(state: State, container: Container) -> None:
    """Forget a container that is gone, and give back what it held."""
    del state.containers[container.container_id]
    node = state.nodes[container.node_id]
    del node.containers[container.container_id]
    node.memory_free += container.memory
    if not container.cpu_lent:
        node.cpu_used -= container.cpu
    held = {gpu.uuid: gpu for gpu in node.gpus}
    node.gpus_free.update({uuid: held[uuid] for uuid in container.gpus if uuid in held})
    function = state.functions.get(container.function_id)
    if function is not None:
        function.containers.pop(container.container_id, None)
        function.free.pop(container.container_id, None)
        if not container.ready:
            function.starting -= 1
    if not container.ready:
        node.starting -= 1
    everyone_is_hungry(state)


def stop(state: State, container: Container, why: str, decisions: list[Decision], grace: float = 30.0) -> None:
    """Ask for the end of a container; it holds its place until it is gone."""
    if container.stopping:
        return
    container.stopping = True
    function = state.functions.get(container.function_id)
    if function is not None:
        function.free.pop(container.container_id, None)
    decisions.append(Stop(container.container_id, container.node_id, why, grace))


def stop_if_idle(state: State, container: Container, now: float, decisions: list[Decision]) -> None:
    """The end of an idle spell: stop, or look again when it has worked meanwhile."""
    container.idle_timer = False
    function = state.functions.get(container.function_id)
    if function is None or container.inputs or container.stopping:
        return
    until = container.idle_since + function.need.scaledown_window
    if until > now:
        container.idle_timer = True
        dispatch.set_timer(state, until, "idle", container.container_id)
    elif len(_alive(state, function)) <= function.need.min_containers:
        container.idle_timer = True
        dispatch.set_timer(state, now + function.need.scaledown_window, "idle", container.container_id)
    else:
        stop(state, container, "nothing to do", decisions)


def _wants(state: State, function: Function) -> int:
    """How many more containers this function has reason for."""
    need = function.need
    slots = max(1, need.max_concurrent)
    queue = -(-len(function.waiting) // slots) if function.waiting else 0
    wanted = queue - _starting(state, function)
    alive = len(_alive(state, function))
    if function.awake and alive + max(0, wanted) < need.min_containers:
        wanted = need.min_containers - alive
    if function.waiting and need.buffer_containers:
        wanted = max(wanted, queue + need.buffer_containers - _starting(state, function))
    return max(0, wanted)


def _alive(state: State, function: Function) -> list[str]:
    return [one for one in function.containers if not state.containers[one].stopping]


def _starting(state: State, function: Function) -> int:
    if not function.starting:
        return 0
    return sum(
        not container.ready and not container.stopping and container.version == function.version
        for container in (state.containers[one] for one in function.containers)
    )


def _turn(state: State, function: Function) -> tuple[int, int]:
    return len(function.containers), state.inputs[function.waiting[0]].order if function.waiting else state.count


def _start_one(state: State, function: Function, now: float, decisions: list[Decision]) -> bool:
    need = function.need
    if function.start_after > now:
        return False
    if need.max_containers is not None and len(function.containers) >= need.max_containers:
        return False
    found = place.find_place(state, need)
    if found is None and _fail_if_impossible(state, function, decisions):
        return False
    if found is None:
        ends = place.room_to_make(state, need) if function.waiting else None
        for container_id in ends or ():
            stop(state, state.containers[container_id], f"making room for {function.name}()", decisions)
        return False
    container = Container(
        state.make_id(), function.function_id, found.node_id, need.memory, need.cpu, found.gpus, function.version
    )
    add_container(state, function, container)
    decisions.append(Start(container.container_id, function.function_id, found.node_id, found.gpus, need.memory))
    return True


def _fail_if_impossible(state: State, function: Function, decisions: list[Decision]) -> bool:
    """Inputs that no machine here can ever run end at once, with the way out."""
    try:
        place.check_possible(state, function.name, function.need)
    except Error as error:
        for input_id in list(function.waiting):
            dispatch.take_from_queue(function, state.inputs.pop(input_id))
            decisions.append(Fail(input_id, ResultStatus.IMPOSSIBLE, to_wire(error)))
        state.hungry.pop(function.function_id, None)
        return True
    return False


def _fail_if_stuck(state: State, function: Function, now: float, decisions: list[Decision]) -> None:
    """A child that can only be placed when its own waiting parents end will never be: say so instead of waiting."""
    if not function.waiting or not _is_stuck(state, function, now):
        function.stuck_since = None
        return
    if function.stuck_since is None:
        function.stuck_since = now
    if now - function.stuck_since < STUCK_SECONDS:
        dispatch.set_timer(state, function.stuck_since + STUCK_SECONDS, "feed", function.function_id)
        return
    for input_id in [one for one in function.waiting if _ancestors(state, one)]:
        entry = state.inputs[input_id]
        parents = ", ".join(f"{name}()" for name in _ancestors(state, input_id))
        dispatch.take_from_queue(function, entry)
        del state.inputs[input_id]
        error = ResourceExhaustedError(
            f"{function.name}() can never start: {parents}, which wait for it, hold what it needs "
            f"({place.why_blocked(state, function).removeprefix('waiting for ')})",
            hint="let the caller ask for less, raise max_containers, or call it from a machine with more room",
        )
        decisions.append(Fail(input_id, ResultStatus.IMPOSSIBLE, to_wire(error)))
    function.stuck_since = None


def _is_stuck(state: State, function: Function, now: float) -> bool:
    """Whether no container will ever free anything before this function's children run."""
    if not any(_ancestors(state, input_id) for input_id in function.waiting) or function.start_after > now:
        return False
    if not any(node.connected for node in state.nodes.values()):
        return False
    return all(
        container.ready and not container.stopping and container.cpu_lent and container.inputs
        for container in state.containers.values()
    ) and bool(state.containers)


def _ancestors(state: State, input_id: str) -> list[str]:
    names: list[str] = []
    seen = {input_id}
    parent = state.inputs[input_id].parent
    while parent and parent not in seen and parent in state.inputs:
        seen.add(parent)
        entry = state.inputs[parent]
        function = state.functions.get(entry.function_id)
        if entry.container and function is not None:
            names.append(function.name)
        parent = entry.parent
    return names
