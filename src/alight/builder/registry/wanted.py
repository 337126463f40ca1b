"""What is asked of a registry, and what it brought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alight.builder.registry.manifest import Config
from alight.builder.registry.reference import Reference


@dataclass(frozen=True)
class Wanted:
    """What to pull, and as whom. ``secret`` are a Secret's values; ``auth`` is "aws", "gcp" or ""."""

    reference: Reference
    machine: str
    secret: Mapping[str, str]
    auth: str = ""


@dataclass(frozen=True)
class Pulled:
    """``digest`` names what the tag meant on that day; ``layers`` are ids of the store, topmost first."""

    digest: str
    layers: tuple[str, ...]
    config: Config
