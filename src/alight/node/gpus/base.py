"""What a provider of GPUs must tell, and the lock that keeps two nodes of one machine from handing out the same one."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from alight.node.engine.base import Bind
from alight.wire import errors
from alight.wire.commands import GpuInfo

LOCKS = Path("/run/lock")


@dataclass(frozen=True)
class Injection:
    """What a container needs to use its GPUs."""

    devices: tuple[str, ...] = ()
    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


class GpuProvider(Protocol):
    """Knows this machine's GPUs."""

    def gpus(self) -> tuple[GpuInfo, ...]:
        """All that can be handed out, in the driver's order. Empty when there are none, or no driver."""
        ...

    def problem(self) -> str:
        """Why ``gpus`` is empty on a machine that seems to have some; "" when nothing is wrong."""
        ...

    def inject(self, uuids: tuple[str, ...]) -> Injection:
        """What a container that gets these needs. Raises ServiceError when the driver's files are missing."""
        ...

    def used_memory(self) -> Mapping[str, int]:
        """MiB in use by uuid; empty when it cannot be known."""
        ...


class GpuLocks:
    """The GPUs that this node's containers hold, each by a lock that all nodes of the machine respect.

    A lock is the kernel's, so that it ends with the process that holds it; the agent takes the locks of adopted
    containers again when it starts.
    """

    def __init__(self, folder: Path = LOCKS) -> None:
        self._folder = folder
        self._held: dict[str, tuple[str, int]] = {}

    def take(self, container_id: str, uuids: tuple[str, ...]) -> None:
        """Take all or none. Raises ConflictError naming the GPU that somebody else holds."""
        taken: list[str] = []
        try:
            for uuid in uuids:
                self._take(container_id, uuid)
                taken.append(uuid)
        except errors.Error:
            for uuid in taken:
                self._drop(uuid)
            raise

    def release(self, container_id: str) -> None:
        """The container is gone."""
        for uuid in [uuid for uuid, (holder, _) in self._held.items() if holder == container_id]:
            self._drop(uuid)

    def _take(self, container_id: str, uuid: str) -> None:
        held = self._held.get(uuid)
        if held is not None:
            if held[0] == container_id:
                return
            raise errors.ConflictError(f"the GPU {uuid} is in use by the container {held[0]}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"alight-gpu-{re.sub('[^A-Za-z0-9-]', '_', uuid)}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise errors.ServiceError(f"the GPU {uuid} could not be locked: {error}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise errors.ConflictError(
                f"the GPU {uuid} is in use by another Alight node of this machine",
                hint="stop the other one, or let one node serve the machine",
            ) from None
        self._held[uuid] = (container_id, fd)

    def _drop(self, uuid: str) -> None:
        _, fd = self._held.pop(uuid)
        os.close(fd)
