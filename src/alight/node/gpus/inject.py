"""Devices and driver libraries that a container needs for its GPUs.

When the machine has a CDI description (written by NVIDIA's toolkit) it is followed. When not, the driver's files are
found the way the dynamic linker finds them. Libraries are shown in a directory of their own that the loader searches,
so the image's files stay as they are.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from alight.node.engine.base import Bind
from alight.node.gpus import cdi
from alight.node.gpus.base import Injection
from alight.wire import errors
from alight.wire.commands import GpuInfo

LIBRARIES = "/usr/local/nvidia/lib64"
BINARIES = "/usr/bin"  # where scripts call nvidia-smi

#: The parts of the driver that user code loads. The toolkit (libcudart, libcudnn …) belongs to images.
_DRIVER_LIBRARIES = (
    "libcuda.so",
    "libcudadebugger.so",
    "libnvidia-ml.so",
    "libnvidia-ptxjitcompiler.so",
    "libnvidia-nvvm.so",
    "libnvidia-nvvm70.so",
    "libnvidia-gpucomp.so",
    "libnvidia-cfg.so",
    "libnvidia-opencl.so",
    "libnvidia-allocator.so",
    "libnvidia-pkcs11.so",
    "libnvidia-encode.so",
    "libnvidia-opticalflow.so",
    "libnvcuvid.so",
    # Drawing without a screen (EGL, Vulkan), and rays (OptiX)
    "libEGL_nvidia.so",
    "libGLX_nvidia.so",
    "libGLESv2_nvidia.so",
    "libnvidia-eglcore.so",
    "libnvidia-glcore.so",
    "libnvidia-glsi.so",
    "libnvidia-glvkspirv.so",
    "libnvidia-tls.so",
    "libnvidia-rtcore.so",
    "libnvoptix.so",
)
_DRIVER_BINARIES = ("nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control")
#: By these, loaders find the driver's part in drawing; OptiX reads its own.
_DRIVER_FILES = (
    "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
    "/usr/share/vulkan/icd.d/nvidia_icd.json",
    "/etc/vulkan/icd.d/nvidia_icd.json",
    "/usr/share/nvidia/nvoptix.bin",
)
_SHARED_DEVICES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")

#: Without these CUDA does not start. Others (of screens, of tools) may be missing.
_NEEDED = re.compile(r"/dev/nvidia(\d+|ctl|-uvm|-caps/nvidia-cap\d+)")
_WINDOWS_DEVICE = "/dev/dxg"
_WINDOWS_FOLDERS = ("/usr/lib/wsl/lib", "/usr/lib/wsl/drivers")

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
    if (root / _WINDOWS_DEVICE.lstrip("/")).exists() and not (root / "dev/nvidiactl").exists():
        return _of_windows(gpus, env, root)
    described = cdi.edits(cdi.specs(root), [_names(gpu, cut.get(gpu.uuid)) for gpu in gpus], LIBRARIES, root)
    if described is not None:
        return _followed(described, env, root)
    devices = _devices(gpus, root, cut)
    libraries = driver_libraries(_linker_cache())
    if not any(name.startswith("libcuda.so") for name in libraries):
        raise errors.ServiceError(
            "this machine's NVIDIA driver has no libcuda, so containers cannot use its GPUs",
            hint="install the driver's compute libraries (Debian: libcuda1; Ubuntu: libnvidia-compute-…)",
        )
    binds = [Bind(path, f"{LIBRARIES}/{name}") for name, path in sorted(libraries.items())]
    more = (*(f"{BINARIES}/{name}" for name in _DRIVER_BINARIES), *_DRIVER_FILES)
    binds += [Bind(path, path) for path in more if (root / path.lstrip("/")).exists()]
    return Injection(devices, tuple(binds), env)


def driver_libraries(cache: Iterable[tuple[str, str]]) -> dict[str, str]:
    """From the linker's (soname, path) pairs, those of the driver; the first of each name, as the linker takes it."""
    found: dict[str, str] = {}
    for name, path in cache:
        if any(name.startswith(prefix) for prefix in _DRIVER_LIBRARIES):
            found.setdefault(name, path)
    return found


