"""The GPUs that NVIDIA's driver reports, through NVML. A machine without the driver has none, and nothing fails."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from alight.node.gpus import inject, trouble
from alight.node.gpus.base import Injection
from alight.node.gpus.health import Health
from alight.node.gpus.naming import short_name
from alight.wire.commands import GpuInfo
from alight.wire.record import replace

log = logging.getLogger(__name__)

#: What a machine with the driver has; the last is the one of Windows' Linux.
_SIGNS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg")
#: By NVML's words for the nearest thing that two GPUs have in common. NVLink, where there is any, counts more.
_NEAR = {"INTERNAL": 60, "SINGLE": 50, "MULTIPLE": 40, "HOSTBRIDGE": 30, "NODE": 20, "SYSTEM": 10}
_NVLINK = 100


class NvmlGpus:
    """Asked once: GPUs are not expected to come or go while a node runs, nor to be cut up anew.

    ``opened`` gives the bindings, initialised; None where there is no driver.
    """

    def __init__(self, opened: Callable[[], AbstractContextManager[Any]] | None = None) -> None:
        self._opened = opened or _nvml
        self._problem = ""
        self._slices: dict[str, inject.Slice] = {}
        self._gpus = self._find()
        self._health = Health(self._opened, self._gpus)

    def gpus(self) -> tuple[GpuInfo, ...]:
        return self._gpus

    def problem(self) -> str:
        return self._problem

    def inject(self, uuids: tuple[str, ...]) -> Injection:
        chosen = tuple(gpu for gpu in self._gpus if gpu.uuid in uuids)
        return inject.injection(chosen, slices=self._slices) if chosen else Injection()

    def used_memory(self) -> Mapping[str, int]:
        return self._of_each(lambda nvml, handle: int(nvml.nvmlDeviceGetMemoryInfo(handle).used) >> 20)

    def live_memory(self) -> Mapping[str, int]:
        return self._of_each(_alive)

    def health(self) -> Mapping[str, str]:
        return self._health.look()

    def forget(self, uuid: str) -> None:
        self._health.forget(uuid)

    def watch(self) -> None:
        self._health.listen()

    def close(self) -> None:
        self._health.close()

    def _of_each(self, ask: Callable[[Any, Any], int]) -> dict[str, int]:
        found: dict[str, int] = {}
        if not self._gpus:
            return found
        with self._opened() as nvml:
            if nvml is None:
                return found
            for gpu in self._gpus:
                with contextlib.suppress(nvml.NVMLError):
                    found[gpu.uuid] = ask(nvml, nvml.nvmlDeviceGetHandleByUUID(gpu.uuid))
        return found

    def _find(self) -> tuple[GpuInfo, ...]:
        with self._opened() as nvml:
            if nvml is None:
                self._problem = trouble.find(answer()).sentence
                if self._problem:
                    log.warning("%s", self._problem)
                return ()
            driver = ""
            with contextlib.suppress(nvml.NVMLError):
                driver = _text(nvml.nvmlSystemGetDriverVersion())
            found: list[GpuInfo] = []
            handles: dict[str, Any] = {}
            for index in range(nvml.nvmlDeviceGetCount()):
                try:
                    handle = nvml.nvmlDeviceGetHandleByIndex(index)
                    gpu = _describe(nvml, handle, index, driver)
                    slices = list(_instances(nvml, handle, gpu)) if _is_cut(nvml, handle) else None
                except nvml.NVMLError as error:
                    self._problem = f"GPU {index} does not answer: {error}"
                    log.warning("%s", self._problem)
                    continue
                if slices is None:
                    found.append(gpu)
                    handles[gpu.uuid] = handle
                    continue
                if not slices:
                    self._problem = f"GPU {index} is in MIG mode and has no instances: nobody can use it"
                    log.warning("%s", self._problem)
                for one, cut in slices:
                    found.append(one)
                    self._slices[one.uuid] = cut
            return tuple(replace(gpu, links=_links(nvml, gpu.uuid, handles)) for gpu in found)


def _describe(nvml: Any, handle: Any, index: int, driver: str) -> GpuInfo:
    name = _text(nvml.nvmlDeviceGetName(handle))
    memory = nvml.nvmlDeviceGetMemoryInfo(handle).total >> 20
    uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    return GpuInfo(index, name, short_name(name, memory), memory, uuid, driver=driver)


def _is_cut(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:
        return False  # not one that can be


def _instances(nvml: Any, handle: Any, gpu: GpuInfo) -> Iterator[tuple[GpuInfo, inject.Slice]]:
    """The MIG instances of a GPU. Those whose owner made none are not made here."""
    for at in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            one = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, at)
            uuid = _text(nvml.nvmlDeviceGetUUID(one))
            memory = nvml.nvmlDeviceGetMemoryInfo(one).total >> 20
            cut = inject.Slice(gpu, nvml.nvmlDeviceGetGpuInstanceId(one), nvml.nvmlDeviceGetComputeInstanceId(one), at)
            name = _text(nvml.nvmlDeviceGetName(one))
        except nvml.NVMLError:
            continue  # not made
        profile = name.rpartition("MIG ")[2] if "MIG " in name else f"{memory / 1024:.0f}gb"
        name = f"{gpu.name} MIG {profile}"
        found = replace(gpu, name=name, memory=memory, uuid=uuid, mig=profile, parent=gpu.uuid)
        yield replace(found, parent_memory=gpu.memory), cut


def _links(nvml: Any, uuid: str, handles: Mapping[str, Any]) -> dict[str, int]:
    """How well a GPU is linked with each other one. MIG instances are used alone."""
    found: dict[str, int] = {}
    if uuid not in handles or len(handles) < 2:
        return found
    near = {getattr(nvml, f"NVML_TOPOLOGY_{name}"): worth for name, worth in _NEAR.items()}
    for other, handle in handles.items():
        if other == uuid:
            continue
        worth = 0
        with contextlib.suppress(nvml.NVMLError):
            worth = near.get(nvml.nvmlDeviceGetTopologyCommonAncestor(handles[uuid], handle), 0)
        with contextlib.suppress(nvml.NVMLError):
            status = nvml.nvmlDeviceGetP2PStatus(handles[uuid], handle, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
            worth += _NVLINK if status == nvml.NVML_P2P_STATUS_OK else 0
        if worth:
            found[other] = worth
    return found


def _alive(nvml: Any, handle: Any) -> int:
    """MiB of processes that are there. What a driver holds for one that is gone is nobody's."""
    processes = {}
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        with contextlib.suppress(nvml.NVMLError):
            processes.update({one.pid: one.usedGpuMemory or 0 for one in ask(handle)})
    return sum(used for pid, used in processes.items() if Path(f"/proc/{pid}").exists()) >> 20


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


def answer() -> int:
    """How the driver's library answers: 0, or the number of its error (``trouble`` has names for some)."""
    if not any(Path(sign).exists() for sign in _SIGNS):
        return trouble.NOT_LOADED
    try:
        import pynvml  # noqa: PLC0415  not there on every platform
    except ImportError:
        return trouble.NO_PACKAGE
    try:
        pynvml.nvmlInit()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return int(error.value)
    return 0


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
