"""What GPUs do: utilisation, memory, power, temperature, energy. NVIDIA's driver says; fake ones make numbers up."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alight.wire.commands import GpuInfo, GpuUse
from alight.wire.gpus import grant
from alight.wire.record import replace

_PERIOD = 40.0  # seconds of one wave of a fake GPU
_FAKE_WATTS = 100.0
_FIRST_SAMPLES = 10_000_000  # microseconds that the first look at processes is about


@dataclass(frozen=True)
class ProcessUse:
    """Of one GPU by one process: bytes, and from 0 to 1; None where the driver does not say."""

    memory: float
    utilization: float | None


class GpuMeter:
    """Asks about GPUs, in a thread: a driver may take its time. Keeps the driver's library open from the first use."""

    def __init__(self, gpus: Callable[[], Sequence[GpuInfo]] = tuple) -> None:
        self._gpus = gpus
        self._nvml: Any = None
        self._opened = False
        self._sampled: dict[str, int] = {}  # microseconds: processes were asked about until then
        self._lock = asyncio.Lock()
        self.until = 0.0  # somebody looks until then: everything is measured every second

    def is_fake(self, uuid: str) -> bool:
        """Whether a GPU's numbers are made up."""
        return any(gpu.fake and gpu.uuid == uuid for gpu in self._gpus())

    async def read_held(self, held: Sequence[str]) -> dict[str, GpuUse]:
        """Of what containers were given, by how it was named. Of a share of a GPU (``wire.gpus.Grant``) it is what the
        whole one does, but power and energy, of which it has as much as of the memory."""
        grants = {text: grant(text) for text in held}
        found = {one.uuid: one for one in await self.read({one.uuid for one in grants.values()})}
        sizes = {gpu.uuid: gpu.memory for gpu in self._gpus()}
        return {
            text: part_of(found[one.uuid], one.memory / sizes[one.uuid] if one.is_share else 1.0)
            for text, one in grants.items()
            if one.uuid in found
        }

    async def read(self, uuids: Collection[str] | None = None) -> tuple[GpuUse, ...]:
        """Of these, or of all."""
        wanted = [gpu for gpu in self._gpus() if uuids is None or gpu.uuid in uuids]
        if not wanted:
            return ()
        now = time.time()
        fakes = tuple(fake_use(gpu, now) for gpu in wanted if gpu.fake)
        real = [gpu.uuid for gpu in wanted if not gpu.fake]
        if not real:
            return fakes
        async with self._lock:  # the library is asked by one thread at a time
            return (*fakes, *await asyncio.to_thread(self._ask, real))

    async def by_process(self, uuids: Collection[str]) -> dict[str, dict[int, ProcessUse]]:
        """What each process does with these GPUs, by uuid and process id. A GPU whose driver does not say is left out,
        as are fake ones."""
        real = [gpu.uuid for gpu in self._gpus() if gpu.uuid in uuids and not gpu.fake]
        if not real:
            return {}
        async with self._lock:
            return await asyncio.to_thread(self._ask_processes, real)

    def _ask_processes(self, uuids: Sequence[str]) -> dict[str, dict[int, ProcessUse]]:
        nvml = self._library()
        if nvml is None:
            return {}
        now, found = int(time.time() * 1e6), {}
        for uuid in uuids:
            known = processes_of(nvml, uuid, self._sampled.get(uuid, now - _FIRST_SAMPLES))
            self._sampled[uuid] = now
            if known is not None:
                found[uuid] = known
        return found

    def _ask(self, uuids: Sequence[str]) -> tuple[GpuUse, ...]:
        nvml = self._library()
        return () if nvml is None else tuple(_use_of(nvml, uuid) for uuid in uuids)

    def _library(self) -> Any:
        if not self._opened:
            self._opened = True
            with contextlib.suppress(Exception):  # no package, no driver: whatever it raises, there is nothing to ask
                import pynvml  # noqa: PLC0415  only where a GPU is

                pynvml.nvmlInit()
                self._nvml = pynvml
        return self._nvml


def part_of(use: GpuUse, share: float) -> GpuUse:
    """What a holder of a part of it counts with. Pure."""
    if share >= 1.0:
        return use
    power = None if use.power is None else use.power * share
    return replace(use, power=power, joules=None if use.joules is None else use.joules * share)


def own_use(use: GpuUse, of: Mapping[int, ProcessUse], pids: Collection[int]) -> GpuUse:
    """What some processes do with a GPU that others have parts of, too. Pure."""
    mine = [of[pid] for pid in pids if pid in of]
    busy = [one.utilization for one in of.values()]
    known = None not in busy
    return replace(
        use,
        memory=sum(one.memory for one in mine),
        # Where the driver does not tell processes apart, it is that of the whole GPU.
        utilization=sum(one.utilization or 0.0 for one in mine) if known else use.utilization,
    )


def processes_of(nvml: Any, uuid: str, since: int) -> dict[int, ProcessUse] | None:
    """Memory of each process now, and how busy it kept the GPU since a moment (in microseconds). None where the driver
    does not know whose memory is whose."""
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        memory = {one.pid: one.usedGpuMemory for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    except nvml.NVMLError:
        return None
    if None in memory.values():
        return None
    samples: dict[int, list[float]] = {pid: [] for pid in memory}
    try:
        for one in nvml.nvmlDeviceGetProcessUtilization(handle, since):
            samples.setdefault(one.pid, []).append(one.smUtil / 100)
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_NOT_FOUND:  # that is: nobody did anything since
            return {pid: ProcessUse(float(held), None) for pid, held in memory.items()}
    return {pid: ProcessUse(float(held), sum(samples[pid]) / max(1, len(samples[pid]))) for pid, held in memory.items()}


def fake_use(gpu: GpuInfo, now: float) -> GpuUse:
    """Numbers of a GPU that is not there: a wave, so that graphs and limits can be tried. Pure."""
    wave = 0.5 + 0.4 * math.sin(2 * math.pi * now / _PERIOD + gpu.index)
    memory = gpu.memory * (1 << 20) * 0.25
    return GpuUse(gpu.uuid, wave, memory, _FAKE_WATTS * (0.5 + wave), 40.0 + 30 * wave, _FAKE_WATTS * now)


def _use_of(nvml: Any, uuid: str) -> GpuUse:
    def ask(question: Callable[[], Any]) -> Any:
        # What a card, a MIG instance or a virtual machine cannot say, it says by an error of its own.
        try:
            return question()
        except nvml.NVMLError:
            return None

    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError as error:
        return GpuUse(uuid, health=f"it does not answer: {error}")
    rates = ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    memory = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    power = ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    energy = ask(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    warm = ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    return GpuUse(
        uuid,
        None if rates is None else rates.gpu / 100,
        None if memory is None else float(memory.used),
        None if power is None else power / 1000,
        None if warm is None else float(warm),
        None if energy is None else energy / 1000,
    )