def _followed(found: cdi.Edits, env: dict[str, str], root: Path) -> Injection:
    """What the machine's description says, with our own names for what is visible: it has "void" there, for a hook."""
    return Injection(_present(found.devices, root), found.binds, {**found.env, **env})


def _of_windows(gpus: tuple[GpuInfo, ...], env: dict[str, str], root: Path) -> Injection:
    """Linux inside Windows (WSL2): one device for all GPUs, and the driver is Windows' own."""
    folders = [folder for folder in _WINDOWS_FOLDERS if (root / folder.lstrip("/")).is_dir()]
    if not folders:
        raise errors.ServiceError(
            f"{_WINDOWS_FOLDERS[0]} is not there, so containers cannot use this machine's GPUs",
            hint="install NVIDIA's driver in Windows, then `wsl --shutdown`; none is installed inside WSL",
        )
    binds = [Bind(folder, folder) for folder in folders]
    smi = f"{_WINDOWS_FOLDERS[0]}/nvidia-smi"
    if (root / smi.lstrip("/")).exists():
        binds.append(Bind(smi, f"{BINARIES}/nvidia-smi"))
    # All are behind the one device: only their names keep them apart.
    names = ",".join(gpu.uuid for gpu in gpus)
    return Injection(
        (_WINDOWS_DEVICE,), tuple(binds), {**env, "CUDA_VISIBLE_DEVICES": names, "LD_LIBRARY_PATH": _WINDOWS_FOLDERS[0]}
    )


def _names(gpu: GpuInfo, cut: Slice | None) -> tuple[str, ...]:
    """What CDI may call it: the toolkit writes numbers, uuids or both."""
    return (gpu.uuid, str(gpu.index) if cut is None else f"{cut.parent.index}:{cut.index}")


def _devices(gpus: tuple[GpuInfo, ...], root: Path, cut: Mapping[str, Slice]) -> tuple[str, ...]:
    needed: list[str] = []
    for gpu in gpus:
        one = cut.get(gpu.uuid)
        minor = _minor(gpu if one is None else one.parent, root)
        needed.append(f"/dev/nvidia{minor}")
        if one is not None:
            needed += [f"/dev/nvidia-caps/nvidia-cap{number}" for number in _capabilities(one, minor, root)]
    return _present((*dict.fromkeys(needed), *_SHARED_DEVICES), root)


def _present(devices: Iterable[str], root: Path) -> tuple[str, ...]:
    """Those that there are. One that CUDA cannot do without is made if it is missing: after a boot, nothing may have
    asked for ``/dev/nvidia-uvm`` yet. Raises ServiceError."""

    def gone() -> list[str]:
        return [path for path in wanted if _NEEDED.fullmatch(path) and not (root / path.lstrip("/")).exists()]

    wanted = list(dict.fromkeys(devices))
    if gone() and root == Path("/"):
        _make_devices(gone())
    missing = gone()
    if missing:
        raise errors.ServiceError(
            f"the device file {missing[0]} of a GPU is missing on this machine",
            hint="`sudo nvidia-modprobe -u -c 0` makes it, and so does nvidia-smi as root; `alight doctor` looks again",
        )
    return tuple(path for path in wanted if (root / path.lstrip("/")).exists())


def _make_devices(missing: Iterable[str]) -> None:
    """Have the driver's own program load what is missing and make the files; it is silent where it cannot."""
    command = ["nvidia-modprobe", "-u"]
    for path in missing:
        number = re.fullmatch(r"/dev/nvidia(\d+)", path)
        command += ["-c", number[1]] if number else []
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # said by whoever needs the files
        subprocess.run(command, capture_output=True, check=False, timeout=30)


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
