"""Containers to machines: start what waiting inputs need, stop what nobody uses."""

from __future__ import annotations

import heapq
import math
from typing import Any

from alight.scheduler import dispatch, gangs, gpu_room, line, members, place, room, stuck
from alight.scheduler.decisions import Decision, Fail, Start
from alight.scheduler.ending import stop
from alight.scheduler.state import Container, Function, State, Tried
from alight.wire.errors import Error, to_wire
from alight.wire.states import ResultStatus

DRAIN_WITHIN = 1.0  # seconds in which a queue should be empty: a start is worth less than so much work


def feed(state: State, now: float, decisions: list[Decision]) -> None:
    """Serve the hungry functions: free containers first, then new ones for what waits, then those to keep ready."""
    looked: dict[str, None] = {}
    _serve_hungry(state, now, decisions, looked)
    if state.idled:
        state.idled = False
        if state.starved:
            room_appeared(state)
            _serve_hungry(state, now, decisions, looked)
    if not looked:
        return
    functions = [state.functions[one] for one in looked]
    waits = _start_in_turn(state, functions, now, decisions, for_queue=True)
    for function in waits:
        stuck.fail_if_stuck(state, function, now, decisions)
    if any(one.need.min_containers or one.need.buffer_containers or one.trial is not None for one in functions):
        for function in _start_in_turn(state, functions, now, decisions, for_queue=False):
            state.starved[function.function_id] = None
    state.hungry.clear()


def _serve_hungry(state: State, now: float, decisions: list[Decision], looked: dict[str, None]) -> None:
    while state.hungry:
        function_id = next(iter(state.hungry))
        function = state.functions[function_id]
        if function.retired is not None and function.waiting:
            fail_waiting(state, function, ResultStatus.CANCELLED, function.retired, decisions)
        dispatch.give_inputs(state, function, now, decisions)
        _settle(state, function, now, decisions)
        del state.hungry[function_id]
        state.starved.pop(function_id, None)
        looked[function_id] = None


def _start_in_turn(
    state: State, functions: list[Function], now: float, decisions: list[Decision], *, for_queue: bool
) -> list[Function]:
    """Start one container each in turn until none can start; who wants more and found no room.

    Whoever has least starts first, then whoever has waited longest: a long queue does not starve a short one.
    """
    wants = _for_queue if for_queue else _to_keep
    waits: list[Function] = []
    tally = room.Tally()
    order = []
    for function in functions:
        more = wants(state, function, now)
        if more > 0:
            order.append((room.count(function), line.oldest(state, function), function.function_id, more))
    heapq.heapify(order)
    while order:
        count, oldest, function_id, more = order[0]
        function = state.functions[function_id]
        if not _start_one(state, function, now, decisions, for_queue=for_queue):
            heapq.heappop(order)
            if wants(state, function, now) <= 0:
                continue
            waits.append(function)
            if for_queue and function.start_after <= now and not _cannot_more(function):
                # Now, so that those with more do not take what is to become room for this one.
                state.starved[function_id] = None
                room.make(state, function, tally, now, decisions)
        elif more > 1:
            heapq.heapreplace(order, (count + 1, oldest, function_id, more - 1))
        else:
            heapq.heappop(order)
    return waits


def room_appeared(state: State) -> None:
    """Let every function that found no room look again; who waits longest with least comes first."""
    state.hungry.update(state.starved)
    state.starved.clear()
    for node_id in state.claimed:
        if node_id in state.nodes:
            place.room_on(state, state.nodes[node_id])
    state.claimed.clear()
    state.claimed_gpus.clear()


def add_container(state: State, function: Function | None, container: Container) -> Container:
    """Enter a container that starts, and take what it holds from its machine. Without a function it is to end."""
    name = container.container_id
    node = state.nodes[container.node_id]
    state.containers[name] = container
    node.containers[name] = None
    node.memory_free -= container.memory
    node.cpu_used += container.cpu
    node.starting += 1
    gpu_room.take(node, container.gpus)
    if function is not None and not container.rank:  # the others of a gang come and go with it
        function.containers[name] = None
        function.starting.add(name)
    return container


