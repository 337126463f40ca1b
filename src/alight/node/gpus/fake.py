"""GPUs that are not there: for tests, and to try how a script's demands are placed. Each says so in its name."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from alight.node.gpus.base import Injection
from alight.wire import errors
from alight.wire.commands import GpuInfo

_MEMORY = {
    "T4": 16,
    "L4": 24,
    "A10": 24,
    "A10G": 24,
    "L40S": 48,
    "A100": 40,
    "A100-40GB": 40,
    "A100-80GB": 80,
    "RTX-PRO-6000": 96,
    "H100": 80,
    "H200": 141,
    "B200": 180,
    "B300": 288,
}


class FakeGpus:
    """What "TYPE[:count][,TYPE…]" says. Containers get no device, only the variables that name what they hold."""

    def __init__(self, asked: str) -> None:
        found: list[GpuInfo] = []
        for one in asked.split(","):
            name, _, count = one.strip().partition(":")
            kind = name.upper()
            if not kind or (count and not count.isdigit()):
                raise errors.InvalidError(f"{one!r} names no fake GPU", hint='write it as "A100-80GB:8"')
            memory = _MEMORY.get(kind) or _written_size(kind)
            if not memory:
                raise errors.InvalidError(
                    f"the memory of the fake GPU {name!r} is not known",
                    hint=f"known: {', '.join(_MEMORY)}; or end the name in its size, as in MYGPU-24GB",
                )
            kind = {"A100": "A100-40GB", "A10G": "A10"}.get(kind, kind)
            for _ in range(int(count or 1)):
                index = len(found)
                # Not random: an agent that starts again must know what its containers hold.
                uuid = f"GPU-fake-{zlib.crc32(asked.encode()):08x}-{index}"
                found.append(GpuInfo(index, f"{kind} (fake)", kind, memory * 1024, uuid, fake=True))
        self._gpus = tuple(found)

    def gpus(self) -> tuple[GpuInfo, ...]:
        return self._gpus

    def problem(self) -> str:
        return ""

    def inject(self, uuids: tuple[str, ...]) -> Injection:
        return Injection(env={"NVIDIA_VISIBLE_DEVICES": ",".join(uuids), "ALIGHT_FAKE_GPUS": ",".join(uuids)})

    def used_memory(self) -> Mapping[str, int]:
        return {}


def _written_size(kind: str) -> int:
    found = re.search(r"-(\d+)GB$", kind)
    return int(found.group(1)) if found else 0
