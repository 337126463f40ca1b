"""GPUs: their names, who holds them, what a container gets."""

from __future__ import annotations

import json

import pytest

from alight.node.gpus import FakeGpus, GpuLocks, NvmlGpus, inject
from alight.node.gpus.naming import short_name
from alight.wire import errors
from alight.wire.commands import GpuInfo


@pytest.mark.parametrize(
    ("name", "memory", "short"),
    [
        ("NVIDIA A100-SXM4-40GB", 40960, "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", 81920, "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", 81559, "H100"),
        ("NVIDIA H100 NVL", 95830, "H100"),
        ("NVIDIA H200", 143771, "H200"),
        ("NVIDIA B200", 183359, "B200"),
        ("NVIDIA GH200 480GB", 97871, "GH200"),
        ("NVIDIA L4", 23034, "L4"),
        ("NVIDIA L40S", 46068, "L40S"),
        ("NVIDIA L40", 46068, "L40"),
        ("NVIDIA A10G", 23028, "A10"),
        ("NVIDIA A10", 23028, "A10"),
        ("Tesla T4", 15360, "T4"),
        ("Tesla V100-SXM2-16GB", 16384, "V100"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, "RTX-PRO-6000"),
        ("NVIDIA GeForce RTX 4090", 24564, "RTX-4090"),
        ("NVIDIA RTX A6000", 49140, "RTX-A6000"),
        ("NVIDIA GeForce GTX 1080 Ti", 11264, "GTX-1080-TI"),
        ("NVIDIA RTX 6000 Ada Generation", 49140, "RTX-6000-ADA"),
        ("NVIDIA GeForce RTX 3060 12GB", 12288, "RTX-3060"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16376, "RTX-4090-LAPTOP-GPU"),
    ],
)
def test_names_that_scripts_use(name, memory, short):
    assert short_name(name, memory) == short


def test_fake_gpus_say_that_they_are_fake_and_stay_the_same():
    gpus = FakeGpus("a100-80gb:2,T4").gpus()
    assert [(gpu.index, gpu.type, gpu.memory, gpu.fake) for gpu in gpus] == [
        (0, "A100-80GB", 81920, True),
        (1, "A100-80GB", 81920, True),
        (2, "T4", 16384, True),
    ]
    assert all("fake" in gpu.name and "fake" in gpu.uuid for gpu in gpus)
    assert gpus == FakeGpus("a100-80gb:2,T4").gpus()
    assert FakeGpus("T4").inject((gpus[2].uuid,)).devices == ()


@pytest.mark.parametrize("asked", ["", "A100:x", "NOSUCH", "T4,,T4"])
def test_fake_gpus_that_cannot_be(asked):
    with pytest.raises(errors.InvalidError):
        FakeGpus(asked)


def test_a_fake_gpu_may_write_its_own_size():
    assert FakeGpus("MINE-24GB").gpus()[0].memory == 24 * 1024


def test_a_gpu_is_handed_out_once_on_a_machine(tmp_path):
    ours, others = GpuLocks(tmp_path), GpuLocks(tmp_path)
    ours.take("ta-1", ("GPU-a", "GPU-b"))
    ours.take("ta-1", ("GPU-a",))  # taken up again by the same container
    with pytest.raises(errors.ConflictError, match="ta-1"):
        ours.take("ta-2", ("GPU-c", "GPU-a"))
    with pytest.raises(errors.ConflictError, match="another Alight node"):
        others.take("ta-3", ("GPU-b",))
    others.take("ta-3", ("GPU-c",))  # was let go when the rest of that request failed
    others.release("ta-3")
    ours.release("ta-1")
    others.take("ta-4", ("GPU-a", "GPU-b"))
    others.release("ta-4")


def test_a_machine_without_a_driver_has_none():
    provider = NvmlGpus()
    if provider.gpus():
        pytest.skip("this machine has GPUs")
    assert provider.used_memory() == {}


def _gpu(index: int, uuid: str) -> GpuInfo:
    return GpuInfo(index, "NVIDIA L4", "L4", 23034, uuid)


CDI = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
        {"name": "GPU-b", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1"}]}},
    ],
    "containerEdits": {
        "deviceNodes": [{"path": "/dev/nvidiactl"}],
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "mounts": [
            {
                "hostPath": "/usr/lib/libcuda.so.1",
                "containerPath": "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
                "options": ["ro", "bind"],
            }
        ],
    },
}


