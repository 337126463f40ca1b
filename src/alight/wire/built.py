"""What is asked and said of images that are on machines: image.work from clients, ``node.images`` to machines."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from alight.wire.record import dataclass, field
from alight.wire.spec import ImageSpec


@dataclass(frozen=True)
class ImageWork:
    """``verb`` is list, show, log, lock, remove, prune, export, missing, import, names or unname. ``image`` is an id
    (im-…) or the beginning of a digest; for unname it is "environment/name:tag".

    prune removes what was not used for ``older_than`` seconds, then the least recently used until ``most_bytes`` are
    left. ``keep`` are ids that somebody needs: the server fills it in. ``dry_run`` removes nothing. lock says what each
    step of an image brought; the server fills in its ``recipe``, and the ``python_version`` that it is built with.

    export answers with the manifest of an image as the first body, then the files of its layers, in its order, one
    after another. missing says which of ``layers`` (digests of contents) are not there, in ``log``. import is followed
    by the manifest that ``image`` is the digest of as the first body, then the files of those layers of it that
    ``layers`` names, in its order; ``image_id`` is what the server calls it.
    """

    verb: str
    image: str = ""
    older_than: Optional[float] = None
    most_bytes: Optional[int] = None
    keep: Tuple[str, ...] = ()
    caches: bool = False
    dry_run: bool = False
    recipe: Optional[ImageSpec] = None
    python_version: str = ""
    layers: Tuple[str, ...] = ()
    image_id: str = ""


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
class Installed:
    """What is installed: lines that install the same again, by kind (pip, apt, conda), and more that a lock holds."""

    what: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageName:
    """A name of an image."""

    environment: str
    name: str
    tag: str
    image_id: str
    named_at: float


@dataclass(frozen=True)
class ImageWorked:
    """The answer to every verb. ``images`` are those listed, shown or removed; ``freed`` in bytes.

    ``installed``: for show, all that is in the image (one entry); for lock, what each step of its recipe brought.
    """

    images: Tuple[BuiltImageInfo, ...] = ()
    log: Tuple[str, ...] = ()
    freed: int = 0
    installed: Tuple[Installed, ...] = ()
    names: Tuple[ImageName, ...] = ()
