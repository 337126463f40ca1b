"""What is added up from measurement to measurement: memory over time, energy; across restarts of the agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from alight.node import cgroups, traffic
from alight.node.engine.base import Stats
from alight.node.gpu_use import GpuMeter, fake_use
from alight.node.meter import Meter
from alight.wire.commands import GpuInfo, GpuUse
from alight.wire.record import replace

MIB = 1 << 20


def test_memory_counts_with_the_time_that_it_was_held(tmp_path: Path) -> None:
    meter = Meter(tmp_path, 100.0)
    meter.read(Stats(memory_bytes=100 * MIB), 110.0, [])
    used = meter.read(Stats(memory_bytes=300 * MIB), 120.0, [])
    assert used["memory_byte_seconds"] == (100 * 10 + 200 * 10) * MIB
    end = meter.read(Stats(cpu_seconds=3.0, memory_peak_bytes=400 * MIB), 125.0, [], final=True)
    assert end["memory_byte_seconds"] == (3000 + 300 * 5) * MIB
    assert end["final"] == 1.0
    assert end["cpu_seconds"] == 3.0


def test_one_that_was_never_looked_at_counts_with_its_peak(tmp_path: Path) -> None:
    end = Meter(tmp_path, 50.0).read(Stats(memory_peak_bytes=10), 52.0, [], final=True)
    assert end["memory_byte_seconds"] == 20


def test_an_agent_that_starts_again_goes_on(tmp_path: Path) -> None:
    meter = Meter(tmp_path, 0.0)
    meter.read(Stats(memory_bytes=10), 10.0, [GpuUse("GPU-1", joules=1000.0)])
    meter.read(Stats(memory_bytes=10), 20.0, [GpuUse("GPU-1", joules=1500.0)])
    again = Meter(tmp_path, 0.0)
    again.take_up()
    used = again.read(Stats(memory_bytes=10), 30.0, [GpuUse("GPU-1", joules=1700.0)])
    assert used["memory_byte_seconds"] == 300
    assert used["gpu_joules"] == 700.0


def test_half_a_file_of_a_killed_agent_is_no_harm(tmp_path: Path) -> None:
    (tmp_path / "usage.json").write_text('{"at": 12')
    meter = Meter(tmp_path, 0.0)
    meter.take_up()
    assert meter.read(Stats(memory_bytes=1), 5.0, [])["memory_byte_seconds"] == 5


def test_energy_counts_from_when_the_gpu_was_got(tmp_path: Path) -> None:
    driver = GpuMeter(lambda: (GpuInfo(0, "x", "T4", 16384, "GPU-fake-1", fake=True),))
    meter = Meter(tmp_path, 0.0)
    asyncio.run(meter.hold(driver, ("GPU-fake-1",)))
    (now,) = asyncio.run(driver.read(("GPU-fake-1",)))
    used = meter.read(Stats(), 10.0, [replace(now, joules=now.joules + 1e6)])
    assert used["gpu_joules"] == pytest.approx(1e6, rel=0.01)  # and not what was used since the driver was loaded


def test_without_a_counter_power_is_added_up(tmp_path: Path) -> None:
    meter = Meter(tmp_path, 0.0)
    used = meter.read(Stats(), 10.0, [GpuUse("GPU-1", utilization=0.5, power=200.0, memory=5.0)])
    assert used["gpu_joules"] == 2000.0
    used = meter.read(Stats(), 1010.0, [GpuUse("GPU-1", power=200.0)])
    assert used["gpu_joules"] == 2000.0, "nobody knows what it drew in so long a gap"


def test_several_gpus_are_shown_as_one(tmp_path: Path) -> None:
    gpus = [GpuUse("a", utilization=0.2, memory=10.0, power=100.0), GpuUse("b", utilization=0.6, memory=30.0)]
    used = Meter(tmp_path, 0.0).read(Stats(), 1.0, gpus)
    assert used["gpu_utilization"] == pytest.approx(0.4)
    assert (used["gpu_memory_bytes"], used["gpu_power_watts"]) == (40.0, 100.0)


def test_fake_gpus_are_busy_between_nothing_and_all() -> None:
    gpu = GpuInfo(1, "T4 (fake)", "T4", 16384, "GPU-fake-1", fake=True)
    for second in range(100):
        use = fake_use(gpu, 1000.0 + second)
        assert 0.0 <= (use.utilization or 0.0) <= 1.0
        assert (use.memory or 0.0) <= gpu.memory * MIB


def test_traffic_leaves_loopback_out() -> None:
    text = (
        "Inter-|   Receive  |  Transmit\n face |bytes packets\n"
        "    lo: 999 1 0 0 0 0 0 0 999 1 0 0 0 0 0 0\n"
        "  eth0:1200 3 0 0 0 0 0 0 450 2 0 0 0 0 0 0\n"
    )
    assert traffic.of_table(text) == (1200, 450)
    assert traffic.of_process(None) == (0, 0)
    assert traffic.of_device("no-such-device") == (0, 0)


def test_disk_bytes_of_both_versions(tmp_path: Path) -> None:
    two = tmp_path / "io.stat"
    two.write_text("259:0 rbytes=100 wbytes=7 rios=1 wios=1 dbytes=0 dios=0\n8:0 rbytes=1 wbytes=2\n")
    assert cgroups._moved(str(two)) == (101, 9)
    one = tmp_path / "blkio"
    one.write_text("8:0 Read 4096\n8:0 Write 12\n8:0 Sync 1\n8:0 Total 4108\nTotal 4108\n")
    assert cgroups._moved_1(str(one)) == (4096, 12)
    assert cgroups._moved(str(tmp_path / "none")) == (0, 0)
