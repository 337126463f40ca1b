"""Why inputs wait, in facts and in words, and how a function is doing."""

from __future__ import annotations

from dataclasses import dataclass

from alight.scheduler import line, place, stuck
from alight.scheduler.gpu_room import Room
from alight.scheduler.gpus import Request, may_serve
from alight.scheduler.state import Call, Container, Function, Node, State

_AT_MOST = 5  # holders that are named


@dataclass(frozen=True, slots=True)
class Facts:
    """What ``wire.calling.Waiting`` tells, field by field. ``since`` is the time that ``step`` was told."""

    since: float
    why: str
    needs: str
    ahead: int
    holders: tuple[str, ...] = ()
    starts_when: str = ""
    never: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """A function now. ``headroom``: inputs that could begin at once."""

    backlog: int = 0
    containers: int = 0
    running: int = 0
    headroom: int = 0


def why_waiting(state: State, call_id: str, now: float) -> str:
    """One sentence for a call of which inputs wait; "" for one that runs, or is unknown."""
    facts = waiting_of(state, call_id, now)
    return facts.why if facts is not None else ""


def waiting_of(state: State, call_id: str, now: float) -> Facts | None:
    """Why inputs of a call wait; None when none does."""
    call = state.calls.get(call_id)
    function = state.functions.get(call.function_id) if call is not None else None
    if call is None or function is None:
        return None
    mine = line.waiting_in(call)
    if not mine and not call.delayed:
        return None
    needs = _needs(function)
    held = state.budgets.get(function.app_id)
    if held is not None:
        return Facts(call.arrived, held, needs, 0, starts_when="the budget is raised, or begins anew")
    if not mine:
        at = min(call.delayed.values())
        attempt = max(call.tried[one].attempt for one in call.delayed)
        words = f"waiting for its next attempt ({attempt})"
        return Facts(call.arrived, words, needs, 0, starts_when=f"in {max(0.0, at - now):.1f} s")
    ahead = _ahead(state, function, call)
    if function.starting:
        count = len(function.starting)
        others = f", {ahead} other input{'s' if ahead > 1 else ''} ahead" if ahead else ""
        words = f"waiting for a container: {count} starting{others}"
        when = "a container is ready" if not ahead else "a container is ready and those ahead have had their turn"
        return Facts(call.arrived, words, needs, ahead, starts_when=when)
    if function.start_after > now:
        wait = function.start_after - now
        words = f"waiting {wait:.1f} s before a container is tried again: the last did not start"
        return Facts(call.arrived, words, needs, ahead, starts_when=f"in {wait:.1f} s")
    return _blocked(state, function, call, ahead, now)


def stats(state: State, function_id: str) -> Stats:
    """How a function is doing: what waits, its containers that are not ending, what runs, and what could."""
    function = state.functions.get(function_id)
    if function is None:
        return Stats()
    mine = [state.containers[name] for name in function.containers]
    slots = function.slots
    room = sum(max(0, slots - one.open) for one in mine if one.container_id in function.serving)
    return Stats(
        function.waiting,
        sum(not one.stopping for one in mine) * function.need.count,
        sum(_running(one, slots) for one in mine),
        room,
    )


def _blocked(state: State, function: Function, call: Call, ahead: int, now: float) -> Facts:
    """What keeps one more container of this function from starting now."""
    need, needs = function.need, _needs(function)
    nodes = [node for node in state.nodes.values() if node.connected]
    if not nodes:
        words = "waiting for a machine: none is connected"
        return Facts(call.arrived, words, needs, ahead, starts_when="a machine joins")
    mine = [state.containers[name] for name in function.containers]
    if need.max_containers is not None and len(mine) - len(function.blocked) >= need.max_containers:
        words = f"waiting for a container: all {need.max_containers} of max_containers are busy"
        when = "one of them has answered what it runs"
        return Facts(call.arrived, words, needs, ahead, _holders(state, mine, now), when)
    choices = place.requests(state, need)
    has_one = len(function.containers) > len(function.blocked)
    rooms = [Room(node.gpus_free, node.gpus_shared) for node in nodes]
    gpus_lack = all(place.pick_all(choices, one, need) is None for one in rooms)
    if gpus_lack:
        each = f" for each of {need.count} containers" if need.count > 1 else ""
        what = f"a GPU ({', '.join(need.gpus)}){each}"
        holders = [one for one in _on(state, nodes) if one.gpus]
        broken = _out_of_service(choices, nodes)
        if broken and not holders:
            words = f"waiting for {what}: {broken}"
            return Facts(call.arrived, words, needs, ahead, starts_when="a GPU is back in service")
        what += f" ({broken})" if broken else ""
    elif not any(_memory_free(node, has_one) >= need.memory_in_all for node in nodes):
        what = f"memory ({need.memory_in_all} MiB)"
        holders = _on(state, nodes)
    else:
        busy = function.serving and not function.idle
        words = (
            "waiting for a container: those that run will be free soon"
            if busy
            else "waiting for a container: too many others are starting just now"
        )
        return Facts(call.arrived, words, needs, ahead, starts_when="a container is free")
    words = f"waiting for {what}: {_held_by(state, holders)}"
    never = not function.serving and not stuck.may_start(state, function, stuck.never_free(state, now), now)
    if never:
        words += "; none of them will ever be returned"
    when = _starts_when(state, holders, never=never)
    return Facts(call.arrived, words, needs, ahead, _holders(state, holders, now), when, never)


