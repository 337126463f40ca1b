"""What would make a start shorter, in one line each. Pure: says only what follows from the numbers of that start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_LONG = 0.5  # seconds of a stage that are worth a sentence
_WAIT = 1.0
_NETWORK = 0.1


@dataclass(frozen=True)
class Facts:
    """One start. ``stages`` in seconds; ``imports`` slowest first; ``snapshot``: the function asks for templates with
    its module in them; ``level`` of the template that it was forked from (0: none)."""

    stages: Mapping[str, float]
    level: int = 0
    imports: Sequence[tuple[str, float]] = ()
    refused: Sequence[str] = ()
    built: bool = False
    waited: str = ""
    snapshot: bool = False
    module: str = field(default="")
    """The user's own module: importing it is what the stage is, so it is not named as its cause."""


def remedies(facts: Facts) -> tuple[str, ...]:
    """Sentences, the one about the most seconds first. Empty: nothing took long, or nothing is known that helps."""
    found: list[tuple[float, str]] = []
    stages = facts.stages
    waited = stages.get("wait", 0.0)
    if waited >= _WAIT:
        found.append((waited, _waited(facts, waited)))
    image = stages.get("image", 0.0)
    if facts.built and image >= _LONG:
        found.append((image, f"the image was built now: {shown(image)}; the next start finds it"))
    loading = stages.get("import", 0.0)
    if loading >= _LONG:
        found += [(loading, one) for one in _import(facts, loading)]
    entering = stages.get("enter", 0.0)
    if entering >= _LONG and not facts.refused and facts.level < 2:
        # Whether the hooks that took long are of those with snap=True, a start without a template does not tell.
        what = "this start had no template yet; those with snap=True run once for the starts after it"
        if not facts.snapshot:
            what = "enable_memory_snapshot=True with @enter(snap=True) would run them once for many containers"
        found.append((entering, f"@enter hooks {shown(entering)}: {what}"))
    network = stages.get("network", 0.0)
    if network >= _NETWORK:
        found.append((network, f"network {shown(network)}: block_network=True saves it, if the function needs none"))
    if facts.refused and facts.snapshot and loading < _LONG:
        found += [(0.0, f"the template was refused: {one}") for one in facts.refused]
    found.sort(key=lambda one: one[0], reverse=True)
    return tuple(sentence for _, sentence in found)


def shown(seconds: float) -> str:
    """A duration as short as it is clear: "40 ms", "3.1 s", "41 s"."""
    if seconds < 0.0995:
        return f"{1e3 * seconds:.0f} ms" if seconds >= 0.00095 else f"{1e3 * seconds:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


def _waited(facts: Facts, seconds: float) -> str:
    if facts.waited:
        return f"waited {shown(seconds)} {facts.waited.removeprefix('waiting ')}"
    return f"waited {shown(seconds)} before a container was started for it"


def _import(facts: Facts, seconds: float) -> list[str]:
    """What to say of slow imports. That a template would help is said only where none was refused."""
    slow = [(name, took) for name, took in facts.imports if name != facts.module and took >= _LONG / 2]
    name, took = slow[0] if slow else ("", seconds)
    what = f"import {name} {shown(took)}" if name else f"import {shown(took)}"
    if facts.refused:
        return [f"{what}; the template was refused: {one}" for one in facts.refused]
    if facts.snapshot:
        return [] if facts.level >= 2 else [f"{what}: this start had no template yet; starts after it may be forked"]
    return [f"{what}: enable_memory_snapshot=True would save it"]
