"""What can be asked of registries, and what comes of it. The work is ``bring``'s, loaded when somebody asks: HTTP, TLS
and signatures are a tenth of a second at the start of a node that may never ask.
"""

from __future__ import annotations

from collections.abc import Callable

from alight.builder import layers
from alight.builder.registry.settings import Registries, Way
from alight.builder.registry.wanted import Pulled as Pulled  # noqa: PLC0414  who asks reads both from here
from alight.builder.registry.wanted import Wanted as Wanted  # noqa: PLC0414


async def pull(
    wanted: Wanted, store: layers.LayerStore, registries: Registries, way: Way, note: Callable[[str], None]
) -> Pulled:
    """Bring what is missing of an image into the store. A cancelled pull leaves nothing but whole layers.

    Raises: ImageBuildError that names the host and what to set.
    """
    from alight.builder.registry import bring  # noqa: PLC0415  see above

    return await bring.bring(wanted, store, registries, way, note)
