"""What a machine with a GPU that cannot be used is told: a sentence for each way in which a driver can be missing."""

from __future__ import annotations

import os

import pytest

from alight.node import doctor
from alight.node.gpus import trouble
from alight.node.gpus.desk import GpuDesk
from alight.node.gpus.fake import FakeGpus

RELEASE = "6.1.0-30-amd64"


def _card(root, vendor="0x10de", driver=""):
    place = root / "sys/bus/pci/devices/0000:01:00.0"
    place.mkdir(parents=True)
    (place / "vendor").write_text(f"{vendor}\n")
    (place / "class").write_text("0x030200\n")
    if driver:
        (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True)
        (place / "driver").symlink_to(root / "sys/bus/pci/drivers" / driver)


def _modules(root, release=RELEASE):
    folder = root / "lib/modules" / release
    folder.mkdir(parents=True)
    (folder / "modules.dep").write_text("updates/dkms/nvidia.ko.xz: kernel/drivers/i2c/i2c-core.ko\n")


def _loaded(root):
    folder = root / "proc/driver/nvidia"
    folder.mkdir(parents=True)
    (folder / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n")


def _secure(root, value):
    folder = root / "sys/firmware/efi/efivars"
    folder.mkdir(parents=True)
    (folder / "SecureBoot-8be4df61").write_bytes(b"\6\0\0\0" + value)


def test_a_machine_without_a_card_has_no_trouble(tmp_path):
    assert trouble.find(trouble.NOT_LOADED, tmp_path, RELEASE) == trouble.Trouble()
    _card(tmp_path, vendor="0x8086")
    assert trouble.find(trouble.NOT_LOADED, tmp_path, RELEASE) == trouble.Trouble()


@pytest.mark.parametrize(
    ("made", "said", "fix"),
    [
        (lambda root: _card(root, "0x1002"), "NVIDIA's alone", ""),
        (lambda root: _card(root, driver="vfio-pci"), "kept for virtual machines", ""),
        (_card, "driver is not installed", "apt-get install nvidia-driver"),
        (lambda root: _card(root, driver="nouveau"), "nouveau drives: CUDA cannot use that", "nvidia-driver"),
        (lambda root: (_card(root, driver="nouveau"), _modules(root)), "nouveau has the card: reboot", ""),
        (lambda root: (_card(root), _modules(root, "5.10")), f"not for the kernel that runs ({RELEASE})", "dkms"),
        (lambda root: (_card(root), _modules(root)), "installed and not loaded", "modprobe nvidia"),
        (lambda root: (_card(root), _modules(root), _secure(root, b"\0")), "not loaded", "modprobe nvidia"),
        (lambda root: (_card(root), _modules(root), _secure(root, b"\1")), "Secure Boot is on", ""),
    ],
)
def test_why_a_driver_is_not_loaded(tmp_path, made, said, fix):
    made(tmp_path)
    found = trouble.find(trouble.NOT_LOADED, tmp_path, RELEASE)
    assert said in found.sentence
    assert fix in " ".join(found.fix)
    assert bool(fix) == bool(found.fix)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (trouble.MISMATCH, "550.54.15 is loaded, and its libraries are of another version"),
        (trouble.NO_LIBRARY, "libnvidia-ml.so.1 is not there"),
        (trouble.NO_PACKAGE, "nvidia-ml-py is missing"),
        (trouble.NO_PERMISSION, "may not open /dev/nvidiactl"),
        (999, "NVML error 999"),
    ],
)
def test_why_a_loaded_driver_does_not_answer(tmp_path, answer, said):
    _loaded(tmp_path)
    assert trouble.find(0, tmp_path) == trouble.Trouble()
    assert said in trouble.find(answer, tmp_path).sentence


def test_who_may_open_the_device_is_said(tmp_path):
    _loaded(tmp_path)
    (tmp_path / "dev").mkdir()
    device = tmp_path / "dev/nvidiactl"
    device.touch(mode=0o660)
    if device.stat().st_gid == 0:
        try:
            os.chown(device, -1, 44)  # Debian's group video
        except OSError:
            pytest.skip("files cannot be given to a group here")
    device.chmod(0o660)
    found = trouble.find(trouble.NO_PERMISSION, tmp_path)
    assert found.fix[0].startswith("sudo usermod -aG ")


def test_linux_inside_windows_is_told_where_the_driver_belongs(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/dxg").touch()
    assert trouble.find(0, tmp_path) == trouble.Trouble()
    assert "install it in Windows" in trouble.find(trouble.NO_LIBRARY, tmp_path).sentence
    (tmp_path / "usr/lib/wsl/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/wsl/lib/libnvidia-ml.so.1").touch()
    assert "does not answer" in trouble.find(trouble.NOT_LOADED, tmp_path).sentence


def test_doctor_tells_pretended_gpus_from_none(tmp_path):
    (tmp_path / "run").mkdir()
    if doctor.NvmlGpus().gpus() or "none: functions" not in doctor._gpus(tmp_path).sentence:
        pytest.skip("this machine has GPUs")
    GpuDesk(FakeGpus("A100-80GB:2,T4"), None, None, tmp_path / "run", print).begin()
    assert "2 A100-80GB, 1 T4" in doctor._gpus(tmp_path).sentence
    assert "pretended" in doctor._gpus(tmp_path).sentence
