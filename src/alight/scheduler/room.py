"""Room for a function that finds none: idle containers end, and who has more than others gives one up.

What was asked for is claimed until room appears, so that many who wait do not each ask for the same.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from alight.scheduler import gpu_room, members, place
from alight.scheduler.decisions import Decision
from alight.scheduler.ending import begin_drain, stop
from alight.scheduler.state import Container, Function, Node, State
from alight.wire.gpus import grant

#: Machines looked at for one plan. Where there are more, any of them serves as well.
_LOOKED_AT = 50
_PLANS = 16  # at most so many in a step, for steps must be short


@dataclass(frozen=True, slots=True)
class Plan:
    """What to end on one machine so that a container fits there, and the GPUs that it would get."""

    node: Node
    idle: tuple[Container, ...]
    busy: tuple[Container, ...]
    gpus: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """What a step has tried: needs for which nothing could be ended, and how many plans ended something."""

    in_vain: set[tuple[int, tuple[str, ...], int]] = field(default_factory=set)
    ends: int = 0


def make(state: State, function: Function, tally: Tally, now: float, decisions: list[Decision]) -> None:
    """End or drain what must go so that one container of this function can start, and claim the room.

    Called for whoever has least first: where one found nothing to end, a later one like it need not look.
    """
    like = function.need.memory, function.need.gpus, function.need.count
    if like in tally.in_vain or tally.ends >= _PLANS:
        return
    plan = find(state, function, _counts(state))
    if plan is None:
        tally.in_vain.add(like)
        return
    state.claimed[plan.node.node_id] = state.claimed.get(plan.node.node_id, 0) + function.need.memory_in_all
    state.claimed_gpus.update(grant(one).uuid for one in plan.gpus)
    why = f"making room for {function.name}()"
    for container in plan.idle:
        stop(state, container, why, decisions)
    for container in plan.busy:
        begin_drain(state, container, why, now, decisions)
    tally.ends += bool(plan.idle or plan.busy)


def count(function: Function) -> int:
    """How many containers a function has that neither end nor wait for other calls.

    Who has least by this gets what comes free first. Were that counted otherwise than what is taken from whom, one
    whose container is ended for another could get its place again, and lose it again, without end.
    """
    if function.leaving and function.blocked:
        return len(function.containers) - len(function.leaving | function.blocked)
    return len(function.containers) - len(function.leaving) - len(function.blocked)


def find(state: State, function: Function, counts: dict[str, int]) -> Plan | None:
    """The plan that ends the fewest busy containers, then the fewest idle ones."""
    best: Plan | None = None
    rich = [name for name, many in counts.items() if many >= _rich_from(count(function))]
    for node in _candidates(state, rich):
        if not node.connected or node.memory < function.need.memory_in_all:
            continue
        plan = _plan(state, function, node, counts if rich else {})
        if plan is not None and (best is None or _cost(plan) < _cost(best)):
            best = plan
            if not plan.busy and not plan.idle:
                break
    return best


def _candidates(state: State, rich: list[str]) -> list[Node]:
    """Machines where room is coming, or could be made; those where it costs least first."""
    nodes: dict[str, None] = dict.fromkeys(state.orphaned.values())  # containers of apps that have ended stop
    functions = state.functions.values()
    names = itertools.chain(
        itertools.chain.from_iterable(one.leaving for one in functions if one.leaving),
        itertools.chain.from_iterable(one.idle for one in functions if one.idle),
        itertools.chain.from_iterable(state.functions[one].containers for one in rich),
    )
    for name in itertools.islice(names, 4 * _LOOKED_AT):
        nodes[state.containers[name].node_id] = None
    return [state.nodes[one] for one in list(nodes)[:_LOOKED_AT]]


def _cost(plan: Plan) -> tuple[int, int]:
    return len(plan.busy), len(plan.idle)


def _counts(state: State) -> dict[str, int]:
    """``count`` of each function that has more than one."""
    return {one.function_id: count(one) for one in state.functions.values() if len(one.containers) > 1}


def _rich_from(mine: int) -> int:
    """So many containers are more than a fair part beside ``mine``: twice as many, and one to spare.

    A closer share would have functions of nearly the same size end each other's containers without end.
    """
    return 2 * mine + 2


def _plan(state: State, function: Function, node: Node, counts: dict[str, int]) -> Plan | None:
    need, choices = function.need, place.requests(state, function.need)
    wanted = need.memory_in_all
    has_one = len(function.containers) > len(function.blocked)
    memory = node.memory_free - state.claimed.get(node.node_id, 0) - (place.kept_back(node) if has_one else 0)
    present = {gpu.uuid: gpu for gpu in node.gpus if not gpu.fault and gpu.uuid not in state.claimed_gpus}
    left_over = gpu_room.without(node, state.claimed_gpus) if choices else gpu_room.Room()
    idle: list[Container] = []
    busy: list[Container] = []
    for name in node.containers:
        container = state.containers[name]
        owner = state.functions.get(container.function_id)
        leader = members.leader(state, container) or container
        if container.stopping or leader.draining:
            memory += container.memory
            left_over.give_back(container.gpus, present)
        elif container.rank:
            continue  # it goes with its leader
        elif _is_idle(state, container):
            if owner is None or _may_lose(owner):
                idle.append(container)
        elif counts and not container.blocked and counts.get(container.function_id, 0) > 1 and owner is not function:
            busy.append(container)
    idle.sort(key=lambda container: container.idle_since)
    # Who has most gives first, and of its containers the one that is least busy or was given its input first.
    busy.sort(key=lambda one: (-counts[one.function_id], one.ready, one.open, one.moved))
    left, losses = dict(counts), dict.fromkeys((one.function_id for one in idle), 0)
    ended: list[Container] = []
    drained: list[Container] = []
    while memory < wanted or place.pick_all(choices, left_over, need) is None:
        one = _next(state, function, idle, busy, (left, losses))
        if one is None:
            return None
        freed = members.gpus(state, one)
        if memory >= wanted and not freed:
            continue  # only its memory would come free, and that is not what lacks
        (ended if _is_idle(state, one) else drained).append(one)
        memory += members.memory(state, one)
        left_over.give_back(freed, present)
    chosen = place.pick_all(choices, left_over, need) or ()
    return Plan(node, tuple(ended), tuple(drained), tuple(uuid for each in chosen for uuid in each))


def _is_idle(state: State, container: Container) -> bool:
    if not container.gang:
        return container.ready and not container.open
    return members.is_up(state, container) and members.hold_nothing(state, container)


def _next(
    state: State,
    function: Function,
    idle: list[Container],
    busy: list[Container],
    tally: tuple[dict[str, int], dict[str, int]],
) -> Container | None:
    left, losses = tally
    while idle:
        container = idle.pop(0)
        owner = state.functions.get(container.function_id)
        if owner is None:
            return container
        if len(owner.containers) - len(owner.leaving) - losses[owner.function_id] > owner.need.min_containers:
            losses[owner.function_id] += 1
            left[owner.function_id] = left.get(owner.function_id, 0) - 1
            return container
    while busy:
        container = busy.pop(0)
        owner = state.functions[container.function_id]
        if left[owner.function_id] >= max(_rich_from(count(function)), owner.need.min_containers + 1):
            left[owner.function_id] -= 1
            return container
    return None


def _may_lose(owner: Function) -> bool:
    return len(owner.containers) - len(owner.leaving) > owner.need.min_containers