def test_a_cdi_description_is_followed():
    found = inject.from_cdi([{"kind": "other"}, CDI], (_gpu(0, "GPU-a"), _gpu(1, "GPU-b")))
    assert found is not None
    assert found.devices == ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1")
    assert [(bind.source, bind.readonly) for bind in found.binds] == [("/usr/lib/libcuda.so.1", True)]
    assert found.env["LD_LIBRARY_PATH"] == "/usr/lib/x86_64-linux-gnu"
    assert inject.from_cdi([CDI], (_gpu(5, "GPU-x"),)) is None


def test_a_cdi_description_does_not_hide_what_it_gives(tmp_path):
    folder = tmp_path / "etc/cdi"
    folder.mkdir(parents=True)
    (folder / "nvidia.json").write_text(json.dumps(CDI))
    found = inject.injection((_gpu(0, "GPU-a"), _gpu(1, "GPU-b")), tmp_path)
    assert found.env["NVIDIA_VISIBLE_DEVICES"] == "GPU-a,GPU-b", "its void is for another program"
    assert found.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert found.env["LD_LIBRARY_PATH"] == "/usr/lib/x86_64-linux-gnu"


def _driver_tree(root, *devices):
    """What NVIDIA's driver shows of a GPU that is cut into MIG instances, as far as it is read."""
    for name in devices:
        path = root / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    info = root / "proc/driver/nvidia/gpus/0000:01:00.0/information"
    info.parent.mkdir(parents=True)
    info.write_text("Model: NVIDIA H100\nGPU UUID: GPU-h\nDevice Minor: 2\n")
    for name, minor in (("gi9/access", 84), ("gi9/ci0/access", 85), ("gi2/access", 21)):
        path = root / "proc/driver/nvidia/capabilities/gpu2/mig" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"DeviceFileMinor: {minor}\nDeviceFileMode: 292\nDeviceFileModify: 1\n")


def test_a_mig_instance_comes_with_its_own_device_files_and_no_other(tmp_path, monkeypatch):
    _driver_tree(tmp_path, "nvidia2", "nvidiactl", "nvidia-caps/nvidia-cap84", "nvidia-caps/nvidia-cap85")
    monkeypatch.setattr(inject, "_linker_cache", lambda: [("libcuda.so.1", "/lib/libcuda.so.550")])
    parent = GpuInfo(5, "NVIDIA H100", "H100", 81559, "GPU-h")
    one = GpuInfo(5, "NVIDIA H100 MIG 1g.10gb", "H100", 9984, "MIG-1", mig="1g.10gb", parent="GPU-h")
    found = inject.injection((one,), tmp_path, {"MIG-1": inject.Slice(parent, 9, 0, 1)})
    assert found.devices == (
        "/dev/nvidia2",
        "/dev/nvidia-caps/nvidia-cap84",
        "/dev/nvidia-caps/nvidia-cap85",
        "/dev/nvidiactl",
    )
    assert found.env["CUDA_VISIBLE_DEVICES"] == found.env["NVIDIA_VISIBLE_DEVICES"] == "MIG-1"
    with pytest.raises(errors.ServiceError, match="which device file a MIG instance of GPU 2 has"):
        inject.injection((one,), tmp_path, {"MIG-1": inject.Slice(parent, 2, 0, 0)})
    (tmp_path / "dev/nvidia-caps/nvidia-cap85").unlink()
    with pytest.raises(errors.ServiceError, match="nvidia-cap85 of a GPU is missing"):
        inject.injection((one,), tmp_path, {"MIG-1": inject.Slice(parent, 9, 0, 1)})


def test_cdi_knows_mig_instances_by_the_numbers_of_both():
    spec = {
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "5:1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia-caps/nvidia-cap84"}]}}],
    }
    parent = GpuInfo(5, "NVIDIA H100", "H100", 81559, "GPU-h")
    one = GpuInfo(5, "NVIDIA H100 MIG 1g.10gb", "H100", 9984, "MIG-1", mig="1g.10gb", parent="GPU-h")
    found = inject.from_cdi([spec], (one,), {"MIG-1": inject.Slice(parent, 9, 0, 1)})
    assert found is not None
    assert found.devices == ("/dev/nvidia-caps/nvidia-cap84",)


def test_without_one_devices_and_libraries_are_found(tmp_path, monkeypatch):
    for name in ("dev/nvidia3", "dev/nvidiactl", "dev/nvidia-uvm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
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
    assert "libm.so.6" not in str(found.binds)
    assert found.env["NVIDIA_VISIBLE_DEVICES"] == "GPU-a"
    assert found.env["CUDA_VISIBLE_DEVICES"] == "0"
    monkeypatch.setattr(inject, "_linker_cache", list)
    with pytest.raises(errors.ServiceError, match="libcuda"):
        inject.injection((_gpu(0, "GPU-a"),), tmp_path)
