"""What carrying inputs and answers needs of its container and its node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alight.node.blobs import Blobs
from alight.node.engine.base import Engine
from alight.node.logs import OutputTail
from alight.node.session import Session
from alight.wire.spec import FunctionSpec


@dataclass(frozen=True)
class Ends:
    """Of one container."""

    container_id: str
    folder: Path
    function: FunctionSpec
    engine: Engine
    session: Session
    blobs: Blobs
    tail: OutputTail
    watched: Callable[[], bool]
    give_up: Callable[[str], None]
    """End the container, for this reason."""
    rank: str = ""
    """Which of a cluster's containers it is, in words; "" for one that works alone."""
