"""Hands this machine's GPUs to containers: who holds what, how parts are shared, and which are out of service.

A GPU is given to the next container once the processes of the last one are gone and their memory on it is free. One
that the driver reports as broken is given to nobody until the node starts again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alight.node.gpus.base import GpuLocks, GpuProvider, Injection
from alight.node.gpus.mps import Mps
from alight.wire import errors
from alight.wire.commands import GpuInfo, Report
from alight.wire.gpus import Grant, grant
from alight.wire.record import replace

log = logging.getLogger(__name__)

MPS, TIME = "mps", "time"
_HEALTH_EVERY, _MEMORY_EVERY = 5.0, 0.5  # seconds
#: MiB that may be left of a container: what a driver keeps to itself comes and goes.
_SLACK = 256
_LONG = 60.0  # seconds after which memory that is not given back is worth a line in the log


def sharing(environ: Mapping[str, str]) -> str:
    """From ``ALIGHT_GPU_SHARING``: how parts of one GPU are kept apart where no MIG instance serves."""
    said = environ.get("ALIGHT_GPU_SHARING", MPS).strip().lower() or MPS
    if said not in {MPS, TIME}:
        raise errors.InvalidError(f"ALIGHT_GPU_SHARING={said!r} is neither mps nor time", hint="mps is the default")
    return said


@dataclass
class _Left:
    """Memory that a container left behind. ``since`` is of the loop's clock."""

    mib: int
    since: float
    said: bool = False


@dataclass(frozen=True)
class Given:
    """What a container gets, and what to say of it: a sentence for each GPU that it does not have for itself."""

    injection: Injection = field(default_factory=Injection)
    notes: tuple[str, ...] = ()


