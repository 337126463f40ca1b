"""Why a machine that seems to have a GPU has none that containers can use, and what would help. Reads files only."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

#: Of NVML, and one of ours: the Python package that asks it is missing.
NO_PERMISSION, NOT_LOADED, NO_LIBRARY, MISMATCH, NO_PACKAGE = 4, 9, 12, 18, -1
_NVIDIA, _AMD = "0x10de", "0x1002"
_SCREENS = ("0x0300", "0x0302", "0x0380")  # PCI classes of cards that draw or compute


@dataclass(frozen=True)
class Trouble:
    """A sentence, and shell commands that would help; empty where none does."""

    sentence: str = ""
    fix: tuple[str, ...] = ()


def find(nvml: int, root: Path = Path("/"), release: str | None = None) -> Trouble:
    """What keeps this machine's GPUs from being used. ``nvml``: how its library answered, 0 for well. ``root`` and
    ``release`` (of the kernel) are for tests. Nothing is wrong with a machine that has no GPU."""
    if (root / "dev/dxg").exists():
        return _of_windows(nvml, root)
    if (root / "proc/driver/nvidia/version").exists():
        return _of_loaded(nvml, root)
    drivers = _cards(root, _NVIDIA)
    if not drivers:
        if _cards(root, _AMD):
            return Trouble("there is a GPU of AMD, and containers here can use NVIDIA's alone")
        return Trouble()
    if set(drivers) == {"vfio-pci"}:
        return Trouble("the NVIDIA card is kept for virtual machines (vfio-pci has it), so containers cannot use it")
    return _of_unloaded("nouveau" in drivers, root, release or os.uname().release)


def _of_windows(nvml: int, root: Path) -> Trouble:
    if nvml == 0:
        return Trouble()
    if not (root / "usr/lib/wsl/lib/libnvidia-ml.so.1").exists():
        return Trouble(
            "this is Linux inside Windows, and NVIDIA's driver is not there: install it in Windows, not here"
        )
    return Trouble(f"this is Linux inside Windows, and NVIDIA's driver there does not answer (NVML error {nvml})")


def _of_loaded(nvml: int, root: Path) -> Trouble:
    version = ""
    with contextlib.suppress(OSError):
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", (root / "proc/driver/nvidia/version").read_text())
        version = f" {found[0]}" if found else ""
    loaded = f"the NVIDIA driver{version} is loaded"
    if nvml == 0:
        return Trouble()
    if nvml == NO_PACKAGE:
        return Trouble(f"{loaded}, and Python's nvidia-ml-py is missing", ("pip install nvidia-ml-py",))
    if nvml == MISMATCH:
        return Trouble(f"{loaded}, and its libraries are of another version, as after an update: reboot this machine")
    if nvml == NO_LIBRARY:
        return Trouble(
            f"{loaded}, and its library libnvidia-ml.so.1 is not there (Debian: libnvidia-ml1 and libcuda1; "
            "Ubuntu: libnvidia-compute-… of the same version)"
        )
    if nvml == NO_PERMISSION:
        return _not_allowed(loaded, root)
    return Trouble(f"{loaded}, and does not answer (NVML error {nvml}): `sudo dmesg | grep -i nvrm` may say why")


def _not_allowed(loaded: str, root: Path) -> Trouble:
    import grp  # noqa: PLC0415  Linux only, and seldom
    import pwd  # noqa: PLC0415

    sentence, group = f"{loaded}, and this user may not open /dev/nvidiactl", ""
    with contextlib.suppress(OSError, KeyError):
        found = (root / "dev/nvidiactl").stat()
        group = grp.getgrgid(found.st_gid).gr_name if found.st_gid and found.st_mode & 0o060 else ""
        user = pwd.getpwuid(os.geteuid()).pw_name
    if not group:
        return Trouble(sentence)
    return Trouble(
        f"{sentence}, which the group {group} may; log in again afterwards", (f"sudo usermod -aG {group} {user}",)
    )


def _of_unloaded(nouveau: bool, root: Path, release: str) -> Trouble:
    modules = root / "lib/modules"
    if not _has_module(modules / release):
        if any(_has_module(one) for one in modules.glob("*")):
            return Trouble(
                f"the NVIDIA driver is installed, and not for the kernel that runs ({release})",
                (f"sudo apt-get install linux-headers-{release}", "sudo dkms autoinstall", "sudo modprobe nvidia"),
            )
        by = ", which nouveau drives: CUDA cannot use that" if nouveau else ""
        return Trouble(
            f"there is an NVIDIA card{by}, and NVIDIA's driver is not installed; reboot afterwards",
            ("sudo apt-get install nvidia-driver",),
        )
    if nouveau:
        return Trouble(
            "the NVIDIA driver is installed, and nouveau has the card: reboot this machine; if it has it then, too, "
            "write `blacklist nouveau` into /etc/modprobe.d/nouveau.conf and run `sudo update-initramfs -u`"
        )
    if _secure_boot(root):
        return Trouble(
            "the NVIDIA driver is installed and not loaded, and Secure Boot is on, which takes only modules that are "
            "signed: enrol the key of the driver's modules (`sudo mokutil --import /var/lib/dkms/mok.pub`, then "
            "reboot), or turn Secure Boot off"
        )
    return Trouble("the NVIDIA driver is installed and not loaded", ("sudo modprobe nvidia",))


def _has_module(folder: Path) -> bool:
    try:
        return re.search(r"/nvidia(-current)?\.ko", (folder / "modules.dep").read_text()) is not None
    except OSError:
        return False


def _secure_boot(root: Path) -> bool:
    # Four bytes of attributes, then the value.
    with contextlib.suppress(OSError):
        return any(path.read_bytes()[4:5] == b"\1" for path in (root / "sys/firmware/efi/efivars").glob("SecureBoot-*"))
    return False


def _cards(root: Path, vendor: str) -> list[str]:
    """The kernel's drivers of the cards of a maker, "" for one that has none."""
    found = []
    for path in (root / "sys/bus/pci/devices").glob("*"):
        try:
            mine = (path / "vendor").read_text().strip() == vendor
            mine = mine and (path / "class").read_text().startswith(_SCREENS)
        except OSError:
            continue
        if mine:
            found.append((path / "driver").resolve().name if (path / "driver").exists() else "")
    return found
