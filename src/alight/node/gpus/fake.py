"""GPUs that are not there: for tests, and to try how a script's demands are placed. Each says so in its name."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alight.node.gpus.base import Injection
from alight.wire import errors
from alight.wire import gpus as written
from alight.wire.commands import GpuInfo

#: What a fake A100 without a size is.
_SIZED = {"A100": "A100-40GB"}
_PROFILE = re.compile(r"(\d+)G\.(\d+)GB")


class FakeGpus:
    """What "TYPE[:count][,TYPE…]" says. Containers get no device, only the variables that name what they hold.

    "TYPE/PROFILE:count" is one GPU that is cut into so many MIG instances: "A100-40GB/3g.20gb:2". ``file`` tells what
    would be seen of them: ``{"0": {"fault": "it is lost", "used": 1024}}``, by index and in MiB, read at each look.
    """

    def __init__(self, asked: str, file: Path | None = None) -> None:
        self._file = file
        self._seen: dict[str, str] = {}
        found: list[GpuInfo] = []
        # Of this node alone: two that pretend the same on one machine do not take them from each other.
        seed = zlib.crc32(f"{asked} {file.absolute() if file is not None else ''}".encode())
        for one in asked.split(","):
            name, _, count = one.strip().partition(":")
            if not name or (count and not count.isdigit()):
                raise errors.InvalidError(f"{one!r} names no fake GPU", hint='write it as "A100-80GB:8"')
            found += _some(name, int(count or 1), len(found), seed)
        self._gpus = tuple(found)

    def gpus(self) -> tuple[GpuInfo, ...]:
        return self._gpus

    def problem(self) -> str:
        return ""

    def inject(self, uuids: tuple[str, ...]) -> Injection:
        # In the order of the machine and numbered from 0, as real ones are.
        mine = [gpu for gpu in self._gpus if gpu.uuid in uuids]
        names = ",".join(gpu.uuid for gpu in mine)
        numbers = ",".join(gpu.uuid if gpu.mig else str(number) for number, gpu in enumerate(mine))
        return Injection(
            env={"NVIDIA_VISIBLE_DEVICES": names, "CUDA_VISIBLE_DEVICES": numbers, "ALIGHT_FAKE_GPUS": names}
        )

    def used_memory(self) -> Mapping[str, int]:
        told = self._told()
        return {gpu.uuid: int(told[gpu.uuid].get("used", 0)) for gpu in self._gpus if gpu.uuid in told}

    def live_memory(self) -> Mapping[str, int]:
        return {}

    def health(self) -> Mapping[str, str]:
        for uuid, told in self._told().items():
            if told.get("fault"):
                self._seen[uuid] = str(told["fault"])
        return dict(self._seen)

    def forget(self, uuid: str) -> None:
        self._seen.pop(uuid, None)

    def watch(self) -> None:
        """There is no driver to listen to."""

    def close(self) -> None:
        """Nothing to stop."""

    def _told(self) -> dict[str, dict[str, Any]]:
        if self._file is None:
            return {}
        try:
            told = json.loads(self._file.read_bytes())
            return {gpu.uuid: dict(told[str(gpu.index)]) for gpu in self._gpus if str(gpu.index) in told}
        except (OSError, ValueError, TypeError):
            return {}  # not there, or half written: looked at again in a moment


def _some(name: str, count: int, first: int, seed: int) -> list[GpuInfo]:
    """``count`` alike, numbered from ``first``. Not random: an agent that starts again must know what its containers
    hold."""
    name, _, profile = name.partition("/")
    kind = written.canonical(name) or name.upper()
    kind = _SIZED.get(kind, kind)
    memory = written.KNOWN.get(kind) or _written_size(kind)
    if not memory:
        raise errors.InvalidError(
            f"the memory of the fake GPU {name!r} is not known",
            hint=f"known: {', '.join(written.CLOUD)} and other cards; or end the name in its size, as in MYGPU-24GB",
        )
    title, uuid = f"{kind} (fake)", f"fake-{seed:08x}"
    if not profile:
        return [
            GpuInfo(at, title, kind, memory * 1024, f"GPU-{uuid}-{at}", fake=True) for at in range(first, first + count)
        ]
    size = _PROFILE.fullmatch(profile.upper())
    if size is None:
        raise errors.InvalidError(
            f"{profile!r} is no profile of MIG instances", hint='write it as "A100-40GB/3g.20gb:2"'
        )
    return [
        GpuInfo(
            at,
            f"{kind} MIG {profile.lower()} (fake)",
            kind,
            int(size.group(2)) * 1024,
            f"MIG-{uuid}-{at}",
            fake=True,
            mig=profile.lower(),
            parent=f"GPU-{uuid}-{first}",
            parent_memory=memory * 1024,
        )
        for at in range(first, first + count)
    ]


def _written_size(kind: str) -> int:
    found = re.search(r"-(\d+)GB$", kind)
    return int(found.group(1)) if found else 0
