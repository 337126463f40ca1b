"""GPUs: their names, and who holds them."""

from __future__ import annotations

import pytest

from alight.node.gpus import FakeGpus, GpuLocks, NvmlGpus
from alight.node.gpus.naming import short_name
from alight.wire import errors


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


def test_what_two_nodes_of_a_machine_pretend_is_each_one_s_own(tmp_path):
    one, other = (FakeGpus("T4", tmp_path / name / "fake-gpus.json") for name in ("a", "b"))
    assert one.gpus() == FakeGpus("T4", tmp_path / "a" / "fake-gpus.json").gpus()
    assert one.gpus()[0].uuid != other.gpus()[0].uuid


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
