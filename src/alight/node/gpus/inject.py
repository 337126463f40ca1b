"""Devices and driver libraries that a container needs for its GPUs.

When the machine has a CDI description (written by NVIDIA's toolkit) it is followed. When not, the driver's files are
found the way the dynamic linker finds them. Libraries are shown in a directory of their own that the loader searches,
so the image's files stay as they are.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alight.node.engine.base import Bind
from alight.node.gpus.base import Injection
from alight.wire import errors
from alight.wire.commands import GpuInfo

LIBRARIES = "/usr/local/nvidia/lib64"
BINARIES = "/usr/local/nvidia/bin"
_CDI_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))

#: The parts of the driver that user code loads. The toolkit (libcudart, libcudnn …) belongs to images.
_DRIVER_LIBRARIES = (
    "libcuda.so",
    "libcudadebugger.so",
    "libnvidia-ml.so",
    "libnvidia-ptxjitcompiler.so",
    "libnvidia-nvvm.so",
    "libnvidia-gpucomp.so",
    "libnvidia-cfg.so",
    "libnvidia-opencl.so",
    "libnvidia-allocator.so",
    "libnvidia-pkcs11.so",
    "libnvidia-encode.so",
    "libnvidia-opticalflow.so",
    "libnvcuvid.so",
)
_DRIVER_BINARIES = ("nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control")
_SHARED_DEVICES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")


#: What a container without a GPU starts with, whatever its image says: programs look for none.
NONE = {"NVIDIA_VISIBLE_DEVICES": "void", "CUDA_VISIBLE_DEVICES": ""}


@dataclass(frozen=True)
class Slice:
    """A MIG instance: of which GPU, and its numbers there. ``index`` among that one's instances."""

    parent: GpuInfo
    gpu_instance: int
    compute_instance: int
    index: int


def injection(
    gpus: tuple[GpuInfo, ...], root: Path = Path("/"), slices: Mapping[str, Slice] = MappingProxyType({})
) -> Injection:
    """What a container that gets ``gpus`` needs. ``root`` is for tests. Raises ServiceError."""
    cut = {gpu.uuid: slices[gpu.uuid] for gpu in gpus if gpu.uuid in slices}
    env = {
        "LD_LIBRARY_PATH": LIBRARIES,
        "NVIDIA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus),
        # The container sees only its own devices, numbered from 0 in this order. Programs read numbers where they can:
        # of a MIG instance there is none.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid if gpu.uuid in cut else str(n) for n, gpu in enumerate(gpus)),
    }
    described = from_cdi(_cdi_specs(root), gpus, cut)
    if described is not None:
        # It has "void" there, for the toolkit's own hook, which is not run.
        where = described.env.get("LD_LIBRARY_PATH", LIBRARIES)
        return Injection(described.devices, described.binds, {**described.env, **env, "LD_LIBRARY_PATH": where})
    devices = _devices(gpus, root, cut)
    libraries = driver_libraries(_linker_cache())
    if not any(name.startswith("libcuda.so") for name in libraries):
        raise errors.ServiceError(
            "this machine's NVIDIA driver has no libcuda, so containers cannot use its GPUs",
            hint="install the driver's compute libraries (Debian: libcuda1; Ubuntu: libnvidia-compute-…)",
        )
    binds = [Bind(path, f"{LIBRARIES}/{name}") for name, path in sorted(libraries.items())]
    for name in _DRIVER_BINARIES:
        path = Path("/usr/bin") / name
        if path.exists():
            binds.append(Bind(str(path), f"{BINARIES}/{name}"))
    return Injection(devices, tuple(binds), env)


def driver_libraries(cache: Iterable[tuple[str, str]]) -> dict[str, str]:
    """From the linker's (soname, path) pairs, those of the driver; the first of each name, as the linker takes it."""
    found: dict[str, str] = {}
    for name, path in cache:
        if any(name.startswith(prefix) for prefix in _DRIVER_LIBRARIES):
            found.setdefault(name, path)
    return found


