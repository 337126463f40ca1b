"""GPU objects of older scripts: each is the text that `gpu=` takes, and says so in a warning."""

from __future__ import annotations

import warnings
from typing import Optional

from alight.wire import ambient
from alight.wire.errors import DeprecationError, InvalidError


def A100(*, count: int = 1, size: Optional[str] = None, memory: Optional[int] = None) -> str:  # noqa: N802  its old name
    """``gpu="A100-80GB:2"``. ``size`` is "40GB" or "80GB"; ``memory`` is the same as a number."""
    if memory and not size:
        size = f"{memory}GB"
    if size not in {None, "40GB", "80GB"}:
        raise InvalidError(f"an A100 has 40GB or 80GB, not {size!r}")
    return _text(f"A100-{size}" if size else "A100", count)


def A10G(*, count: int = 1) -> str:  # noqa: N802  its old name
    """``gpu="A10G"``."""
    return _text("A10G", count)


def Any(*, count: int = 1) -> str:  # noqa: N802  its old name
    """``gpu="any"``."""
    return _text("any", count)


def H100(*, count: int = 1) -> str:  # noqa: N802  its old name
    """``gpu="H100"``."""
    return _text("H100", count)


def H200(*, count: int = 1) -> str:  # noqa: N802  its old name
    """``gpu="H200"``."""
    return _text("H200", count)


def B200(*, count: int = 1) -> str:  # noqa: N802  its old name
    """``gpu="B200"``."""
    return _text("B200", count)


def L4(*, count: int = 1) -> str:  # noqa: N802  its old name
    """``gpu="L4"``."""
    return _text("L4", count)


def L40S(*, count: int = 1) -> str:  # noqa: N802  its old name
    """``gpu="L40S"``."""
    return _text("L40S", count)


def T4(*, count: int = 1) -> str:  # noqa: N802  its old name
    """``gpu="T4"``."""
    return _text("T4", count)


def _text(kind: str, count: int) -> str:
    text = kind if count == 1 else f"{kind}:{count}"
    if ambient.container is None:  # said where the script is run, and not again by each of its containers
        warnings.warn(f"GPU objects are an old form: write gpu={text!r}", DeprecationError, stacklevel=3)
    return text


__all__ = ["A10G", "A100", "B200", "H100", "H200", "L4", "L40S", "T4", "Any"]
