"""The GPUs that NVIDIA's driver reports, through NVML. A machine without the driver has none, and nothing fails."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alight.node.gpus import inject
from alight.node.gpus.base import Injection
from alight.node.gpus.naming import short_name
from alight.wire.commands import GpuInfo

log = logging.getLogger(__name__)

#: What a machine with the driver has; the last is the one of Windows' Linux.
_SIGNS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg")


class NvmlGpus:
    """Asked once: GPUs are not expected to come or go while a node runs."""

    def __init__(self) -> None:
        self._problem = ""
        self._gpus = self._find()

    def gpus(self) -> tuple[GpuInfo, ...]:
        return self._gpus

    def problem(self) -> str:
        return self._problem

    def inject(self, uuids: tuple[str, ...]) -> Injection:
        chosen = tuple(gpu for gpu in self._gpus if gpu.uuid in uuids)
        return inject.injection(chosen) if chosen else Injection()

    def used_memory(self) -> Mapping[str, int]:
        if not self._gpus:
            return {}
        used: dict[str, int] = {}
        with _nvml() as nvml:
            if nvml is None:
                return {}
            for gpu in self._gpus:
                with contextlib.suppress(nvml.NVMLError):
                    handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
                    used[gpu.uuid] = nvml.nvmlDeviceGetMemoryInfo(handle).used >> 20
        return used

    def _find(self) -> tuple[GpuInfo, ...]:
        with _nvml() as nvml:
            if nvml is None:
                if Path("/proc/driver/nvidia").exists():
                    self._problem = "the NVIDIA driver is loaded, and its library libnvidia-ml does not answer"
                return ()
            found: list[GpuInfo] = []
            for index in range(nvml.nvmlDeviceGetCount()):
                try:
                    found.append(_describe(nvml, index))
                except nvml.NVMLError as error:
                    self._problem = f"GPU {index} does not answer: {error}"
                    log.warning("%s", self._problem)
            return tuple(found)


def _describe(nvml: Any, index: int) -> GpuInfo:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = _text(nvml.nvmlDeviceGetName(handle))
    memory = nvml.nvmlDeviceGetMemoryInfo(handle).total >> 20
    return GpuInfo(index, name, short_name(name, memory), memory, _text(nvml.nvmlDeviceGetUUID(handle)))


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """The bindings, initialised; None where the package or the driver's library is missing."""
    if not any(Path(sign).exists() for sign in _SIGNS):
        yield None  # without a driver the import alone would cost every start of a node
        return
    try:
        import pynvml  # noqa: PLC0415  not there on every platform
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
