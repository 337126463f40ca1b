"""The volumes of one container: held while it runs, what it wrote committed when it has ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from alight.node.volumes import Volumes
from alight.wire import errors
from alight.wire.spec import VolumeMount

log = logging.getLogger(__name__)


class HeldVolumes:
    """Holding and releasing are done once each, however often they are asked for."""

    def __init__(self, volumes: Volumes, mounts: Iterable[VolumeMount]) -> None:
        self._volumes = volumes
        writes: dict[str, bool] = {}
        for one in mounts:
            writes[one.volume_id] = writes.get(one.volume_id, False) or not one.read_only
        self._wanted = writes
        self._held: dict[str, bool] = {}

    def hold(self, container_id: str) -> None:
        """The container is about to be made. Raises NotFoundError for a volume that was deleted meanwhile."""
        for volume, writes in self._wanted.items():
            if volume not in self._held:
                self._volumes.hold(volume, container_id, writes=writes)
                self._held[volume] = writes

    async def release(self, container_id: str) -> None:
        """It has ended."""
        held, self._held = self._held, {}
        for volume, writes in held.items():
            if writes:
                try:
                    await self._volumes.commit_by(volume, "exit", container_id)
                except (errors.Error, OSError) as error:
                    log.warning("the volume %s was not synced after %s: %s", volume, container_id, error)
            self._volumes.release(volume, container_id, writes=writes)
