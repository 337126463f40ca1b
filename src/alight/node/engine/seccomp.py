"""The system calls that a container may make: ``seccomp.json`` for the machine we are on.

The file lists names; this makes the OCI form of it. One architecture only: each further one costs every start 4 ms.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from importlib import resources
from typing import Any

_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_ENOSYS = 38


@lru_cache(maxsize=1)
def profile() -> dict[str, Any] | None:
    """The OCI ``linux.seccomp`` object; None on an architecture that the list was not written for."""
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        return None
    text = resources.files(__package__).joinpath("seccomp.json").read_text(encoding="utf-8")
    rules = json.loads(text)
    calls: list[dict[str, Any]] = [
        {"names": rules["allow"] + rules.get(f"allow_{machine}", []), "action": "SCMP_ACT_ALLOW"},
        {"names": rules["refuse"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ]
    calls += rules["conditions"]
    return {
        # What the list does not know does not exist: programs then fall back to what they did on older kernels.
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "architectures": [_ARCHITECTURES[machine]],
        "syscalls": calls,
    }
