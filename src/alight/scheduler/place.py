"""Where a container could go: now, ever, and if not, why not, in words."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from alight.scheduler import gpu_room, gpus
from alight.scheduler.state import Gpu, Need, Node, State, Used
from alight.wire import errors
from alight.wire.gpus import ANY, grant

#: What others have put on a machine since it was sorted in counts from here on: CPU is soft, and sorting costs.
_LOAD_SLACK = 0.1
_MOST_KEPT_BACK = 1024  # MiB of one machine


@dataclass(slots=True)
class Place:
    """A machine and the GPUs there (uuids)."""

    node_id: str
    gpus: tuple[str, ...]


def find_place(state: State, need: Need, *, all_of_it: bool = True) -> Place | None:
    """The machine with the least CPU load (about) that has the memory and GPUs free now and may start one more.

    Without ``all_of_it`` the last part of each machine's memory is left to others (``kept_back``), and so is what
    somebody claims for whom room is being made.
    """
    key = (need.cpu, need.memory, need.gpus, all_of_it)
    heap = state.shapes.get(key)
    if heap is None or len(heap) > 4 * len(state.nodes) + 64:
        heap = state.shapes[key] = [(_load(node, need.cpu), node.node_id) for node in state.nodes.values()]
        heapq.heapify(heap)
    choices = requests(state, need) if need.gpus else ()
    nodes, cpu, memory = state.nodes, need.cpu, need.memory
    # With so much left over, nobody has to look what is kept back.
    enough = memory if all_of_it else memory + _MOST_KEPT_BACK if not state.claimed else math.inf
    while heap:
        load, node_id = heap[0]
        node = nodes.get(node_id)
        if (
            node is None
            or not node.connected
            or node.starting >= node.starts_at_once
            or (
                node.memory_free < enough and node.memory_free - (0 if all_of_it else not_for_all(state, node)) < memory
            )
        ):
            heapq.heappop(heap)
            continue
        cpus = node.cpus or 0.1
        now = (node.cpu_used + cpu) / cpus
        if now > load + _LOAD_SLACK:
            heapq.heapreplace(heap, (now, node_id))
            continue
        chosen = _pick_on(state, node, choices, all_of_it=all_of_it) if choices else ()
        if chosen is None:
            heapq.heappop(heap)
            continue
        heapq.heapreplace(heap, (now + cpu / cpus, node_id))
        return Place(node_id, chosen)
    return None


def room_on(state: State, node: Node) -> None:
    """A machine has more room than before: put it back into sight of what looks for a place."""
    for (cpu, *_), heap in state.shapes.items():
        heapq.heappush(heap, (_load(node, cpu), node.node_id))


def machines_changed(state: State) -> None:
    """Machines came, went or changed: what was known of them is read anew."""
    state.shapes.clear()
    state.choices.clear()
    state.possible.clear()


def kept_back(node: Node) -> int:
    """MiB that functions with a container leave to those without, so that a first container starts without waiting.

    A start of about a small function's size: larger reserves would idle for too long. None on an empty machine.
    """
    return min(_MOST_KEPT_BACK, node.memory // 8) if node.containers else 0


def pick_gpus(
    choices: Sequence[gpus.Request], free: Collection[Gpu], shared: Collection[Used] = ()
) -> tuple[str, ...] | None:
    """GPUs for the first choice that these can serve; () when none was asked for; None when they cannot.

    ``free`` and ``shared``: what one machine has that nobody holds, and what others hold parts of.
    """
    if not choices:
        return ()
    for request in choices:
        chosen = gpus.choose(request, free, shared)
        if chosen:
            return chosen
    return None


def pick_all(choices: Sequence[gpus.Request], room: gpu_room.Room, need: Need) -> tuple[tuple[str, ...], ...] | None:
    """GPUs for each container of those that start together; None when these cannot serve all of them."""
    if not choices:
        return ((),) * need.count
    left = room if need.count == 1 else room.copy()
    found: list[tuple[str, ...]] = []
    while len(found) < need.count:
        chosen = pick_gpus(choices, left.free.values(), left.shared.values())
        if chosen is None:
            return None
        found.append(chosen)
        if need.count > 1:
            left.take(chosen)
    return tuple(found)


def check_possible(state: State, name: str, need: Need) -> str:
    """Raise when no machine here can ever run this; return a warning ("" when there is nothing to say).

    Without a machine nothing is impossible: one may join. Raises InvalidError for a GPU that nobody knows.
    """
    everything = [gpu for node in state.nodes.values() for gpu in node.gpus]
    try:
        asked = [gpus.parse(text, everything, state.aliases) for text in need.gpus]
    except errors.InvalidError as error:
        raise errors.InvalidError(f"{name}(): {error}", hint=error.hint) from None
    if not state.nodes:
        return ""
    choices = requests(state, need)
    for node in state.nodes.values():
        whole = gpu_room.Room({gpu.uuid: gpu for gpu in node.gpus})
        if need.memory_in_all <= node.memory and pick_all(choices, whole, need) is not None:
            return _warning(name, need, asked, list(state.nodes.values()))
    largest = max(state.nodes.values(), key=lambda node: node.memory)
    if choices and all(pick_gpus(choices, node.gpus) is None for node in state.nodes.values()):
        raise _no_gpu(name, need, everything)
    if need.count > 1:
        raise _no_room_for_all(name, need, largest, [*state.nodes.values()], choices)
    raise errors.InvalidError(
        f"{name}() asks for memory={need.memory} MiB; {largest.hostname} has {largest.memory} MiB for containers",
        hint=f"ask for at most memory={largest.memory}",
    )


def requests(state: State, need: Need) -> list[gpus.Request]:
    """The GPU requests in order, narrowed to the exact type where some machine has it."""
    if not need.gpus:
        return []
    known: list[gpus.Request] | None = state.choices.get(need.gpus)
    if known is None:
        known = state.choices[need.gpus] = _read_requests(state, need)
    return known


def _read_requests(state: State, need: Need) -> list[gpus.Request]:
    everything = [gpu for node in state.nodes.values() for gpu in node.gpus]
    choices = []
    for text in need.gpus:
        try:
            request = gpus.parse(text, everything, state.aliases)
        except errors.InvalidError:
            continue  # said when it was published; the machine that knew the name may have left
        # Waiting for the very type is the rule only where it could ever come free in that number.
        exact = gpus.exact_only(request)
        serves = request.type != ANY and any(
            gpus.choose(exact, [gpu for gpu in node.gpus if not gpu.fault]) for node in state.nodes.values()
        )
        choices.append(exact if serves else request)
    return choices or [gpus.Request("UNKNOWN", 1, exact=True)]


def not_for_all(state: State, node: Node) -> int:
    """MiB of a machine that are for others: see ``kept_back``, and what somebody claims."""
    return kept_back(node) + (state.claimed.get(node.node_id, 0) if state.claimed else 0)


def _pick_on(state: State, node: Node, choices: Sequence[gpus.Request], *, all_of_it: bool) -> tuple[str, ...] | None:
    if all_of_it or not state.claimed_gpus:
        return pick_gpus(choices, node.gpus_free.values(), node.gpus_shared.values())
    room = gpu_room.without(node, state.claimed_gpus)
    return pick_gpus(choices, room.free.values(), room.shared.values())


def _load(node: Node, cpu: float) -> float:
    return (node.cpu_used + cpu) / (node.cpus or 0.1)


def _warning(name: str, need: Need, asked: list[gpus.Request], nodes: list[Node]) -> str:
    words = []
    most = max(node.cpus for node in nodes)
    if need.cpu > most:
        words.append(f"{name}() asks for {need.cpu:g} cores and shares the {most:g} there are")
    for request, text in zip(asked, need.gpus, strict=True):
        given = next(((node, one) for node in nodes if (one := pick_gpus([request], node.gpus))), None)
        if given is None:
            continue  # the next of the list has its turn
        node, chosen = given
        if request.type != ANY and not any(gpus.has_exact(request, node.gpus) for node in nodes):
            got = gpus.describe([gpu for gpu in node.gpus if gpu.uuid in {grant(one).uuid for one in chosen}])
            part = "a part of " if grant(chosen[0]).is_share else ""
            which = "" if part else ", which has at least as much memory"
            words.append(f"{name}() asks for {text} and gets {part}{got}{which}")
        break
    return "; ".join(words)


def _no_room_for_all(
    name: str, need: Need, largest: Node, nodes: list[Node], choices: Sequence[gpus.Request]
) -> errors.Error:
    most = max(node.memory // need.memory if need.memory else need.count for node in nodes)
    if most < need.count:
        return errors.InvalidError(
            f"{name}() is @clustered(size={need.count}) with memory={need.memory} MiB for each container, "
            f"{need.memory_in_all} MiB on one machine; {largest.hostname} has {largest.memory} MiB for containers",
            hint=f"ask for at most size={most}, or for less memory" if most else "ask for less memory",
        )
    fits = max(_how_many(choices, node, need) for node in nodes)
    what = " or ".join(_in_words(text) for text in need.gpus)
    here = "; ".join(f"{node.hostname} has {gpus.describe(node.gpus)}" for node in nodes if node.gpus)
    return errors.InvalidError(
        f"{name}() is @clustered(size={need.count}) with {what} for each container, all on one machine; {here}",
        hint=f"ask for at most size={fits}, or for fewer GPUs in each container",
    )


def _no_gpu(name: str, need: Need, everything: list[Gpu]) -> errors.Error:
    asked = " or ".join(_in_words(text) for text in need.gpus)
    if not everything:
        return errors.InvalidError(
            f"{name}() asks for a GPU ({asked}) and the machines here have none",
            hint="run it without one: alight run --gpu none …",
        )
    whole = [gpu for gpu in everything if not gpu.slice_of] or everything
    names = ", ".join(f'"{kind}"' for kind in dict.fromkeys(gpu.type for gpu in whole))
    cut = ""
    if any(gpu.slice_of for gpu in everything):
        cut = "; a MIG instance serves those who ask for a part of a GPU, as in gpu_memory="
    return errors.InvalidError(
        f"{name}() asks for {asked}; the machines here have {gpus.describe(everything)}, which is not enough{cut}",
        hint=f'ask for what is there ({names} or "any"), or run it without one: alight run --gpu none …',
    )


def _how_many(choices: Sequence[gpus.Request], node: Node, need: Need) -> int:
    """Of containers that start together, so many could have GPUs of this machine."""
    left = gpu_room.Room({gpu.uuid: gpu for gpu in node.gpus})
    for number in range(need.count):
        chosen = pick_gpus(choices, left.free.values(), left.shared.values())
        if not chosen:
            return number
        left.take(chosen)
    return need.count


def _in_words(text: str) -> str:
    """A request as people would write it: who asks for memory alone has named no type."""
    kind, _, amount = text.partition(":")
    if kind != ANY:
        return text
    return f"{amount} of a GPU" if amount else "any GPU"
