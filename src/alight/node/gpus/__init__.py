"""GPUs OF THIS MACHINE: which there are, who holds them, how a container gets them.

desk.py     who holds what, how parts are shared, which are out of service
base.py     what a provider must tell; the host-wide lock of each GPU
naming.py   from the driver's names to the short ones that scripts use
nvml.py     the provider that asks NVIDIA's driver
health.py   what that driver says is wrong
mps.py      NVIDIA's daemons that let containers share a GPU
fake.py     the provider for tests and for trying schedules; says so in every name
inject.py   devices and driver libraries for a container: by the machine's CDI file, or found here
"""

from __future__ import annotations

from pathlib import Path

from alight.node.gpus.base import GpuLocks, GpuProvider, Injection
from alight.node.gpus.desk import Given, GpuDesk
from alight.node.gpus.fake import FakeGpus
from alight.node.gpus.mps import Mps
from alight.node.gpus.nvml import NvmlGpus

__all__ = ["FakeGpus", "Given", "GpuDesk", "GpuLocks", "GpuProvider", "Injection", "Mps", "NvmlGpus", "provider"]


def provider(fake: str, home: Path | None = None) -> GpuProvider:
    """The fake one when it is asked for by name ("A100-80GB:8"), else the driver's; never both.

    What is seen of fake ones may be written into run/fake-gpus.json of the state directory.
    """
    if fake:
        return FakeGpus(fake, home / "run" / "fake-gpus.json" if home is not None else None)
    return NvmlGpus()
