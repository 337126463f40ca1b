"""What a provider of GPUs must tell, and the lock that keeps two nodes of one machine from handing out the same one."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from alight.node.engine.base import Bind
from alight.wire import errors
from alight.wire.commands import GpuInfo
from alight.wire.gpus import Grant, grant

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

    def live_memory(self) -> Mapping[str, int]:
        """MiB by uuid that processes hold which are alive, whosever they are; as far as it can be known."""
        ...

    def health(self) -> Mapping[str, str]:
        """What is wrong with GPUs, by uuid; those without anything are left out. What was wrong once, stays so."""
        ...

    def forget(self, uuid: str) -> None:
        """Somebody has looked at this GPU: what was wrong until now does not count any more."""
        ...

    def watch(self) -> None:
        """Listen for what the driver says of GPUs by itself, until ``close``."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


@dataclass
class _Held:
    """The lock of one GPU, and which containers have what of it."""

    fd: int
    holders: dict[str, Grant] = field(default_factory=dict)


class GpuLocks:
    """The GPUs that this node's containers hold, each by a lock that all nodes of the machine respect.

    A lock is the kernel's, so that it ends with the process that holds it; the agent takes the locks of adopted
    containers again when it starts. Parts of one GPU are held by several containers of one node, and never by those of
    two: nobody could say how much is left.
    """

    def __init__(self, folder: Path = LOCKS) -> None:
        self._folder = folder
        self._held: dict[str, _Held] = {}

    def take(self, container_id: str, gpus: tuple[str, ...], memory: Mapping[str, int] = MappingProxyType({})) -> None:
        """Take all or none. ``memory``: MiB of GPUs. Raises ConflictError naming the GPU that somebody else holds."""
        taken: list[str] = []
        try:
            for text in gpus:
                one = grant(text)
                held = self._held.get(one.uuid)
                if held is not None and container_id in held.holders:
                    continue
                self._take(container_id, one, memory.get(one.uuid, 0))
                taken.append(one.uuid)
        except errors.Error:
            for uuid in taken:
                self._drop(container_id, uuid)
            raise

    def release(self, container_id: str) -> tuple[str, ...]:
        """The container is gone. Returns the GPUs that nobody holds any more."""
        mine = [uuid for uuid, held in self._held.items() if container_id in held.holders]
        return tuple(uuid for uuid in mine if self._drop(container_id, uuid))

    def held(self, uuid: str) -> bool:
        """Whether a container of this node has any of it."""
        return uuid in self._held

    def _take(self, container_id: str, one: Grant, memory: int) -> None:
        held = self._held.get(one.uuid)
        if held is None:
            held = self._held[one.uuid] = _Held(self._lock(one.uuid))
        else:
            _check_room(one, held.holders, memory)
        held.holders[container_id] = one

    def _lock(self, uuid: str) -> int:
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
        return fd

    def _drop(self, container_id: str, uuid: str) -> bool:
        held = self._held[uuid]
        held.holders.pop(container_id, None)
        if held.holders:
            return False
        del self._held[uuid]
        os.close(held.fd)
        return True


def _check_room(one: Grant, holders: Mapping[str, Grant], memory: int) -> None:
    whole = next((name for name, other in holders.items() if not other.is_share), "")
    if whole or not one.is_share:
        raise errors.ConflictError(f"the GPU {one.uuid} is in use by the container {whole or next(iter(holders))}")
    taken = sum(other.memory for other in holders.values())
    if memory and taken + one.memory > memory:
        raise errors.ConflictError(
            f"the GPU {one.uuid} has {memory} MiB, of which {taken} are held by {len(holders)} containers"
        )
    if one.percent + sum(other.percent for other in holders.values()) > 100:
        raise errors.ConflictError(f"the containers that share the GPU {one.uuid} hold all of its processors")
