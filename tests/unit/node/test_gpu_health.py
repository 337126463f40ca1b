"""What NVML says of GPUs: which there are, how they are cut and linked, and what is wrong with them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from alight.node.gpu_use import own_use, processes_of
from alight.node.gpus import NvmlGpus
from alight.wire.commands import GpuUse

sys.path.insert(0, str(Path(__file__).parent))
from fake_nvml import FakeNvml
from pynvml import NVML_TOPOLOGY_SINGLE

A = {"uuid": "GPU-a", "name": "NVIDIA A100-SXM4-40GB", "memory": 40536}
B = {"uuid": "GPU-b", "name": "NVIDIA A100-SXM4-40GB", "memory": 40536}
C = {"uuid": "GPU-c", "name": "NVIDIA GeForce RTX 4090", "memory": 24564}
CUT = {
    "uuid": "GPU-d",
    "name": "NVIDIA H100 80GB HBM3",
    "memory": 81559,
    "mig": [
        {"uuid": "MIG-1", "name": "NVIDIA H100 80GB HBM3 MIG 3g.40gb", "memory": 40448, "gi": 2, "ci": 0},
        None,
        {"uuid": "MIG-2", "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "memory": 9984, "gi": 9, "ci": 0},
    ],
}


def machine(*gpus, **links):
    nvml = FakeNvml(*({**one} for one in gpus), **links)
    return nvml, NvmlGpus(nvml.opened)


def test_gpus_and_mig_instances_are_found():
    _, provider = machine(C, CUT)
    first, second, third = provider.gpus()
    assert (first.type, first.memory, first.index, first.driver) == ("RTX-4090", 24564, 0, "550.54.15")
    assert (second.type, second.memory, second.uuid, second.mig) == ("H100", 40448, "MIG-1", "3g.40gb")
    assert (second.parent, second.parent_memory, second.index) == ("GPU-d", 81559, 1)
    assert third.name == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    assert provider.problem() == ""


def test_a_gpu_in_mig_mode_without_instances_is_said():
    _, provider = machine({**CUT, "mig": []})
    assert provider.gpus() == ()
    assert "no instances" in provider.problem()


def test_links_are_compared():
    pair = frozenset(("GPU-a", "GPU-b"))
    near = {frozenset(("GPU-a", "GPU-c")): NVML_TOPOLOGY_SINGLE}
    _, provider = machine(A, B, C, nvlinks={pair}, near=near)
    links = provider.gpus()[0].links
    assert links["GPU-b"] > links["GPU-c"] > provider.gpus()[1].links["GPU-c"] > 0


def test_memory_in_use_and_whose_it_is():
    nvml, provider = machine({**A, "used": 900, "processes": {os.getpid(): 500, 2**22 + 1: 300}})
    assert provider.used_memory() == {"GPU-a": 900}
    assert provider.live_memory() == {"GPU-a": 500}, "who is gone holds nothing"
    assert nvml.gpus[0]["used"] == 900


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lost": True}, "it is lost"),
        ({"ecc": 5}, "2 ECC errors that could not be corrected"),
        ({"remap": True}, "bad memory could not be replaced"),
    ],
)
def test_what_is_wrong_is_said_and_stays(change, said):
    nvml, provider = machine({**A, "ecc": 3}, B)
    assert provider.health() == {}, "errors of before the node's start were somebody else's to see"
    nvml.gpus[0].update(change)
    assert said in provider.health()["GPU-a"]
    nvml.gpus[0].update(lost=False, ecc=3, remap=False)
    assert list(provider.health()) == ["GPU-a"]
    provider.forget("GPU-a")
    assert provider.health() == {}


def test_an_instance_shares_the_fate_of_its_gpu():
    nvml, provider = machine(A, CUT)
    nvml.gpus[1]["lost"] = True
    assert set(provider.health()) == {"MIG-1", "MIG-2"}


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_driver_s_events_are_heard():
    nvml, provider = machine(A, B)
    provider.watch()
    try:
        nvml.events.put((nvml.gpus[1], 31))  # a page fault in somebody's kernel
        nvml.events.put((nvml.gpus[0], 79))
        until(provider.health)
        assert provider.health() == {"GPU-a": "XID 79: it has fallen off the bus"}
    finally:
        provider.close()


def test_of_a_shared_gpu_a_container_s_part_is_what_its_processes_do():
    gpu = {"uuid": "GPU-1", "name": "NVIDIA L4", "memory": 23034, "processes": {7: 1000, 8: 200, 9: 3000}}
    whole = GpuUse("GPU-1", 0.9, 5000.0 * (1 << 20), 60.0)
    found = processes_of(FakeNvml(gpu), "GPU-1", 0)
    assert found is not None
    mine = own_use(whole, found, {7, 8, 1})
    assert (mine.memory, mine.utilization) == (1200.0 * (1 << 20), 0.9), "the driver does not say who keeps it busy"
    gpu["busy"] = [(7, 50, 99), (7, 110, 20), (7, 120, 40), (9, 120, 60)]
    found = processes_of(FakeNvml(gpu), "GPU-1", 100)
    assert found is not None
    assert own_use(whole, found, {7, 8, 1}).utilization == pytest.approx(0.3)
    assert own_use(whole, found, {8}).utilization == 0.0
    assert own_use(whole, found, set()).memory == 0.0
    found = processes_of(FakeNvml(gpu), "GPU-1", 500)
    assert found is not None
    assert own_use(whole, found, {7}).utilization == 0.0, "nobody did anything since"
    assert processes_of(FakeNvml(gpu), "GPU-2", 0) is None
