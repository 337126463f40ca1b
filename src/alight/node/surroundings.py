"""What a container needs of the node that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alight.node.gangs import Gangs
from alight.node.gpu_use import GpuMeter
from alight.node.gpus import GpuDesk
from alight.node.keeper import Keeper
from alight.node.logs import Inotify
from alight.node.naming import Dns
from alight.node.prepare import Workshop
from alight.node.session import Session

if TYPE_CHECKING:
    from alight.node.container import Container


@dataclass(frozen=True)
class Surroundings:
    """What a container needs of the node it runs on."""

    shop: Workshop
    session: Session
    notices: Inotify
    dns: Dns
    gpus: GpuDesk
    gangs: Gangs
    keeper: Keeper
    """Starts containers, from templates where there are some."""
    watched: set[str]
    """Ids of the apps whose output somebody looks at."""
    forget: Callable[[Container], None]
    """The container is gone and acknowledged."""
    gpu_use: GpuMeter = field(default_factory=GpuMeter)
