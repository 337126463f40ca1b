"""What happens to machines: they join, perhaps with containers that run, go away, come back or stay gone."""

from __future__ import annotations

from typing import Any

from alight.scheduler import calls, containers, dispatch, ending, events, gpu_room, held, line, members, place, scale
from alight.scheduler.decisions import Adopted, Cancel, Decision, Give, Stop
from alight.scheduler.state import DEFAULT_CPU, Call, Container, Function, Node, Run, State, spans
from alight.wire.errors import RemoteError, to_wire
from alight.wire.states import ResultStatus


def joined(state: State, event: events.NodeJoined, now: float, decisions: list[Decision]) -> None:
    """A machine is there. What it holds goes on, what it lacks is lost, and what it may have missed is said again."""
    node = state.nodes.get(event.node_id)
    there = {one.container_id for one in event.held}
    if node is not None:
        node.connected = True
        for name in [one for one in node.containers if one not in there]:
            _lose(state, name, now, decisions, node.hostname)
        _resize(state, node, event)
    else:
        node = Node(event.node_id, event.hostname, event.cpus, event.memory)
        node.memory_free = event.memory
        _resize(state, node, event)
        state.nodes[event.node_id] = node
    place.machines_changed(state)
    for one in sorted(event.held, key=_in_turn):
        _take_up(state, node, one, now, decisions)
    for gang_id in list(state.gangs):
        _look_at_gang(state, gang_id, node, now, decisions)
    scale.room_appeared(state)


def away(state: State, event: events.NodeAway, now: float, decisions: list[Decision]) -> None:
    """The connection to a machine is lost: nothing more goes there, and what runs there may go on."""
    node = state.nodes.get(event.node_id)
    if node is not None:
        node.connected = False
        for name in node.containers:
            dispatch.refresh(state, state.containers[name], now)


def gone(state: State, event: events.NodeGone, now: float, decisions: list[Decision]) -> None:
    """A machine has been away for too long: its containers are lost."""
    node = state.nodes.get(event.node_id)
    if node is None or node.connected:
        return
    for name in list(node.containers):
        _lose(state, name, now, decisions, node.hostname)
    del state.nodes[event.node_id]
    place.machines_changed(state)


def gpus_changed(state: State, event: events.GpusChanged, now: float, decisions: list[Decision]) -> None:
    """GPUs of a machine went out of service, or are back. Who holds one keeps it: its container says what it meets."""
    node = state.nodes.get(event.node_id)
    if node is None:
        return
    node.gpus = event.gpus
    gpu_room.recount(node, [state.containers[name] for name in node.containers])
    place.machines_changed(state)
    scale.room_appeared(state)


def _resize(state: State, node: Node, event: events.NodeJoined) -> None:
    node.hostname, node.cpus = event.hostname, event.cpus
    node.starts_at_once = max(2, int(2 * event.cpus))
    node.memory_free += event.memory - node.memory
    node.memory = event.memory
    node.gpus = event.gpus
    gpu_room.recount(node, [state.containers[name] for name in node.containers])


def _lose(state: State, name: str, now: float, decisions: list[Decision], hostname: str) -> None:
    """A container is gone with its machine: that says nothing against its inputs, nor against a start."""
    error: dict[str, Any] = to_wire(RemoteError(f"its container on {hostname} was lost"))
    lost = events.ContainerEnded(name, ResultStatus.TERMINATED, error)
    containers.ended(state, lost, now, decisions, with_machine=True)


def _in_turn(one: events.Held) -> tuple[int, int]:
    """Leaders first: what they hold the others may hold. Of those, who has the latest attempt, for that one counts."""
    return one.rank, -max((run.attempt for run in one.runs), default=0)


def _take_up(state: State, node: Node, one: events.Held, now: float, decisions: list[Decision]) -> None:
    """Go on with a container that a machine holds; one that nobody needs any more is stopped."""
    container = state.containers.get(one.container_id)
    if container is not None:
        if one.ready and not container.ready:
            containers.mark_ready(state, container, now, decisions)
        _say_again(state, container, one, decisions)
        dispatch.refresh(state, container, now)
        ending.end_if_done(state, container, decisions)  # what it had to finish may never have come to it
        return
    function = state.functions.get(one.function_id)
    if function is None:
        _hold_orphan(state, node, one, now)
        decisions.append(Stop(one.container_id, node.node_id, "its app has ended", 10.0))
        return
    fresh = Container(
        one.container_id,
        function.function_id,
        node.node_id,
        one.memory,
        function.need.cpu,
        one.gpus,
        function.version - one.outdated,
        now,
    )
    fresh.gang, fresh.rank = one.gang, one.rank
    container = scale.add_container(state, function, fresh)
    function.awake = True
    if one.gang:
        members.enter(state, fresh, one.size)
    if one.ready:
        containers.mark_ready(state, container, now, decisions)
    for run in one.runs:
        if container.rank:
            _follow(state, container, run)
        else:
            _adopt(state, function, container, run, decisions)
    container.moved = now
    dispatch.refresh(state, container, now)
    why = ending.why_over(state, function, container)
    if why and not container.open and not container.rank:  # a gang ends with its leader's last input
        ending.stop(state, container, why, decisions)


def _hold_orphan(state: State, node: Node, one: events.Held, now: float) -> None:
    """What a container holds that nobody needs is taken until it is gone: its memory, and above all its GPUs."""
    container = Container(
        one.container_id, one.function_id, node.node_id, one.memory, DEFAULT_CPU, one.gpus, 0, now, stopping=True
    )
    scale.add_container(state, None, container)
    if one.ready:
        container.ready = True
        node.starting -= 1
    state.orphaned[one.container_id] = node.node_id


