"""What of a machine's GPUs is free: whole ones, and what is left of those that are shared.

Kept in ``Node.gpus_free`` and ``Node.gpus_shared``. A whole GPU is given to one container; of a shared one, never more
than its memory nor than 100 percent of its processors. One that is out of service is in neither, unless parts of it
are still held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from alight.scheduler.state import Container, Gpu, Node, Used
from alight.wire.gpus import grant


@dataclass(slots=True)
class Room:
    """GPUs of one machine by uuid, as they would be if some containers were gone."""

    free: dict[str, Gpu] = field(default_factory=dict)
    shared: dict[str, Used] = field(default_factory=dict)

    def copy(self) -> Room:
        """For what may come to nothing."""
        return Room({**self.free}, {uuid: replace(used) for uuid, used in self.shared.items()})

    def take(self, gpus: Iterable[str]) -> None:
        """A container would get these."""
        _take(self.free, self.shared, gpus, ())

    def give_back(self, gpus: Iterable[str], present: Mapping[str, Gpu]) -> None:
        """A container that held these is gone. Those that are not ``present`` serve nobody."""
        _give_back(self.free, self.shared, gpus, present)


def take(node: Node, gpus: Iterable[str]) -> None:
    """A container of this machine gets these."""
    _take(node.gpus_free, node.gpus_shared, gpus, node.gpus)


def give_back(node: Node, gpus: tuple[str, ...]) -> None:
    """A container of this machine that held these is gone."""
    if gpus:
        _give_back(node.gpus_free, node.gpus_shared, gpus, {gpu.uuid: gpu for gpu in node.gpus if not gpu.fault})


def recount(node: Node, held: Iterable[Container]) -> None:
    """The machine's GPUs changed: what is free is what its containers do not hold."""
    room = of(node.gpus, held)
    node.gpus_free, node.gpus_shared = room.free, room.shared


def of(gpus: Collection[Gpu], held: Iterable[Container]) -> Room:
    """What is left when these containers hold what they do."""
    # A share of a GPU that is out of service is counted all the same: it may come back before the container ends.
    room = Room({gpu.uuid: gpu for gpu in gpus})
    for container in held:
        _take(room.free, room.shared, container.gpus, ())
    for gpu in gpus:
        if gpu.fault:
            room.free.pop(gpu.uuid, None)
    return room


def without(node: Node, claimed: Collection[str]) -> Room:
    """A copy of what is free, less what somebody else is having room made on."""
    return Room(
        {uuid: gpu for uuid, gpu in node.gpus_free.items() if uuid not in claimed},
        {uuid: replace(used) for uuid, used in node.gpus_shared.items() if uuid not in claimed},
    )


def _take(free: dict[str, Gpu], shared: dict[str, Used], gpus: Iterable[str], present: Collection[Gpu]) -> None:
    for text in gpus:
        one = grant(text)
        gpu = free.pop(one.uuid, None)
        if not one.is_share:
            continue
        used = shared.get(one.uuid)
        if used is None:
            if gpu is None:  # taken up again, and out of service; or not there any more
                gpu = next((other for other in present if other.uuid == one.uuid), None)
            if gpu is None:
                continue
            used = shared[one.uuid] = Used(gpu)
        used.memory += one.memory
        used.percent += one.percent
        used.holders += 1


def _give_back(free: dict[str, Gpu], shared: dict[str, Used], gpus: Iterable[str], present: Mapping[str, Gpu]) -> None:
    for text in gpus:
        one = grant(text)
        gpu = present.get(one.uuid)
        if not one.is_share:
            if gpu is not None:
                free[one.uuid] = gpu
            continue
        used = shared.get(one.uuid)
        if used is None:
            continue
        used.memory -= one.memory
        used.percent -= one.percent
        used.holders -= 1
        if not used.holders:
            del shared[one.uuid]
            if gpu is not None:
                free[one.uuid] = gpu
