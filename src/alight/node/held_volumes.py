"""The volumes that one container may write to: held while it runs, written to the disk when it has ended."""

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
        self._ids = [one.volume_id for one in mounts if not one.read_only]
        self._held = False

    def hold(self) -> None:
        """The container is about to run."""
        if not self._held:
            self._held = True
            for volume in self._ids:
                self._volumes.hold(volume)

    async def release(self, container_id: str) -> None:
        """It has ended."""
        if not self._held:
            return
        self._held = False
        for volume in self._ids:
            try:
                await self._volumes.sync(volume)
            except (errors.Error, OSError) as error:
                log.warning("the volume %s was not synced after %s: %s", volume, container_id, error)
            self._volumes.release(volume)
