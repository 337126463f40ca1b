"""The seam between the agent and an engine that can fork containers from templates (decision 0012). No I/O here.

A template is started as a container (its id begins with ``TEMPLATE``) and says on its link when it is ready. Policy,
that is which templates there are and how many forks wait, is the agent's (``node/templates.py``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from alight.node.engine.base import ContainerPlan, ContainerState

TEMPLATE = "tp"
SHELL = "sh"


class Forks(Protocol):
    """What an engine offers beyond ``Engine``. Every method may raise ``EngineError``; nothing is left then."""

    async def open_template(self, plan: ContainerPlan, image: str) -> ContainerState:
        """Start a template. Those of one (``plan.owner``, ``image``) share an outer process."""
        ...

    async def arm(self, template_id: str) -> str:
        """The template is ready: freeze its files. The directory of what it wrote, for ``own_layers`` of forks'
        plans."""
        ...

    async def park(self, template_id: str, plan: ContainerPlan) -> None:
        """Make a shell (``plan.id`` begins with ``SHELL``) with a fork that waits in it, for a plan of the same
        shape."""
        ...

    async def start_fork(
        self, template_id: str, plan: ContainerPlan, link: socket.socket | None = None
    ) -> ContainerState:
        """Like ``Engine.start``, by a parked fork of this shape or a new one. ``link``: a connection that its runtime
        gets; the caller closes it."""
        ...

    def parked(self, template_id: str) -> Mapping[str, int]:
        """How many forks wait, by shape."""
        ...

    async def unpark(self, template_id: str, shape: str, keep: int = 0) -> None:
        """End forks that wait, but ``keep`` of them."""
        ...

    async def close_template(self, template_id: str) -> None:
        """End it and the forks that wait. Containers made from it live on. Idempotent."""
        ...


def shape(plan: ContainerPlan, directory: str) -> str:
    """Plans of one shape can take each other's parked forks: everything but the id, the command and what a fork is
    told when it wakes. ``directory`` is the container's own."""
    plain = asdict(plan)
    for told in ("id", "argv", "env", "cwd", "upper"):
        del plain[told]
    text = json.dumps(plain, sort_keys=True, default=str).replace(json.dumps(directory)[1:-1], "@")
    return hashlib.sha256(text.encode()).hexdigest()[:32]
