"""NVIDIA's bindings as far as the node asks them, over GPUs that are plain data. Names and numbers are theirs."""

# ruff: noqa: N802  their names

from __future__ import annotations

import contextlib
import queue
from types import SimpleNamespace

import pynvml


class FakeNvml:
    """``gpus``: dicts with uuid, name, memory (MiB), and what a test sets: used, lost, ecc, remap, mig, processes."""

    def __init__(self, *gpus, nvlinks=(), near=()):
        self.gpus = list(gpus)
        self.nvlinks, self.near = nvlinks, dict(near)
        self.events = queue.Queue()

    def __getattr__(self, name):
        if name.startswith("NVML") or name == "nvmlEventTypeXidCriticalError":
            return getattr(pynvml, name)
        raise AttributeError(name)

    @contextlib.contextmanager
    def opened(self):
        yield self

    def _error(self, code):
        return pynvml.NVMLError(code)

    def nvmlSystemGetDriverVersion(self):
        return "550.54.15"

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        for gpu in self.gpus:
            for one in (gpu, *(one for one in gpu.get("mig", ()) if one)):
                if one["uuid"] == uuid:
                    if gpu.get("lost"):
                        raise self._error(pynvml.NVML_ERROR_GPU_IS_LOST)
                    return one
        raise self._error(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetName(self, gpu):
        return gpu["name"]

    def nvmlDeviceGetUUID(self, gpu):
        return gpu["uuid"]

    def nvmlDeviceGetMemoryInfo(self, gpu):
        return SimpleNamespace(total=gpu["memory"] << 20, used=gpu.get("used", 0) << 20)

    def nvmlDeviceGetMigMode(self, gpu):
        if "mig" not in gpu:
            raise self._error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu, at):
        if at >= len(gpu["mig"]) or gpu["mig"][at] is None:
            raise self._error(pynvml.NVML_ERROR_NOT_FOUND)
        return gpu["mig"][at]

    def nvmlDeviceGetGpuInstanceId(self, one):
        return one["gi"]

    def nvmlDeviceGetComputeInstanceId(self, one):
        return one["ci"]

    def nvmlDeviceGetTopologyCommonAncestor(self, one, other):
        pair = frozenset((one["uuid"], other["uuid"]))
        return self.near.get(pair, pynvml.NVML_TOPOLOGY_SYSTEM)

    def nvmlDeviceGetP2PStatus(self, one, other, kind):
        linked = frozenset((one["uuid"], other["uuid"])) in self.nvlinks
        return pynvml.NVML_P2P_STATUS_OK if linked else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED

    def nvmlDeviceGetTotalEccErrors(self, gpu, kind, counter):
        if "ecc" not in gpu:
            raise self._error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return gpu["ecc"]

    def nvmlDeviceGetRemappedRows(self, gpu):
        return (0, 0, 0, int(gpu.get("remap", False)))

    def nvmlDeviceGetComputeRunningProcesses(self, gpu):
        return [SimpleNamespace(pid=pid, usedGpuMemory=mib << 20) for pid, mib in gpu.get("processes", {}).items()]

    def nvmlDeviceGetProcessUtilization(self, gpu, since):
        if "busy" not in gpu:
            raise self._error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        samples = [one for one in gpu["busy"] if one[1] > since]
        if not samples:
            raise self._error(pynvml.NVML_ERROR_NOT_FOUND)
        return [SimpleNamespace(pid=pid, timeStamp=at, smUtil=util) for pid, at, util in samples]

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu):
        raise self._error(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlEventSetCreate(self):
        return "events"

    def nvmlDeviceRegisterEvents(self, handle, kind, events):
        """All are told of."""

    def nvmlEventSetWait_v2(self, events, wait):
        try:
            device, xid = self.events.get(timeout=0.02)
        except queue.Empty:
            raise self._error(pynvml.NVML_ERROR_TIMEOUT) from None
        return SimpleNamespace(device=device, eventData=xid)

    def nvmlEventSetFree(self, events):
        """Nothing to free."""
