"""Which GPUs a request may have.

A request is "TYPE[:count]". The exact type wins wherever a machine has it, free or not; where none has it, any GPU with
at least as much memory does, unless the name ends in "!". Scripts name cloud GPUs that their reader may not own, so
the table knows the memory of those names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from alight.scheduler.state import Gpu
from alight.wire import errors

ANY = "ANY"
#: GB, as the names say it. NVML reports a little less (ECC, reserved), which ``_ROOM`` allows for.
KNOWN = {
    "T4": 16,
    "L4": 24,
    "A10": 24,
    "A10G": 24,
    "L40S": 48,
    "A100": 40,
    "A100-40GB": 40,
    "A100-80GB": 80,
    "RTX-PRO-6000": 96,
    "H100": 80,
    "H200": 141,
    "B200": 180,
    "B300": 288,
}
_SPELLINGS = {"B200+": "B200", "H100-80GB": "H100", "A100-SXM4-40GB": "A100-40GB", "A100-SXM4-80GB": "A100-80GB"}
_ROOM = 0.9


@dataclass(frozen=True, slots=True)
class Request:
    """One choice: ``count`` GPUs of ``type`` (or at least as large, unless ``exact``)."""

    type: str
    count: int
    exact: bool


def parse(text: str, present: Iterable[Gpu]) -> Request:
    """Read "TYPE[!][:count]". Raises InvalidError for a name that neither the table nor a machine here knows."""
    here = list(present)
    name, _, number = text.partition(":")
    name = name.strip().upper().replace(" ", "-")
    if number and not (number.strip().isdigit() and int(number) >= 1):
        raise errors.InvalidError(f"gpu={text!r}: {number!r} is not a number of GPUs", hint='write e.g. gpu="A100:2"')
    exact = name.endswith("!")
    name = _SPELLINGS.get(name.rstrip("!"), name.rstrip("!"))
    if name != ANY and name not in KNOWN and not any(_is_type(name, gpu) for gpu in here):
        names = ", ".join(dict.fromkeys(gpu.type for gpu in here))
        mine = f"the machines here have {names}" if names else "the machines here have no GPU"
        raise errors.InvalidError(
            f"gpu={text!r}: there is no such GPU",
            hint=f'known names are {", ".join(KNOWN)} and "any"; {mine}',
        )
    return Request(name, int(number) if number else 1, exact)


def first_exact(request: Request, free: Iterable[Gpu]) -> tuple[str, ...]:
    """As many as asked for of the very type, as they come; fewer when there are fewer. The quick way of ``fits``."""
    found: list[str] = []
    name, count = request.type, request.count
    for gpu in free:
        if gpu.type == name or _is_type(name, gpu):
            found.append(gpu.uuid)
            if len(found) == count:
                break
    return tuple(found)


def fits(request: Request, present: Iterable[Gpu]) -> tuple[str, ...]:
    """Of the GPUs of one machine, the uuids that may serve a request, best first. Empty when none does.

    ``present`` is all of the cluster's that matter for the rule "exact if there is one": see ``place``.
    """
    return tuple(gpu.uuid for gpu in _suitable(request, list(present)))


def has_exact(request: Request, present: Iterable[Gpu]) -> bool:
    """Whether one of these is the very type that was asked for."""
    return any(_is_type(request.type, gpu) for gpu in present)


def exact_only(request: Request) -> Request:
    """The same request without substitutes."""
    return Request(request.type, request.count, exact=True)


def memory_gb(request: Request) -> int:
    """GB that a type promises; 0 for one that only a machine here knows."""
    return KNOWN.get(request.type, 0)


def describe(gpus: Iterable[Gpu]) -> str:
    """ "2 x RTX 4090 (24 GB)": what a machine has, in words."""
    counts: dict[tuple[str, int], int] = {}
    for gpu in gpus:
        key = (gpu.name or gpu.type, gpu.memory)
        counts[key] = counts.get(key, 0) + 1
    words = [f"{f'{n} x ' if n > 1 else ''}{name} ({memory / 1024:.0f} GB)" for (name, memory), n in counts.items()]
    return ", ".join(words)


def _suitable(request: Request, present: list[Gpu]) -> list[Gpu]:
    if request.type == ANY:
        return sorted(present, key=lambda gpu: gpu.memory)
    same = [gpu for gpu in present if _is_type(request.type, gpu)]
    if same or request.exact:
        return same
    least = KNOWN.get(request.type, 0) * 1024 * _ROOM
    # The smallest that is large enough: a T4 request should not take the only H100 when an L4 is there.
    return sorted((gpu for gpu in present if least and gpu.memory >= least), key=lambda gpu: gpu.memory)


def _is_type(name: str, gpu: Gpu) -> bool:
    kind = gpu.type.upper().replace(" ", "-")
    return kind == name or kind.startswith(f"{name}-")
