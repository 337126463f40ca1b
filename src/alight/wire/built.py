"""What is asked and said of images that are on machines: image.work from clients, ``node.images`` to machines."""

from __future__ import annotations

from alight.wire.record import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Tuple
else:
    from typing import Optional, Tuple  # decoders look the fields' types up


@dataclass(frozen=True)
class ImageWork:
    """``verb`` is list, show, log, remove or prune. ``image`` is an id (im-…) or the beginning of a digest.

    prune removes what was not used for ``older_than`` seconds, then the least recently used until ``most_bytes`` are
    left. ``keep`` are ids that somebody needs: the server fills it in. ``dry_run`` removes nothing.
    """

    verb: str
    image: str = ""
    older_than: Optional[float] = None
    most_bytes: Optional[int] = None
    keep: Tuple[str, ...] = ()
    caches: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class BuiltLayer:
    """A layer of an image: the step that made it. ``shared`` counts the other images that stand on it."""

    layer: str
    title: str = ""
    bytes: int = 0
    seconds: float = 0.0
    made_at: float = 0.0
    shared: int = 0


@dataclass(frozen=True)
class BuiltImageInfo:
    """An image on a machine. ``own_bytes`` is what would be free without it. ``layers``: the topmost first."""

    digest: str
    ids: Tuple[str, ...] = ()
    node: str = ""
    python_version: str = ""
    base: str = ""
    title: str = ""
    made_at: float = 0.0
    used_at: float = 0.0
    in_use: bool = False
    bytes: int = 0
    own_bytes: int = 0
    layers: Tuple[BuiltLayer, ...] = ()


@dataclass(frozen=True)
class ImageWorked:
    """The answer to every verb. ``images`` are those listed, shown or removed; ``freed`` in bytes."""

    images: Tuple[BuiltImageInfo, ...] = ()
    log: Tuple[str, ...] = ()
    freed: int = 0
