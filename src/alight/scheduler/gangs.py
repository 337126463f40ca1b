"""Gangs: containers that start together, get every input together, and end together.

Rank 0 leads: its function counts it alone and sorts it among its containers, and it holds an input until all others
have answered it, too. The others hold the same input so that they can be told of its end. Places for all are found in
one step, before any of them starts, so that two gangs never wait for each other with half of their containers each.
A gang lies on one machine. Who is in which is in ``members``, their end in ``ending``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alight.scheduler import dispatch, gpu_room, held, place
from alight.scheduler.decisions import Aside, Decision
from alight.scheduler.events import AttemptsEnded
from alight.scheduler.state import Container, Gang, Need, Node, State
from alight.wire.states import ResultStatus


@dataclass(frozen=True, slots=True)
class Places:
    """A machine with room for all, and the GPUs of each rank (uuids)."""

    node_id: str
    gpus: tuple[tuple[str, ...], ...]


def find_places(state: State, need: Need, *, all_of_it: bool = True) -> Places | None:
    """The machine with the least CPU load that has room for all containers of a gang now; see ``place.find_place``.

    A gang may start where one container might: the others come along, whatever starts there already.
    """
    best: tuple[float, Places] | None = None
    choices = place.requests(state, need) if need.gpus else ()
    for node in state.nodes.values():
        if not node.connected or node.starting >= node.starts_at_once:
            continue
        if node.memory_free - (0 if all_of_it else place.not_for_all(state, node)) < need.memory_in_all:
            continue
        load = _load(node, need)
        if best is not None and best[0] <= load:
            continue
        claimed = () if all_of_it else state.claimed_gpus
        chosen = place.pick_all(choices, gpu_room.without(node, claimed), need)
        if chosen is not None:
            best = load, Places(node.node_id, chosen)
    return best[1] if best is not None else None


def answered(
    state: State, container: Container, event: AttemptsEnded, now: float, decisions: list[Decision]
) -> AttemptsEnded | None:
    """What an answer of a member says about its input: None while others still run it, or of what nobody waits for.

    A failure is the input's, whoever brings it. Values are the leader's alone, and wait for the others.
    """
    gang = state.gangs[container.gang]
    if event.status != ResultStatus.SUCCESS:
        return event
    if not container.rank:
        if not _others_run(state, gang, event):
            return event
        gang.answer = event
        decisions.append(Aside(event.call_id, container.container_id, keep=True))
        return None
    held.release(state, container, event.call_id, event.attempt, event.positions)
    answer: AttemptsEnded | None = gang.answer
    if answer is not None and not _others_run(state, gang, answer):
        gang.answer = None
        return answer
    dispatch.refresh(state, container, now)
    return None


def forget_answer(state: State, container: Container, call_id: str, decisions: list[Decision]) -> None:
    """Nobody wants what a leader answered for a call while others of its gang still run it."""
    gang = state.gangs.get(container.gang) if container.gang and not container.rank else None
    answer = gang.answer if gang is not None else None
    if gang is None or answer is None or answer.call_id != call_id:
        return
    gang.answer = None
    held.release(state, container, call_id, answer.attempt, answer.positions)
    decisions.append(Aside(call_id, container.container_id, keep=False))


def named(error: dict[str, Any] | None, container: Container, gang: Gang) -> dict[str, Any] | None:
    """An error (wire form) that says which rank it is about."""
    if error is None or len(gang.members) < 2:
        return error
    which = f"rank {container.rank} of {len(gang.members)} ({container.container_id})"
    return {**error, "message": f"{which}: {error.get('message', '')}"}


def _others_run(state: State, gang: Gang, event: AttemptsEnded) -> bool:
    return any(event.call_id in state.containers[name].runs for name in gang.members[1:] if name in state.containers)


def _load(node: Node, need: Need) -> float:
    return (node.cpu_used + need.cpu * need.count) / (node.cpus or 0.1)
