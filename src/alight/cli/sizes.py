"""Amounts of bytes as people type them: 20GB, 500MiB, 1.5T."""

from __future__ import annotations

import re
from typing import Optional

import click

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


def parse(text: str) -> Optional[int]:
    """Bytes, or None for what is no amount. K, M, G and T are thousands; Ki, Mi, Gi and Ti are 1024s."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kmgt]?i?)b?", text.strip().lower())
    if found is None:
        return None
    unit = {**_UNITS, **_BINARY}.get(found[2])
    return int(float(found[1]) * unit) if unit is not None else None


def option(_context: click.Context, _parameter: click.Parameter, value: Optional[str]) -> int:
    """The callback of an option that takes such an amount; 0 when it was not given."""
    if value is None:
        return 0
    size = parse(value)
    if size is None:
        raise click.BadParameter(f"{value!r} is no amount of bytes: write it as 20GB or 500MiB")
    return size
