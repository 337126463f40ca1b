"""Which images of a machine may go, and what goes with them. Pure: time is an argument, nothing here touches a disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Held:
    """An image as the decision sees it. ``needed``: by a container, or by an app that is there."""

    digest: str
    layers: frozenset[str]
    used_at: float
    needed: bool


@dataclass(frozen=True)
class Plan:
    """What to remove."""

    images: tuple[str, ...] = ()
    layers: frozenset[str] = frozenset()


def plan(
    images: Collection[Held],
    sizes: Mapping[str, int],
    *,
    now: float,
    older_than: float | None = None,
    most_bytes: int | None = None,
    named: Collection[str] = (),
) -> Plan:
    """Remove ``named`` images, those unused for ``older_than`` seconds, then the least recently used until what is left
    has at most ``most_bytes``. ``sizes`` are of all layers that are there; one that no image stands on goes, too.

    An image that is needed stays, whatever is asked.
    """
    free = sorted((one for one in images if not one.needed), key=lambda one: one.used_at)
    going = [one for one in free if one.digest in named or (older_than is not None and one.used_at <= now - older_than)]
    gone = {one.digest for one in going}
    staying = [one for one in images if one.digest not in gone]
    if most_bytes is not None:
        for one in free:
            if _total(staying, sizes) <= most_bytes:
                break
            if one in staying:
                staying.remove(one)
                going.append(one)
    kept = frozenset[str]().union(*(one.layers for one in staying))
    return Plan(tuple(one.digest for one in going), frozenset(sizes) - kept)


def _total(images: Collection[Held], sizes: Mapping[str, int]) -> int:
    layers = frozenset[str]().union(*(one.layers for one in images))
    return sum(sizes.get(layer, 0) for layer in layers)
