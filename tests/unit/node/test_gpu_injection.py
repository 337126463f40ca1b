"""What a container gets for its GPUs, from trees that look as NVIDIA's driver and toolkit leave them."""

from __future__ import annotations

import textwrap

import pytest

from alight.node.gpus import cdi, inject
from alight.wire import errors
from alight.wire.commands import GpuInfo

LIBRARIES = "/usr/local/nvidia/lib64"


def _gpu(index: int, uuid: str) -> GpuInfo:
    return GpuInfo(index, "NVIDIA L4", "L4", 23034, uuid)


#: As `nvidia-ctk cdi generate` writes it, with fewer libraries and hooks.
TOOLKIT = """
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-modeset
  - path: /dev/nvidia-uvm
  - path: /dev/nvidia-uvm-tools
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so
    env:
    - NVIDIA_CTK_DEBUG=false
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /run/nvidia-persistenced/socket
    hostPath: /run/nvidia-persistenced/socket
    options:
    - ro
    - nosuid
    - nodev
    - bind
    - noexec
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15
    options: [ro, nosuid, nodev, bind]
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/bin/nvidia-smi
    options:
    - ro
    - bind
  - containerPath: /lib/firmware/nvidia/550.54.15/gsp_ga10x.bin
    hostPath: /lib/firmware/nvidia/550.54.15/gsp_ga10x.bin
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/dri/card1
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
  name: GPU-b
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia2
    - path: /dev/nvidia-caps/nvidia-cap84
  name: "5:1"
kind: nvidia.com/gpu
""".replace("options: [ro, nosuid, nodev, bind]", "options:\n    - ro\n    - bind")


def _described(root, spec=TOOLKIT, name="var/run/cdi/nvidia.yaml"):
    """A machine with the toolkit's description, and what it describes."""
    path = root / name
    path.parent.mkdir(parents=True)
    path.write_text(textwrap.dedent(spec))
    _devices(root, *(f"nvidia{n}" for n in range(3)), "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap84")
    libraries = root / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    (libraries / "libcuda.so.550.54.15").touch()
    (libraries / "libcuda.so.1").symlink_to("libcuda.so.550.54.15")
    (libraries / "libcuda.so").symlink_to("libcuda.so.1")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/nvidia-smi").touch()


def _devices(root, *names):
    for name in names:
        path = root / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_toolkit_s_description_is_followed(tmp_path):
    """Without its hooks: ``libcuda.so.1``, which programs open, is a link that one of them would make."""
    _described(tmp_path)
    found = inject.injection((_gpu(0, "GPU-a"), _gpu(1, "GPU-b")), tmp_path)
    # What only a screen needs is left out where it is missing, and is no reason to fail.
    assert found.devices == ("/dev/nvidia-uvm", "/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1")
    assert {(bind.source, bind.target) for bind in found.binds} == {
        ("/usr/bin/nvidia-smi", "/usr/bin/nvidia-smi"),
        *(
            ("/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15", f"{LIBRARIES}/{name}")
            for name in ("libcuda.so", "libcuda.so.1", "libcuda.so.550.54.15")
        ),
    }
    assert all(bind.readonly for bind in found.binds)
    assert found.env["LD_LIBRARY_PATH"] == LIBRARIES
    assert found.env["NVIDIA_VISIBLE_DEVICES"] == "GPU-a,GPU-b", "its void is for another program"
    assert found.env["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_description_of_a_driver_that_was_replaced_is_not_followed(tmp_path, monkeypatch):
    _described(tmp_path)
    (tmp_path / "usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15").rename(tmp_path / "libcuda.so.570")
    assert cdi.stale(tmp_path) == "/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15"
    monkeypatch.setattr(inject, "_linker_cache", lambda: [("libcuda.so.1", "/lib/libcuda.so.570")])
    found = inject.injection((_gpu(1, "GPU-b"),), tmp_path)
    assert ("/lib/libcuda.so.570", f"{LIBRARIES}/libcuda.so.1") in [(bind.source, bind.target) for bind in found.binds]


def test_a_description_that_does_not_know_a_gpu_is_not_followed(tmp_path):
    _described(tmp_path)
    assert cdi.edits(cdi.specs(tmp_path), [("GPU-x", "9")], LIBRARIES, tmp_path) is None
    assert cdi.stale(tmp_path) == ""


@pytest.mark.parametrize("text", ["a: &x 1", "a:\n\t- b", "- a: 1\n   b: 2\n c: 3", "a: |\n  b", "just words"])
def test_yaml_that_the_toolkit_does_not_write_is_left_alone(tmp_path, text):
    with pytest.raises(ValueError, match=r"\w"):
        cdi.read_yaml(text)
    (tmp_path / "etc/cdi").mkdir(parents=True)
    (tmp_path / "etc/cdi/nvidia.yaml").write_text(text)
    assert cdi.specs(tmp_path) == []


def test_yaml_as_the_toolkit_indents_it():
    text = "a: \"0\"\nb:\n- c\n- d: 1\n  e:\n    - \"x: y\"\n    - z\nf:\n  g: 'it''s'\n  h: []\nlast: null\n"
    assert cdi.read_yaml(text) == {
        "a": "0",
        "b": ["c", {"d": "1", "e": ["x: y", "z"]}],
        "f": {"g": "it's", "h": []},
        "last": None,
    }


def _driver_tree(root, *devices):
    """What NVIDIA's driver shows of a GPU that is cut into MIG instances, as far as it is read."""
    _devices(root, *devices)
    info = root / "proc/driver/nvidia/gpus/0000:01:00.0/information"
    info.parent.mkdir(parents=True)
    info.write_text("Model: NVIDIA H100\nGPU UUID: GPU-h\nDevice Minor: 2\n")
    for name, minor in (("gi9/access", 84), ("gi9/ci0/access", 85), ("gi2/access", 21)):
        path = root / "proc/driver/nvidia/capabilities/gpu2/mig" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"DeviceFileMinor: {minor}\nDeviceFileMode: 292\nDeviceFileModify: 1\n")


