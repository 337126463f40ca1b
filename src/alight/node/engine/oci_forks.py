"""Forks of templates as containers, by the OCI engine: the agent's half. See ``forks.Forks`` for what is promised.

The spawner keeps the processes (``node/spawner_forks.py``); this writes the bundles, knows which forks wait in which
shapes, and hands a waiting one to the container that takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alight.node.engine.base import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alight.node.engine.base import ContainerPlan, ContainerState
    from alight.node.engine.oci import OciEngine


class OciForks:
    """See ``forks.Forks``."""

    def __init__(self, engine: OciEngine) -> None:
        self._engine = engine

    async def open_template(self, plan: ContainerPlan, image: str) -> ContainerState:
        raise EngineError("This engine makes no templates yet")

    async def arm(self, template_id: str) -> str:
        raise EngineError("This engine makes no templates yet")

    async def park(self, template_id: str, plan: ContainerPlan) -> None:
        raise EngineError("This engine makes no templates yet")

    async def start_fork(self, template_id: str, plan: ContainerPlan) -> ContainerState:
        raise EngineError("This engine makes no templates yet")

    def parked(self, template_id: str) -> Mapping[str, int]:
        return {}

    async def unpark(self, template_id: str, shape: str, keep: int = 0) -> None:
        """Nothing waits yet."""

    async def close_template(self, template_id: str) -> None:
        """Nothing is open yet."""
