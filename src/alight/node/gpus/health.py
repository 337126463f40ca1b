"""What is wrong with GPUs, by what NVIDIA's driver says: asked now and then, and heard when it happens.

What was wrong once stays so until the node starts again, or somebody says that it was looked at: a GPU that lost memory
or fell off its bus is nothing to start work on before. Errors of programs (a wild pointer in a kernel) are no fault of
a GPU.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from alight.wire.commands import GpuInfo

log = logging.getLogger(__name__)

#: XID events that a program causes and a new process does not meet, or that only report what was repaired.
_HARMLESS = frozenset({13, 31, 32, 43, 45, 63, 68, 92, 94, 109})
_XIDS = {
    48: "memory with an error that could not be corrected",
    62: "its controller has stopped",
    64: "bad memory could not be replaced",
    74: "an error of NVLink",
    79: "it has fallen off the bus",
    95: "memory with an error that could not be contained",
    119: "its firmware does not answer",
    120: "an error of its firmware",
    140: "memory with an error that could not be corrected",
}
_WAIT = 1000  # ms between looks at whether somebody wants to stop


class Health:
    """Of the GPUs of one machine. ``look`` and the listening thread add to what is wrong; nothing is taken away."""

    def __init__(self, opened: Callable[[], AbstractContextManager[Any]], gpus: tuple[GpuInfo, ...]) -> None:
        self._opened = opened
        self._gpus = gpus
        self._wrong: dict[str, str] = {}
        self._before: dict[str, int] = {}  # ECC errors that were there already
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self) -> Mapping[str, str]:
        """Ask the driver now; by uuid, those that are well are left out."""
        if self._gpus:
            with self._opened() as nvml:
                if nvml is not None:
                    for gpu in self._gpus:
                        self._look_at(nvml, gpu)
        return dict(self._wrong)

    def forget(self, uuid: str) -> None:
        """Of this GPU, and of all MIG instances that are of the same."""
        whole = next((gpu.parent or gpu.uuid for gpu in self._gpus if gpu.uuid == uuid), uuid)
        self._before.pop(whole, None)
        for gpu in self._gpus:
            if whole in {gpu.uuid, gpu.parent}:
                self._wrong.pop(gpu.uuid, None)

    def listen(self) -> None:
        """Hear of XID events in a thread, for the driver's library waits for them."""
        if self._gpus and self._thread is None:
            self._thread = threading.Thread(target=self._hear, name="gpu-health", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop listening, within about a second."""
        self._stop.set()

    def _look_at(self, nvml: Any, gpu: GpuInfo) -> None:
        whole = gpu.parent or gpu.uuid
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(whole)
            nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError as error:
            if error.value in {nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_NOT_FOUND}:
                self._note(whole, f"it is lost ({error})")
            return  # any other answer may be another one in a moment
        with contextlib.suppress(nvml.NVMLError):
            kind, counter = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            count = int(nvml.nvmlDeviceGetTotalEccErrors(handle, kind, counter))
            if count > self._before.setdefault(whole, count):
                self._note(whole, f"{count - self._before[whole]} ECC errors that could not be corrected")
        with contextlib.suppress(nvml.NVMLError):
            if nvml.nvmlDeviceGetRemappedRows(handle)[3]:
                self._note(whole, "bad memory could not be replaced")

    def _hear(self) -> None:
        try:
            with self._opened() as nvml:
                if nvml is not None:
                    self._hear_by(nvml)
        except Exception:  # the node goes on without: what is asked for is asked for still
            log.exception("events of the GPUs are not heard any more")

    def _hear_by(self, nvml: Any) -> None:
        events = nvml.nvmlEventSetCreate()
        try:
            for uuid in {gpu.parent or gpu.uuid for gpu in self._gpus}:
                with contextlib.suppress(nvml.NVMLError):  # not one that tells
                    handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
                    nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
            while not self._stop.is_set():
                try:
                    event = nvml.nvmlEventSetWait_v2(events, _WAIT)
                except nvml.NVMLError as error:
                    if error.value == nvml.NVML_ERROR_TIMEOUT:
                        continue
                    self._stop.wait(_WAIT / 1000)
                    continue
                self._on_xid(nvml, event.device, int(event.eventData))
        finally:
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlEventSetFree(events)

    def _on_xid(self, nvml: Any, device: Any, xid: int) -> None:
        try:
            uuid = nvml.nvmlDeviceGetUUID(device)
            whole = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
        except nvml.NVMLError:
            return  # it is lost, and does not say which it was; ``look`` finds it
        if xid in _HARMLESS:
            log.info("XID %d of %s: an error of a program, and none of the GPU", xid, whole)
            return
        self._note(whole, f"XID {xid}: {_XIDS.get(xid, 'the driver reports an error')}")

    def _note(self, whole: str, what: str) -> None:
        for gpu in self._gpus:
            if whole in {gpu.uuid, gpu.parent} and gpu.uuid not in self._wrong:
                log.error("%s (%s) is out of service: %s", gpu.name, gpu.uuid, what)
                self._wrong[gpu.uuid] = what
