"""What a disk that refuses to take more says, in words."""

from __future__ import annotations

import errno
from pathlib import Path

from alight.wire import errors


def full_disk(error: OSError, folder: Path) -> errors.Error:
    """An OSError while writing, in words."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return errors.ResourceExhaustedError(
            f"the disk of {folder} is full", hint="free some space there; `alight volume list` and `alight doctor` help"
        )
    return errors.ServiceError(f"{folder} cannot be written: {error.strerror or error}")