def remove_container(state: State, container: Container) -> None:
    """Forget a container that is gone, and give back what it held."""
    name = container.container_id
    del state.containers[name]
    state.orphaned.pop(name, None)
    node = state.nodes[container.node_id]
    del node.containers[name]
    node.memory_free += container.memory
    if not container.blocked:
        node.cpu_used -= container.cpu
    gpu_room.give_back(node, container.gpus)
    function = state.functions.get(container.function_id)
    if function is not None:
        function.containers.pop(name, None)
        for group in (function.idle, function.partly):
            group.pop(name, None)
        for names in (function.starting, function.serving, function.leaving, function.blocked):
            names.discard(name)
        state.hungry[function.function_id] = None
    members.leave(state, container)
    if not container.ready:
        node.starting -= 1
    place.room_on(state, node)
    room_appeared(state)


def stop_if_idle(state: State, container: Container, now: float, decisions: list[Decision]) -> None:
    """The end of an idle spell: stop, or look again when it has worked meanwhile."""
    container.idle_timer = False
    function = state.functions.get(container.function_id)
    if function is None or container.open or container.stopping or not container.ready:
        return
    if container.gang and not members.hold_nothing(state, container):
        return
    window = function.need.scaledown_window
    until = container.idle_since + window
    alive = len(function.containers) - len(function.leaving)
    if until > now + 1e-9:
        container.idle_timer = True
        line.set_timer(state, until, "idle", container.container_id)
    elif not container.draining and (
        alive <= function.need.min_containers or (_active(state, function) and _spare(function) <= 0)
    ):
        container.idle_timer = True
        line.set_timer(state, now + window, "idle", container.container_id)
    else:
        stop(state, container, "nothing to do", decisions)
        state.hungry[function.function_id] = None