def test_a_mig_instance_comes_with_its_own_device_files_and_no_other(tmp_path, monkeypatch):
    _driver_tree(tmp_path, "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap84", "nvidia-caps/nvidia-cap85")
    monkeypatch.setattr(inject, "_linker_cache", lambda: [("libcuda.so.1", "/lib/libcuda.so.550")])
    parent = GpuInfo(5, "NVIDIA H100", "H100", 81559, "GPU-h")
    one = GpuInfo(5, "NVIDIA H100 MIG 1g.10gb", "H100", 9984, "MIG-1", mig="1g.10gb", parent="GPU-h")
    found = inject.injection((one,), tmp_path, {"MIG-1": inject.Slice(parent, 9, 0, 1)})
    assert found.devices == (
        "/dev/nvidia2",
        "/dev/nvidia-caps/nvidia-cap84",
        "/dev/nvidia-caps/nvidia-cap85",
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
    )
    assert found.env["CUDA_VISIBLE_DEVICES"] == found.env["NVIDIA_VISIBLE_DEVICES"] == "MIG-1"
    with pytest.raises(errors.ServiceError, match="which device file a MIG instance of GPU 2 has"):
        inject.injection((one,), tmp_path, {"MIG-1": inject.Slice(parent, 2, 0, 0)})
    (tmp_path / "dev/nvidia-caps/nvidia-cap85").unlink()
    with pytest.raises(errors.ServiceError, match="nvidia-cap85 of a GPU is missing"):
        inject.injection((one,), tmp_path, {"MIG-1": inject.Slice(parent, 9, 0, 1)})


def test_a_description_knows_mig_instances_by_the_numbers_of_both(tmp_path):
    _described(tmp_path)
    parent = GpuInfo(5, "NVIDIA H100", "H100", 81559, "GPU-h")
    one = GpuInfo(5, "NVIDIA H100 MIG 1g.10gb", "H100", 9984, "MIG-1", mig="1g.10gb", parent="GPU-h")
    found = inject.injection((one,), tmp_path, {"MIG-1": inject.Slice(parent, 9, 0, 1)})
    assert found.devices[-2:] == ("/dev/nvidia2", "/dev/nvidia-caps/nvidia-cap84")


def test_without_the_device_that_cuda_starts_with_nothing_is_given(tmp_path, monkeypatch):
    """The module behind it is loaded by whoever asks first after a boot, which may be nobody."""
    _devices(tmp_path, "nvidia0", "nvidiactl")
    monkeypatch.setattr(inject, "_linker_cache", lambda: [("libcuda.so.1", "/lib/libcuda.so.550")])
    with pytest.raises(errors.ServiceError, match="nvidia-uvm of a GPU is missing") as caught:
        inject.injection((_gpu(0, "GPU-a"),), tmp_path)
    assert "nvidia-modprobe -u" in caught.value.hint


def test_linux_inside_windows_has_one_device_and_windows_driver(tmp_path):
    _devices(tmp_path, "dxg")
    with pytest.raises(errors.ServiceError, match="/usr/lib/wsl/lib is not there"):
        inject.injection((_gpu(0, "GPU-a"),), tmp_path)
    for name in ("lib", "drivers"):
        (tmp_path / "usr/lib/wsl" / name).mkdir(parents=True)
    (tmp_path / "usr/lib/wsl/lib/nvidia-smi").touch()
    found = inject.injection((_gpu(1, "GPU-b"),), tmp_path)
    assert found.devices == ("/dev/dxg",)
    assert [bind.target for bind in found.binds] == ["/usr/lib/wsl/lib", "/usr/lib/wsl/drivers", "/usr/bin/nvidia-smi"]
    assert found.env["LD_LIBRARY_PATH"] == "/usr/lib/wsl/lib"
    assert found.env["CUDA_VISIBLE_DEVICES"] == "GPU-b", "numbers would count all of the machine's"


def test_without_one_devices_and_libraries_are_found(tmp_path, monkeypatch):
    _devices(tmp_path, "nvidia3", "nvidiactl", "nvidia-uvm")
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/nvidia-smi").touch()
    info = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0/information"
    info.parent.mkdir(parents=True)
    info.write_text("Model: NVIDIA L4\nGPU UUID: GPU-a\nDevice Minor: 3\n")
    cache = [("libcuda.so.1", "/lib/libcuda.so.550"), ("libm.so.6", "/lib/libm.so.6"), ("libcuda.so.1", "/other")]
    monkeypatch.setattr(inject, "_linker_cache", lambda: cache)
    found = inject.injection((_gpu(0, "GPU-a"),), tmp_path)
    assert found.devices == ("/dev/nvidia3", "/dev/nvidiactl", "/dev/nvidia-uvm")
    assert ("/lib/libcuda.so.550", "/usr/local/nvidia/lib64/libcuda.so.1") in [
        (bind.source, bind.target) for bind in found.binds
    ]
    assert ("/usr/bin/nvidia-smi", "/usr/bin/nvidia-smi") in [(bind.source, bind.target) for bind in found.binds]
    assert "libm.so.6" not in str(found.binds)
    assert found.env["NVIDIA_VISIBLE_DEVICES"] == "GPU-a"
    assert found.env["CUDA_VISIBLE_DEVICES"] == "0"
    monkeypatch.setattr(inject, "_linker_cache", list)
    with pytest.raises(errors.ServiceError, match="libcuda"):
        inject.injection((_gpu(0, "GPU-a"),), tmp_path)
