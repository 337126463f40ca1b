"""From what a driver calls a GPU to the short name that scripts use: "NVIDIA A100-SXM4-40GB" is an "A100-40GB"."""

from __future__ import annotations

import re

from alight.wire import gpus

#: In order: the first that fits. Names that say more than another come before it.
_KNOWN = (
    (r"GB300\b", "GB300"),
    (r"B300\b", "B300"),
    (r"GB200\b", "GB200"),
    (r"B200\b", "B200"),
    (r"H200\b", "H200"),
    (r"GH200\b", "GH200"),
    (r"H100\b", "H100"),
    (r"L40S\b", "L40S"),
    (r"L40\b", "L40"),
    (r"L4\b", "L4"),
    (r"A10G?\b", "A10"),
    (r"T4\b", "T4"),
    (r"V100\b", "V100"),
    (r"P100\b", "P100"),
)
_GIB = 1024


def short_name(name: str, memory: int) -> str:
    """The type of a GPU with ``memory`` MiB. One that nobody has a short name for keeps its own, in capitals."""
    if re.search(r"\bA100\b", name):
        return "A100-80GB" if memory > 60 * _GIB else "A100-40GB"
    if re.search(r"RTX PRO 6000\b", name):
        return "RTX-PRO-6000"
    for pattern, short in _KNOWN:
        if re.search(rf"\b{pattern}", name):
            return short
    plain = re.sub(r"^(NVIDIA|GeForce|Tesla|Quadro)\s+|^(NVIDIA|AMD)\s+", "", name.strip())
    plain = re.sub(r"^(GeForce|Tesla|Quadro)\s+", "", plain)
    known = gpus.canonical(re.sub(r"\s+\d+GB$", "", plain))  # a laptop's is another one
    if known:
        return known
    return re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-").upper() or "GPU"
