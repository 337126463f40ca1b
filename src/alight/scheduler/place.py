"""Where a container could go: now, ever, and if not, why not, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from alight.scheduler import gpus
from alight.scheduler.state import Function, Gpu, Need, Node, State
from alight.wire import errors


@dataclass(frozen=True, slots=True)
class Place:
    """A machine and the GPUs there (uuids)."""

    node_id: str
    gpus: tuple[str, ...]


def find_place(state: State, need: Need) -> Place | None:
    """The machine with the least CPU load that has the memory and GPUs free now and may start one more."""
    best: tuple[float, Place] | None = None
    choices = _choices(state, need)
    for node in state.nodes.values():
        if not node.connected or node.memory_free < need.memory or node.starting >= node.starts_at_once:
            continue
        chosen = pick_gpus(choices, node.gpus_free.values())
        if chosen is None:
            continue
        load = (node.cpu_used + need.cpu) / max(node.cpus, 0.1)
        if best is None or load < best[0]:
            best = (load, Place(node.node_id, chosen))
    return best[1] if best else None


def room_to_make(state: State, need: Need) -> list[str] | None:
    """Idle containers to end so that ``need`` fits somewhere. Empty: room is coming. None: idle ones don't help."""
    choices = _choices(state, need)
    for node in state.nodes.values():
        if not node.connected:
            continue
        memory, free = node.memory_free, dict(node.gpus_free)
        held = {gpu.uuid: gpu for gpu in node.gpus}
        idle = []
        for container_id in node.containers:
            container = state.containers[container_id]
            if container.stopping:
                memory += container.memory
                free.update({uuid: held[uuid] for uuid in container.gpus if uuid in held})
            elif container.ready and not container.inputs:
                function = state.functions.get(container.function_id)
                if function is None or len(function.containers) > function.need.min_containers:
                    idle.append(container)
        ended: list[str] = []
        idle.sort(key=lambda container: container.idle_since)
        while memory < need.memory or pick_gpus(choices, free.values()) is None:
            if not idle:
                break
            container = idle.pop(0)
            memory += container.memory
            free.update({uuid: held[uuid] for uuid in container.gpus if uuid in held})
            ended.append(container.container_id)
        else:
            return ended
    return None


def pick_gpus(choices: list[gpus.Request], free: Iterable[Gpu]) -> tuple[str, ...] | None:
    """GPUs for the first choice that these can serve; () when none was asked for; None when they cannot."""
    if not choices:
        return ()
    here = list(free)
    for request in choices:
        suitable = gpus.fits(request, here)
        if len(suitable) >= request.count:
            return suitable[: request.count]
    return None


def check_possible(state: State, name: str, need: Need) -> str:
    """Raise when no machine here can ever run this; return a warning ("" when there is nothing to say).

    Without a machine nothing is impossible: one may join. Raises InvalidError for a GPU that nobody knows.
    """
    everything = [gpu for node in state.nodes.values() for gpu in node.gpus]
    requests = [gpus.parse(text, everything) for text in need.gpus]
    if not state.nodes:
        return ""
    choices = _choices(state, need)
    for node in state.nodes.values():
        if need.memory <= node.memory and pick_gpus(choices, node.gpus) is not None:
            return _warning(name, need, requests, list(state.nodes.values()))
    largest = max(state.nodes.values(), key=lambda node: node.memory)
    if choices and all(pick_gpus(choices, node.gpus) is None for node in state.nodes.values()):
        raise _no_gpu(name, need, everything)
    raise errors.InvalidError(
        f"{name}() asks for memory={need.memory} MiB; {largest.hostname} has {largest.memory} MiB for containers",
        hint=f"ask for at most memory={largest.memory}",
    )


def why_blocked(state: State, function: Function) -> str:
    """What keeps one more container of this function from starting now."""
    need = function.need
    nodes = [node for node in state.nodes.values() if node.connected]
    if not nodes:
        return "waiting for a machine: none is connected"
    if need.max_containers is not None and len(function.containers) >= need.max_containers:
        return f"waiting for a container: all {need.max_containers} of max_containers are busy"
    choices = _choices(state, need)
    if not any(pick_gpus(choices, node.gpus_free.values()) is not None for node in nodes):
        return f"waiting for a GPU ({', '.join(need.gpus)}): {_holders(state, nodes, gpus_only=True)}"
    if not any(node.memory_free >= need.memory for node in nodes):
        return f"waiting for memory ({need.memory} MiB): {_holders(state, nodes, gpus_only=False)}"
    return "waiting for a container: too many others are starting just now"


def _choices(state: State, need: Need) -> list[gpus.Request]:
    """The requests in order, narrowed to the exact type where some machine has it."""
    if not need.gpus:
        return []
    everything = [gpu for node in state.nodes.values() for gpu in node.gpus]
    choices = []
    for text in need.gpus:
        try:
            request = gpus.parse(text, everything)
        except errors.InvalidError:
            continue  # said when it was published; the machine that knew the name may have left
        # Waiting for the very type is the rule only where it could ever come free in that number.
        enough = any(
            sum(gpus.has_exact(request, [gpu]) for gpu in node.gpus) >= request.count for node in state.nodes.values()
        )
        choices.append(gpus.exact_only(request) if enough and request.type != gpus.ANY else request)
    return choices or [gpus.Request("UNKNOWN", 1, exact=True)]


def _warning(name: str, need: Need, requests: list[gpus.Request], nodes: list[Node]) -> str:
    words = []
    most = max(node.cpus for node in nodes)
    if need.cpu > most:
        words.append(f"{name}() asks for {need.cpu:g} cores and shares the {most:g} there are")
    for request in requests[:1]:
        if request.type != gpus.ANY and not any(gpus.has_exact(request, node.gpus) for node in nodes):
            for node in nodes:
                chosen = pick_gpus([request], node.gpus)
                if chosen:
                    got = gpus.describe([gpu for gpu in node.gpus if gpu.uuid in chosen])
                    words.append(f"{name}() asks for {need.gpus[0]} and gets {got}, which has at least as much memory")
                    break
    return "; ".join(words)


def _no_gpu(name: str, need: Need, everything: list[Gpu]) -> errors.Error:
    asked = " or ".join(need.gpus)
    if not everything:
        return errors.InvalidError(
            f"{name}() asks for a GPU ({asked}) and the machines here have none",
            hint="run it without one: alight run --gpu none …",
        )
    names = ", ".join(f'"{kind}"' for kind in dict.fromkeys(gpu.type for gpu in everything))
    return errors.InvalidError(
        f"{name}() asks for {asked}; the machines here have {gpus.describe(everything)}, which is not enough",
        hint=f'ask for what is there ({names} or "any"), or run it without one: alight run --gpu none …',
    )


def _holders(state: State, nodes: list[Node], *, gpus_only: bool) -> str:
    counts: dict[str, int] = {}
    for node in nodes:
        for container_id in node.containers:
            container = state.containers[container_id]
            if gpus_only and not container.gpus:
                continue
            function = state.functions.get(container.function_id)
            label = f"{function.name}() of app {function.app_id}" if function else "an app that is ending"
            counts[label] = counts.get(label, 0) + 1
    if not counts:
        return "no machine that is connected has it"
    words = [f"{count} container{'s' if count > 1 else ''} of {label}" for label, count in counts.items()]
    others = " and others" if len(words) > 3 else ""
    return f"{', '.join(words[:3])}{others} hold{'s' if sum(counts.values()) == 1 else ''} it"
