"""Which GPUs of one machine are best together: those with the fastest links between them.

A link is a number that only compares (``nvml.py`` makes them): NVLink is far above anything that crosses PCIe.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from alight.scheduler.state import Gpu

#: Combinations that are all looked at. A machine with 8 GPUs has 70 at most.
_MOST = 3000


def best_linked(free: Sequence[Gpu], count: int) -> tuple[Gpu, ...]:
    """``count`` of these, linked best: by all of their links together, then by what is left to others.

    With links as good everywhere, the first. Empty when there are fewer.
    """
    if len(free) < count:
        return ()
    if count == len(free) or count < 2 or not any(gpu.links for gpu in free):
        return tuple(free[:count])
    chosen = list(itertools.islice(itertools.combinations(range(len(free)), count), _MOST + 1))
    if len(chosen) > _MOST:
        return _greedy(free, count)
    # Of equals ``max`` takes the first.
    best = max(chosen, key=lambda one: (_worth(free, one), _worth(free, _others(len(free), one))))
    return tuple(free[at] for at in best)


def _greedy(free: Sequence[Gpu], count: int) -> tuple[Gpu, ...]:
    """The best pair, and then always the one that is linked best to those that are chosen."""
    pairs = itertools.combinations(range(len(free)), 2)
    mine = [*max(pairs, key=lambda pair: _link(free[pair[0]], free[pair[1]]))]
    while len(mine) < count:
        rest = _others(len(free), mine)
        mine.append(max(rest, key=lambda at: sum(_link(free[at], free[one]) for one in mine)))
    return tuple(free[at] for at in sorted(mine))


def _worth(free: Sequence[Gpu], chosen: Sequence[int]) -> int:
    return sum(_link(free[one], free[other]) for one, other in itertools.combinations(chosen, 2))


def _others(count: int, chosen: Sequence[int]) -> list[int]:
    return [at for at in range(count) if at not in chosen]


def _link(one: Gpu, other: Gpu) -> int:
    return one.links.get(other.uuid, 0)
