"""Which GPUs a request may have.

A request is "TYPE[:count]", or a part of one GPU (``wire.gpus``). The exact type wins wherever a machine has it, free
or not; where none has it, any GPU with at least as much memory does, unless the name ends in "!". Scripts name cloud
GPUs that their reader may not own, so the memory of those names is known.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from alight.scheduler.state import Gpu, Used
from alight.scheduler.topology import best_linked
from alight.wire import errors
from alight.wire import gpus as written
from alight.wire.gpus import ANY, KNOWN, Grant
from alight.wire.record import replace as replace_record

#: NVML reports a little less than names say (ECC, reserved, the borders of MIG instances).
_ROOM = 0.9


@dataclass(frozen=True, slots=True)
class Request:
    """One choice: ``count`` GPUs of ``type`` (or at least as large, unless ``exact``).

    Or a part of one: ``percent`` of it, or ``memory`` MiB.
    """

    type: str
    count: int
    exact: bool
    percent: int = 0
    memory: int = 0

    @property
    def shares(self) -> bool:
        return bool(self.percent or self.memory)


def parse(text: str, present: Iterable[Gpu], aliases: Mapping[str, str] = MappingProxyType({})) -> Request:
    """Read one choice. Raises InvalidError for a name that neither the table nor a machine here knows.

    ``aliases``: names of the site's own, before all others (``wire.gpus.aliases``).
    """
    asked = written.read(text)
    here = list(present)
    asked = replace_record(asked, type=aliases.get(written.key(asked.type), asked.type))
    name = written.canonical(asked.type)
    if not name:
        name = next((gpu.type for gpu in here if written.key(gpu.type) == written.key(asked.type)), "")
    if not name:
        names = ", ".join(dict.fromkeys(gpu.type for gpu in here))
        mine = f"the machines here have {names}" if names else "the machines here have no GPU"
        near = written.nearest(asked.type, [gpu.type for gpu in here])
        guess = f"did you mean {' or '.join(near)}? " if near else ""
        raise errors.InvalidError(
            f"gpu={text!r}: there is no such GPU",
            hint=f'{guess}known names are {", ".join(written.CLOUD)}, those of other cards and "any"; {mine}',
        )
    return Request(name, asked.count, asked.exact, asked.percent, asked.memory)


def choose(request: Request, free: Collection[Gpu], shared: Collection[Used] = ()) -> tuple[str, ...]:
    """What a container would get of one machine; () when that is not enough.

    ``free``: GPUs that nobody holds; ``shared``: those that others hold parts of.
    """
    if not request.shares:
        return _whole(request, free)
    exact = exact_only(request)
    found = _part(exact, free, shared)
    return found if found or request == exact else _part(request, free, shared)


def may_serve(request: Request, gpu: Gpu) -> bool:
    """Whether a GPU could be (one of those) for this request, were it free and in service."""
    return bool(choose(replace(request, count=1), [gpu]))


def has_exact(request: Request, present: Iterable[Gpu]) -> bool:
    """Whether one of these is the very type that was asked for. MIG instances of it serve who asks for a part."""
    return any(_is_type(request.type, gpu.type) for gpu in present if request.shares or not gpu.slice_of)


def exact_only(request: Request) -> Request:
    """The same request without substitutes."""
    return replace(request, exact=True)


def describe(gpus: Iterable[Gpu]) -> str:
    """ "2 x RTX 4090 (24 GB)": what a machine has, in words."""
    counts: dict[tuple[str, int, bool], int] = {}
    for gpu in gpus:
        key = (gpu.name or gpu.type, gpu.memory, bool(gpu.fault))
        counts[key] = counts.get(key, 0) + 1
    words = [
        f"{f'{n} x ' if n > 1 else ''}{name} ({memory / 1024:.0f} GB{', out of service' if broken else ''})"
        for (name, memory, broken), n in counts.items()
    ]
    return ", ".join(words)


def _whole(request: Request, free: Collection[Gpu]) -> tuple[str, ...]:
    """Whole GPUs, all of one type: the very type first, then the smallest that is large enough.

    A T4 request should not take the only H100 when an L4 is there.
    """
    groups: dict[str, list[Gpu]] = {}
    for gpu in free:
        if not gpu.slice_of and _suits(request, gpu):
            groups.setdefault(gpu.type, []).append(gpu)
    enough = [group for group in groups.values() if len(group) >= request.count]
    if not enough:
        return ()
    best = min(enough, key=lambda group: (not _is_type(request.type, group[0].type), group[0].memory))
    return tuple(gpu.uuid for gpu in best_linked(best, request.count))


def _suits(request: Request, gpu: Gpu) -> bool:
    if request.type == ANY or _is_type(request.type, gpu.type):
        return True
    return not request.exact and gpu.memory >= KNOWN.get(request.type, math.inf) * 1024 * _ROOM


def _part(request: Request, free: Collection[Gpu], shared: Collection[Used]) -> tuple[str, ...]:
    """A MIG instance that is large enough, else a part of a GPU that is shared already, else of a free one.

    Each time the tightest fit, so that whole GPUs stay whole.
    """
    slices = [gpu for gpu in free if gpu.slice_of and _slice_serves(request, gpu)]
    if slices:
        return (min(slices, key=lambda gpu: gpu.memory).uuid,)
    best: tuple[int, Grant] | None = None
    for used in shared:
        grant = _grant(request, used.gpu)
        left = used.gpu.memory - used.memory
        if grant is None or used.gpu.fault or grant.memory > left or grant.percent + used.percent > 100:
            continue
        if best is None or left < best[0]:
            best = left, grant
    if best is None:
        for gpu in free:
            grant = _grant(request, gpu)
            if grant is not None and grant.memory <= gpu.memory and (best is None or gpu.memory < best[0]):
                best = gpu.memory, grant
    return (str(best[1]),) if best is not None else ()


def _slice_serves(request: Request, gpu: Gpu) -> bool:
    if request.memory:
        return gpu.memory >= request.memory and (_kind_suits(request, gpu) or not request.exact)
    if _kind_suits(request, gpu):
        return gpu.memory >= gpu.whole * request.percent / 100 * _ROOM
    return not request.exact and gpu.memory >= (_promised(request) or math.inf) * _ROOM


def _grant(request: Request, gpu: Gpu) -> Grant | None:
    """The part of this GPU that a request stands for. None: not of this one.

    Who asks for memory shares the processors with the others; who asks for a half gets half of them. Of a larger GPU
    than the one that was named, a part is as large as it would have been there.
    """
    if gpu.slice_of:
        return None
    if request.memory:
        return Grant(gpu.uuid, request.memory) if _kind_suits(request, gpu) or not request.exact else None
    if _kind_suits(request, gpu):
        return Grant(gpu.uuid, max(1, gpu.memory * request.percent // 100), request.percent)
    memory = int(_promised(request) * _ROOM)
    if request.exact or not memory or memory > gpu.memory:
        return None
    return Grant(gpu.uuid, memory, max(1, -(-100 * memory // gpu.memory)))


def _kind_suits(request: Request, gpu: Gpu) -> bool:
    return request.type == ANY or _is_type(request.type, gpu.type)


def _promised(request: Request) -> float:
    """MiB of a part of the named GPU; 0 for one that only a machine here knows."""
    return KNOWN.get(request.type, 0) * 1024 * request.percent / 100


@functools.lru_cache(maxsize=4096)
def _is_type(name: str, kind: str) -> bool:
    """ "A100" is any A100, of whatever size. An "RTX-4070" is no "RTX-4070-TI"."""
    kind = kind.upper().replace(" ", "-")
    return kind == name or (kind.startswith(f"{name}-") and re.fullmatch(r"\d+GB", kind[len(name) + 1 :]) is not None)