def from_cdi(
    specs: Iterable[Mapping[str, Any]], gpus: tuple[GpuInfo, ...], cut: Mapping[str, Slice] = MappingProxyType({})
) -> Injection | None:
    """What a CDI description of nvidia.com/gpu says about these GPUs; None when it does not know all of them."""
    for spec in specs:
        if spec.get("kind") != "nvidia.com/gpu":
            continue
        known = {str(device.get("name")): device for device in spec.get("devices", ())}
        chosen = [known.get(gpu.uuid) or known.get(_cdi_name(gpu, cut.get(gpu.uuid))) for gpu in gpus]
        if not chosen or any(one is None for one in chosen):
            continue
        edits = [spec.get("containerEdits", {}), *(one.get("containerEdits", {}) for one in chosen if one)]
        devices = [node["path"] for edit in edits for node in edit.get("deviceNodes") or ()]
        binds = [
            Bind(mount["hostPath"], mount["containerPath"], "rw" not in (mount.get("options") or ()))
            for edit in edits
            for mount in edit.get("mounts") or ()
        ]
        # Its hooks run programs as root on the host to refresh the linker's cache; the search path does as well.
        folders = {str(Path(bind.target).parent) for bind in binds if ".so" in bind.target}
        env = dict(pair.split("=", 1) for edit in edits for pair in edit.get("env") or () if "=" in pair)
        if folders:
            env["LD_LIBRARY_PATH"] = ":".join(sorted(folders))
        return Injection(tuple(dict.fromkeys(devices)), tuple(dict.fromkeys(binds)), env)
    return None


def _cdi_name(gpu: GpuInfo, cut: Slice | None) -> str:
    return str(gpu.index) if cut is None else f"{cut.parent.index}:{cut.index}"


def _cdi_specs(root: Path) -> list[dict[str, Any]]:
    found = []
    for folder in _CDI_FOLDERS:
        for path in sorted((root / folder.relative_to("/")).glob("*.json")):
            try:
                found.append(json.loads(path.read_bytes()))
            except (OSError, ValueError):
                continue  # `doctor` speaks about it; the driver's own files do as well
    return found


def _devices(gpus: tuple[GpuInfo, ...], root: Path, cut: Mapping[str, Slice]) -> tuple[str, ...]:
    needed: list[str] = []
    for gpu in gpus:
        one = cut.get(gpu.uuid)
        minor = _minor(gpu if one is None else one.parent, root)
        needed.append(f"/dev/nvidia{minor}")
        if one is not None:
            needed += [f"/dev/nvidia-caps/nvidia-cap{number}" for number in _capabilities(one, minor, root)]
    needed = list(dict.fromkeys(needed))
    missing = [path for path in needed if not (root / path.lstrip("/")).exists()]
    if missing:
        raise errors.ServiceError(
            f"the device file {missing[0]} of a GPU is missing on this machine",
            hint="run nvidia-modprobe, or nvidia-smi as root",
        )
    return (*needed, *(path for path in _SHARED_DEVICES if (root / path.lstrip("/")).exists()))


def _capabilities(one: Slice, minor: int, root: Path) -> list[int]:
    """The numbers of the device files that let a container use this MIG instance, and no other."""
    folder = root / f"proc/driver/nvidia/capabilities/gpu{minor}/mig/gi{one.gpu_instance}"
    found = []
    for path in (folder / "access", folder / f"ci{one.compute_instance}" / "access"):
        try:
            lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
            found.append(int(lines["DeviceFileMinor"]))
        except (OSError, KeyError, ValueError) as error:
            raise errors.ServiceError(
                f"the driver does not say which device file a MIG instance of GPU {minor} has: {error}",
                hint="instances made with nvidia-smi mig -cgi … -C have one",
            ) from error
    return found


def _minor(gpu: GpuInfo, root: Path) -> int:
    """The number in the device file's name, which need not be the driver's index."""
    for path in (root / "proc/driver/nvidia/gpus").glob("*/information"):
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        if lines.get("GPU UUID", "").strip() == gpu.uuid:
            return int(lines.get("Device Minor", str(gpu.index)))
    return gpu.index


def _linker_cache() -> list[tuple[str, str]]:
    """(soname, real path) of every library of this machine's own word size."""
    try:
        listing = subprocess.run(
            ["ldconfig", "-p"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin", "LC_ALL": "C"},
        ).stdout
    except OSError:
        return []
    pairs = []
    for line in listing.splitlines():
        name, _, path = line.strip().partition(" => ")
        if path and ("x86-64" in name or "AArch64" in name):
            pairs.append((name.split(" ")[0], os.path.realpath(path)))
    return pairs
