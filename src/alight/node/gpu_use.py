"""What GPUs do: utilisation, memory, power, temperature, energy. NVIDIA's driver says; fake ones make numbers up."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from alight.wire.commands import GpuInfo, GpuUse
from alight.wire.gpus import grant
from alight.wire.record import replace

_PERIOD = 40.0  # seconds of one wave of a fake GPU
_FAKE_WATTS = 100.0


class GpuMeter:
    """Asks about GPUs, in a thread: a driver may take its time. Keeps the driver's library open from the first use."""

    def __init__(self, gpus: Callable[[], Sequence[GpuInfo]] = tuple) -> None:
        self._gpus = gpus
        self._nvml: Any = None
        self._opened = False
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