class GpuDesk:
    """One for each node. ``tell`` says a report to the server, or drops it when there is no connection: the next hello
    has the same in it."""

    def __init__(
        self, provider: GpuProvider, locks: GpuLocks, mps: Mps | None, folder: Path, tell: Callable[[Report], None]
    ) -> None:
        self._provider = provider
        self._locks = locks
        self._mps = mps
        self._file = folder / "gpus.json"
        self._tell = tell
        self._gpus = {gpu.uuid: gpu for gpu in provider.gpus()}
        self._wrong: dict[str, str] = {}
        self._left: dict[str, _Left] = {}
        self._baseline: dict[str, int] = self._read()
        self._restoring: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Say which there are, for `alight doctor`."""
        self._write()

    def described(self) -> tuple[GpuInfo, ...]:
        """All of this machine, with what is wrong with them."""
        return tuple(replace(gpu, fault=self._fault(gpu.uuid)) for gpu in self._gpus.values())

    async def take(self, container_id: str, owner: str, gpus: tuple[str, ...]) -> Given:
        """Take what a container was promised. Raises ConflictError when somebody holds it, ServiceError when the
        driver's files are missing; the caller releases it in both cases."""
        if not gpus:
            return Given()
        grants = [grant(text) for text in gpus]
        fresh = [one.uuid for one in grants if not self._locks.held(one.uuid)]
        self._locks.take(container_id, gpus, {uuid: gpu.memory for uuid, gpu in self._gpus.items()})
        for one in grants:
            wrong = self._fault(one.uuid)
            if wrong:
                raise errors.ServiceError(f"the GPU {one.uuid} is out of service: {wrong}")
        return await asyncio.to_thread(self._prepare, container_id, owner, grants, fresh)

    def adopt(self, container_id: str, owner: str, gpus: tuple[str, ...]) -> None:
        """A container that an earlier agent started holds these. Raises ConflictError."""
        self._locks.take(container_id, gpus, {uuid: gpu.memory for uuid, gpu in self._gpus.items()})
        for text in gpus:
            one = grant(text)
            if one.is_share and self._mps is not None:
                self._mps.adopt(container_id, owner, one)

    async def release(self, container_id: str) -> None:
        """All processes of a container are gone, or there were none. Whose memory is not free yet is out of service
        before anybody hears of the container's end."""
        freed = self._locks.release(container_id)
        if self._mps is not None:
            await asyncio.to_thread(self._mps.leave, container_id)
        if freed:
            await self._look_at_memory(freed)

    async def run(self) -> None:
        """Look after health and memory until cancelled."""
        if not self._gpus:
            return
        self.begin()
        if self._mps is not None:
            await asyncio.to_thread(self._mps.end, unused=True)
        self._provider.watch()
        loop = asyncio.get_running_loop()
        due = 0.0
        try:
            while True:
                if self._left:
                    await self._look_at_memory(tuple(self._left))
                if loop.time() >= due:
                    due = loop.time() + _HEALTH_EVERY
                    self._note_health(await asyncio.to_thread(self._provider.health))
                await asyncio.sleep(_MEMORY_EVERY)
        finally:
            self._provider.close()

    def restore(self, uuid: str) -> None:
        """Somebody has looked at a GPU: it serves again, unless the driver says anew what is wrong with it."""
        self._restoring = asyncio.get_running_loop().create_task(self._restore(uuid))

    def health(self) -> Mapping[str, str]:
        """Why GPUs are out of service, by uuid."""
        return {uuid: self._fault(uuid) for uuid in self._gpus if self._fault(uuid)}

    def end(self) -> None:
        """The node ends with all its containers."""
        if self._mps is not None:
            self._mps.end()
        self._file.unlink(missing_ok=True)

    # in a thread

    def _prepare(self, container_id: str, owner: str, grants: list[Grant], fresh: list[str]) -> Given:
        used = self._provider.used_memory()
        self._baseline.update({uuid: used.get(uuid, 0) for uuid in fresh})
        self._write()
        injected = self._provider.inject(tuple(one.uuid for one in grants))
        notes = []
        for one in grants:
            gpu = self._gpus.get(one.uuid)
            if gpu is None:
                raise errors.ServiceError(f"this machine has no GPU {one.uuid}")
            if one.is_share:
                more, note = self._share(container_id, owner, one, gpu)
                injected = Injection(injected.devices, (*injected.binds, *more.binds), {**injected.env, **more.env})
                notes.append(note)
            elif gpu.mig:
                notes.append(f"{_called(gpu)} is a MIG instance: its memory and processors are its own")
        return Given(injected, tuple(notes))

    def _share(self, container_id: str, owner: str, one: Grant, gpu: GpuInfo) -> tuple[Injection, str]:
        part = f"{one.memory} MiB" + (f" and {one.percent} % of the processors" if one.percent else "")
        if gpu.fake:
            return Injection(), f"{part} of {_called(gpu)}: nothing is shared, for it is not there"
        why = "ALIGHT_GPU_SHARING=time"
        if self._mps is not None:
            found = self._mps.enter(container_id, owner, one)
            if isinstance(found, Injection):
                return found, (
                    f"{part} of {_called(gpu)}, shared through MPS: the limits hold for CUDA programs that leave them "
                    "as they are, a crash in one container can end the work of the others, and they have /dev/shm in "
                    "common"
                )
            why = found
        return Injection(), (
            f"{part} of {_called(gpu)}, shared by time slicing ({why}): nothing holds it to its part of memory and "
            "processors, and another container can use up the memory"
        )

    # what is wrong

    def _fault(self, uuid: str) -> str:
        left = self._left.get(uuid)
        if uuid in self._wrong or left is None:
            return self._wrong.get(uuid, "")
        return f"a container that has ended left {left.mib} MiB of its memory in use, which are waited for"

    def _note_health(self, found: Mapping[str, str]) -> None:
        new = {uuid: what for uuid, what in found.items() if uuid in self._gpus and uuid not in self._wrong}
        if new:
            self._wrong.update(new)
            for uuid, what in new.items():
                log.error("the GPU %s is out of service until the node starts again: %s", uuid, what)
            self._changed()

    async def _restore(self, uuid: str) -> None:
        self._provider.forget(uuid)
        found = await asyncio.to_thread(self._provider.health)
        for one in [one for one in self._wrong if one not in found]:
            log.info("the GPU %s is back in service", one)
            del self._wrong[one]
        self._left.pop(uuid, None)
        self._wrong.update({one: what for one, what in found.items() if one in self._gpus})
        self._changed()

    async def _look_at_memory(self, uuids: tuple[str, ...]) -> None:
        used, alive = await asyncio.to_thread(lambda: (self._provider.used_memory(), self._provider.live_memory()))
        now = asyncio.get_running_loop().time()
        before = {uuid: self._fault(uuid) for uuid in uuids}
        for uuid in uuids:
            mib = used.get(uuid, 0) - alive.get(uuid, 0) - self._baseline.get(uuid, 0)
            if mib <= _SLACK or self._locks.held(uuid):
                left = self._left.pop(uuid, None)
                if left is not None and left.said:
                    log.info("the memory of the GPU %s is free again", uuid)
                continue
            left = self._left.setdefault(uuid, _Left(mib, now))
            if left.mib - mib > _SLACK or mib > left.mib:
                left.mib = mib
            if now - left.since > _LONG and not left.said:
                left.said = True
                log.warning("%d MiB of the GPU %s are not given back: nvidia-smi --gpu-reset may free them", mib, uuid)
        if before != {uuid: self._fault(uuid) for uuid in uuids}:
            self._changed()

    def _changed(self) -> None:
        self._write()
        self._tell(Report("gpus", found=self.described()))

    def _read(self) -> dict[str, int]:
        try:
            return {str(uuid): int(mib) for uuid, mib in json.loads(self._file.read_bytes())["baseline"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _write(self) -> None:
        """For `alight doctor`, and for the next agent."""
        new = self._file.with_suffix(".new")
        try:
            fake = [gpu.type + (f" MIG {gpu.mig}" if gpu.mig else "") for gpu in self._gpus.values() if gpu.fake]
            new.write_text(json.dumps({"baseline": self._baseline, "out": dict(self.health()), "fake": fake}))
            new.replace(self._file)
        except OSError as error:
            log.warning("%s could not be written: %s", self._file, error)


def _called(gpu: GpuInfo) -> str:
    return f"GPU {gpu.index} ({gpu.name})"