def _say_again(state: State, container: Container, one: events.Held, decisions: list[Decision]) -> None:
    """What was said to a container while its machine was away may be lost: say it again, the machine knows both.

    Inputs that it claims and that are not open here are done: their answers came before.
    """
    name, node_id = container.container_id, container.node_id
    if container.stopping:
        decisions.append(Stop(name, node_id, "it was to stop", 10.0))
    has: dict[tuple[str, int], set[int]] = {}
    for claimed in one.runs:
        has.setdefault((claimed.call_id, claimed.attempt), set()).update(range(claimed.start, claimed.stop))
    container.recalled = False
    # The others of a gang got theirs before the leader, or get them with it.
    for runs in [] if container.stopping or container.rank else container.runs.values():
        for run in runs:
            there = has.get((run.call_id, run.attempt), set())
            for start, stop in spans(run):
                # Lost on the way there, or its answer is on the way here: a machine takes an attempt once only.
                others = members.others(state, container)
                decisions.extend(
                    Give(run.call_id, low, high, run.attempt, name, others)
                    for low, high in _without(start, stop, there)
                )
    for call_id, dropped in list(container.dropped.items()):
        still: list[Run] = []
        for run in dropped:
            there = has.get((call_id, run.attempt), set())
            left = {position for start, stop in spans(run) for position in range(start, stop) if position in there}
            gone = sum(stop - start for start, stop in spans(run)) - len(left)
            container.open -= gone
            held.note(state, container, call_id, -gone)
            if left:
                run.left = left
                still.append(run)
        if still:
            container.dropped[call_id] = still
            decisions.append(Cancel(call_id, -1, name, node_id))
        else:
            del container.dropped[call_id]


def _follow(state: State, container: Container, run: events.Run) -> None:
    """Inputs that a member of a gang runs with its leader."""
    leader = members.leader(state, container)
    mine = leader.runs.get(run.call_id, ()) if leader is not None and leader is not container else ()
    if any(one.attempt == run.attempt and one.start <= run.start and run.stop <= one.stop for one in mine):
        held.hold(state, container, run.call_id, (run.start, run.stop, run.attempt))


def _look_at_gang(state: State, gang_id: str, node: Node, now: float, decisions: list[Decision]) -> None:
    """A gang of which some were lost, while nobody here knew it, ends, and what it ran begins again."""
    gang = state.gangs[gang_id]
    there = [state.containers[name] for name in gang.members if name in state.containers]
    if there[0].node_id != node.node_id or (len(there) == len(gang.members) and not _is_stale(state, there[0])):
        return
    function = state.functions.get(gang.function_id)
    for run in ending.dissolve(state, gang, there[0], decisions):
        call = state.calls.get(run.call_id)
        for position in (one for start, stop in spans(run) for one in range(start, stop)):
            if call is not None and function is not None:
                why = "a container of its cluster was lost with its machine"
                calls.innocent(state, function, (call, position), run.attempt, (now, why), decisions)


def _is_stale(state: State, leader: Container) -> bool:
    """Whether an earlier server had given up what a gang still runs, because one of it would not."""
    for call_id, runs in leader.runs.items():
        call = state.calls.get(call_id)
        for run in runs:
            known = [call.tried.get(one) for start, stop in spans(run) for one in range(start, stop)] if call else []
            if any(one is not None and one.attempt > run.attempt for one in known):
                return True
    return False


def _adopt(state: State, function: Function, container: Container, run: events.Run, decisions: list[Decision]) -> None:
    """Inputs run in a container that nobody here knew: their answers count, unless they run elsewhere by now."""
    call = state.calls.get(run.call_id)
    if call is None:
        call = Call(run.call_id, function.function_id, state.next_order(), arrived=container.since)
        state.calls[run.call_id] = call
    elsewhere = set(call.delayed)
    for name in call.containers:
        for other in state.containers[name].runs[call.call_id]:
            elsewhere.update(position for start, stop in spans(other) for position in range(start, stop))
    positions = range(run.start, run.stop)
    line.leave(function, call, [one for one in positions if one not in elsewhere])
    call.top = max(call.top, run.stop)
    mine: list[int] = []
    for start, stop in _without(run.start, run.stop, elsewhere):
        for position in range(start, stop):
            if run.attempt > 1 or position in call.tried:
                tried = call.record(position)
                tried.attempt = max(tried.attempt, run.attempt)
            mine.append(position)
        held.hold(state, container, call.call_id, (start, stop, run.attempt))
    if mine:
        decisions.append(Adopted(call.call_id, tuple(mine), container.container_id))
    taken = [one for one in positions if one in elsewhere]
    if taken:
        container.dropped.setdefault(call.call_id, []).append(
            Run(call.call_id, taken[0], taken[-1] + 1, run.attempt, state.next_order(), left=set(taken))
        )
        container.open += len(taken)
        held.note(state, container, call.call_id, len(taken))
        decisions.extend(
            Cancel(call.call_id, position, container.container_id, container.node_id) for position in taken
        )


def _without(start: int, stop: int, there: set[int]) -> list[tuple[int, int]]:
    """A range without some of its positions, as ranges."""
    if not there:
        return [(start, stop)]
    rest = Run("", start, stop, 1, 0, left={one for one in range(start, stop) if one not in there})
    return list(spans(rest))