def _for_queue(state: State, function: Function, now: float) -> int:
    """How many more containers would serve what waits, so that it has begun in about ``DRAIN_WITHIN``."""
    waiting = function.waiting
    if not waiting or function.app_id in state.budgets:
        return 0
    need, pace, serving = function.need, function.pace, len(function.serving)
    each = max(1, min(need.target_concurrent or function.slots, function.slots))
    more = -(-waiting // each)
    # Those that serve concurrent inputs may hold more than scaling aims at: a new container brings them back to it.
    if pace is not None and not need.single_use and (function.slots == 1 or need.batch_size):
        in_all = math.ceil(waiting * pace / function.slots / DRAIN_WITHIN)
        more = max(0 if serving else 1, min(more, in_all - serving))
        if more <= len(function.starting) and serving:
            # Enough by what inputs usually take. Look again, for one may take longer.
            dispatch.look_later(state, function, now)
    return more - len(function.starting)


def _to_keep(state: State, function: Function, now: float) -> int:
    """How many more containers are to be there for what may come: a buffer while it is active, and its minimum."""
    need, more = function.need, 0
    if function.app_id in state.budgets:
        return 0
    if need.buffer_containers and _active(state, function):
        # Those that start for what waits will not be idle.
        unasked = max(0, len(function.starting) - -(-function.waiting // function.slots))
        more = need.buffer_containers - len(function.idle) - unasked
    if function.awake and need.min_containers:
        more = max(more, need.min_containers - (len(function.containers) - len(function.leaving)))
    if function.trial is not None and not has_new(state, function):
        more = max(more, 1)
    return more


def has_new(state: State, function: Function) -> bool:
    """Whether a container of its newest version is there, or on its way."""
    return any(state.containers[name].version == function.version for name in function.containers)


def _settle(state: State, function: Function, now: float, decisions: list[Decision]) -> None:
    """After inputs were given: take back from containers with too much, and let a kept-empty one go."""
    if function.quarantine and not function.suspects:
        kept, function.quarantine = function.quarantine, ""
        if kept in state.containers:
            dispatch.refresh(state, state.containers[kept], now)
            dispatch.give_inputs(state, function, now, decisions)
    if function.slots != 1:
        return
    if function.idle and not function.waiting and len(function.serving) > len(function.idle):
        dispatch.take_back(state, function, now, decisions)
    for name in function.partly:
        if state.containers[name].open > 1:
            dispatch.look_later(state, function, now)
            break


def _active(state: State, function: Function) -> bool:
    others = len(function.idle) + len(function.starting) + len(function.leaving)
    return function.waiting > 0 or len(function.containers) > others


def _spare(function: Function) -> int:
    """Idle containers beyond those that are to be kept ready."""
    return len(function.idle) - function.need.buffer_containers


def _cannot_more(function: Function) -> bool:
    """Whether the function has as many containers as it may. Those whose inputs wait for other calls do not count."""
    most = function.need.max_containers
    return most is not None and len(function.containers) - len(function.blocked) >= most


def _start_one(state: State, function: Function, now: float, decisions: list[Decision], *, for_queue: bool) -> bool:
    need = function.need
    most, blocked = need.max_containers, len(function.blocked)
    if most is not None and function.trial is not None and not has_new(state, function):
        # Beside the old ones, which serve until it is there. Those that end are no reason to be above.
        old = [state.containers[name] for name in function.containers]
        most = max(most, sum(not (one.stopping or one.blocked) for one in old)) + 1
    if (
        function.halted
        or function.start_after > now
        or (most is not None and len(function.containers) - blocked >= most)
    ):
        return False
    # Children of its own waiting inputs may have all there is: without them, nothing moves.
    has_one = len(function.containers) > blocked
    found: place.Place | gangs.Places | None
    if need.cluster:
        found = gangs.find_places(state, need, all_of_it=not has_one)
    else:
        found = place.find_place(state, need, all_of_it=not has_one)
    if found is not None and not for_queue and found.node_id in state.claimed:
        return False  # that room is made for inputs that wait
    if found is None:
        _fail_if_impossible(state, function, decisions)
        return False
    if isinstance(found, gangs.Places):
        _start_all(state, function, found, now, decisions)
        return True
    container = Container(
        state.make_id(),
        function.function_id,
        found.node_id,
        need.memory,
        need.cpu,
        found.gpus,
        function.version,
        now,
    )
    add_container(state, function, container)
    decisions.append(Start(container.container_id, function.function_id, found.node_id, found.gpus, need.memory))
    return True


def _start_all(state: State, function: Function, found: gangs.Places, now: float, decisions: list[Decision]) -> None:
    need, node_id = function.need, found.node_id
    names = tuple(state.make_id() for _ in found.gpus)
    gang = f"cu-{names[0].rpartition('-')[2]}"
    for rank, (name, gpus) in enumerate(zip(names, found.gpus, strict=True)):
        one = Container(name, function.function_id, node_id, need.memory, need.cpu, gpus, function.version, now)
        one.gang, one.rank = gang, rank
        add_container(state, function, one)
        members.enter(state, one, need.count)
        decisions.append(Start(name, function.function_id, node_id, gpus, need.memory, gang, rank, names))


def _fail_if_impossible(state: State, function: Function, decisions: list[Decision]) -> None:
    """Inputs that no machine here can ever run end at once, with the way out."""
    kind = function.need.memory, function.need.gpus, function.need.count
    if not function.waiting or kind in state.possible:
        return
    try:
        place.check_possible(state, function.name, function.need)
        state.possible.add(kind)
    except Error as error:
        fail_waiting(state, function, ResultStatus.IMPOSSIBLE, to_wire(error), decisions)


def fail_waiting(
    state: State, function: Function, status: str, error: dict[str, Any], decisions: list[Decision]
) -> None:
    """End all inputs that are in a function's line with an error."""
    for call in line.calls_in_line(state, function):
        for positions in line.clear(function, call):
            _forget_counters(call.tried, positions)
            if call.items:
                call.items.difference_update(positions)
            decisions.append(Fail(call.call_id, positions, status, error))
        line.forget_if_done(state, call)


def _forget_counters(tried: dict[int, Tried], positions: range) -> None:
    for position in [one for one in tried if one in positions] if tried else ():
        del tried[position]