def _out_of_service(choices: list[Request], nodes: list[Node]) -> str:
    """Which GPUs that would serve are out of service, and why; "" when none is."""
    found = [
        f"{gpu.name or gpu.type} of {node.hostname} is out of service: {gpu.fault}"
        for node in nodes
        for gpu in node.gpus
        if gpu.fault and any(may_serve(request, gpu) for request in choices)
    ]
    more = f", and {len(found) - 2} more" if len(found) > 2 else ""
    return "; ".join(found[:2]) + more


def _starts_when(state: State, holders: list[Container], *, never: bool) -> str:
    if not never:
        return "one of those that hold it ends"
    kept = sorted(
        {
            function.name
            for function in (state.functions.get(one.function_id) for one in holders)
            if function is not None and function.need.min_containers
        }
    )
    if kept:
        names = ", ".join(f"{name}()" for name in kept)
        return f"never by itself: {names} keeps it with min_containers; stop that app or lower min_containers"
    return "never by itself: stop what holds it, or add a machine"


def _needs(function: Function) -> str:
    need = function.need
    words = [_gpu_words(one) for one in need.gpus[:1]]
    cores = f"{need.cpu:g} core{'' if need.cpu == 1 else 's'}"
    together = f", {need.count} of them at once" if need.count > 1 else ""
    return ", ".join([*words, cores, f"{need.memory} MiB for each container{together}"])


def _gpu_words(text: str) -> str:
    kind, _, number = text.partition(":")
    return f"{number} of {kind}" if number.endswith("B") else f"{number or '1'} x {kind}"


def _ahead(state: State, function: Function, call: Call) -> int:
    """Inputs that have their turn before the next of this call: those that had it once, and one turn of each call."""
    count = 0
    if not call.suspects:
        count += sum(stop - start for one in function.suspects for start, stop, _ in state.calls[one].suspects)
    if not call.suspects and not call.first:
        count += sum(stop - start for one in function.first for start, stop, _ in state.calls[one].first)
        for one in function.line:
            if one == call.call_id:
                break
            count += 1 if function.slots > 1 or function.pace is None else line.waiting_in(state.calls[one])
    return count


def _on(state: State, nodes: list[Node]) -> list[Container]:
    return [state.containers[name] for node in nodes for name in node.containers]


def _memory_free(node: Node, has_one: bool) -> int:
    return node.memory_free - (place.kept_back(node) if has_one else 0)


def _running(container: Container, slots: int) -> int:
    """What has begun: of a container that takes one input at a time, one."""
    return min(container.open, slots)


def _label(state: State, container: Container) -> str:
    function = state.functions.get(container.function_id)
    return f"{function.name}() of app {function.app_id}" if function else "an app that is ending"


def _held_by(state: State, holders: list[Container]) -> str:
    counts: dict[str, int] = {}
    for container in holders:
        label = _label(state, container)
        counts[label] = counts.get(label, 0) + 1
    if not counts:
        return "no machine that is connected has it"
    words = [f"{count} container{'s' if count > 1 else ''} of {label}" for label, count in counts.items()]
    others = " and others" if len(words) > 3 else ""
    return f"{', '.join(words[:3])}{others} hold{'s' if len(holders) == 1 else ''} it"


def _holders(state: State, holders: list[Container], now: float) -> tuple[str, ...]:
    """Who holds what is needed, with how many containers and since when."""
    groups: dict[str, list[Container]] = {}
    for container in holders:
        groups.setdefault(_label(state, container), []).append(container)
    words = []
    for label, mine in groups.items():
        count, since = len(mine), min(one.since for one in mine)
        for_ever = [one for one in mine if one.blocked]
        idle = "; waits for other calls itself" if len(for_ever) == count else ""
        words.append(f"{count} container{'s' if count > 1 else ''} of {label}, for {_span(now - since)}{idle}")
    if len(words) > _AT_MOST:
        words = [*words[:_AT_MOST], f"{len(words) - _AT_MOST} more functions"]
    return tuple(words)


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
