"""What can be asked of registries, and what comes of it. The work is ``bring``'s, loaded when somebody asks: HTTP, TLS
and signatures are a tenth of a second at the start of a node that may never ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from alight.builder import layers
from alight.builder.registry.manifest import Config
from alight.builder.registry.reference import Reference
from alight.builder.registry.settings import Registries, Way


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


async def pull(
    wanted: Wanted, store: layers.LayerStore, registries: Registries, way: Way, note: Callable[[str], None]
) -> Pulled:
    """Bring what is missing of an image into the store. A cancelled pull leaves nothing but whole layers.

    Raises: ImageBuildError that names the host and what to set.
    """
    from alight.builder.registry import bring  # noqa: PLC0415  see above

    return await bring.bring(wanted, store, registries, way, note)
