"""What is said about paths of volumes, and which machine this is."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from pathlib import Path

from alight.wire import errors


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """What the kernel says about a path of a volume, in the user's words."""
    try:
        yield
    except FileNotFoundError as error:
        raise errors.NotFoundError(f"the volume has no {path!r}") from error
    except NotADirectoryError as error:
        raise errors.InvalidError(f"a part of {path!r} is not a directory of the volume") from error
    except IsADirectoryError as error:
        raise errors.InvalidError(f"{path!r} is a directory of the volume") from error
    except FileExistsError as error:
        raise errors.AlreadyExistsError(f"{path!r} exists in the volume already") from error
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise errors.InvalidError(f"{path!r} leads out of the volume through a link") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = errors.ResourceExhaustedError("the disk that holds the volumes is full", hint="free some space")
            raise full from error
        raise errors.ServiceError(f"{path!r} in the volume: {error.strerror or error}") from error


@functools.cache
def boot_id() -> str:
    """Of this machine's kernel since its start; "" where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def version_of(found: os.stat_result) -> str:
    """Another text when a file's bytes may be others."""
    return f"{found.st_ino:x}.{found.st_size:x}.{found.st_mtime_ns:x}.{found.st_ctime_ns:x}"
