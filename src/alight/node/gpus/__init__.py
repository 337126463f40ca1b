"""GPUs OF THIS MACHINE: which there are, who holds them, how a container gets them.

base.py     what a provider must tell; the host-wide lock of each GPU
naming.py   from the driver's names to the short ones that scripts use
nvml.py     the provider that asks NVIDIA's driver
fake.py     the provider for tests and for trying schedules; says so in every name
inject.py   devices and driver libraries for a container: by the machine's CDI file, or found here
"""

from __future__ import annotations

from alight.node.gpus.base import GpuLocks, GpuProvider, Injection
from alight.node.gpus.fake import FakeGpus
from alight.node.gpus.nvml import NvmlGpus

__all__ = ["FakeGpus", "GpuLocks", "GpuProvider", "Injection", "NvmlGpus", "provider"]


def provider(fake: str) -> GpuProvider:
    """The fake one when it is asked for by name ("A100-80GB:8"), else the driver's; never both."""
    return FakeGpus(fake) if fake else NvmlGpus()
