"""Root filesystems of containers. Runs in the spawner's private mount namespace, so that nothing outlives it there."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from alight.node import kernel
from alight.node.users import CannotMap

if TYPE_CHECKING:
    from alight.node.users import Users

_OLD_KERNEL = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def private_namespace() -> None:
    """Give this process mounts of its own. What the host mounts later is still seen; what we mount is not."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_SLAVE)


def hide_hybrid_cgroups() -> None:
    """Take the version 2 tree away where version 1 is in use, too: crun refuses such a mixture."""
    with contextlib.suppress(OSError):
        kernel.unmount("/sys/fs/cgroup/unified", kernel.MNT_DETACH)


def overlay(target: str, layers: list[str], upper: str, work: str) -> None:
    """Stack ``layers`` (topmost first) under ``upper`` at ``target``.

    Always volatile: an unmount must not wait until the disk holds what a container wrote. Who keeps the upper
    directory syncs it.
    """
    options: list[tuple[str, str | None]] = [("source", "alight")]
    options += [("lowerdir+", layer) for layer in layers]
    options += [("upperdir", upper), ("workdir", work), ("volatile", None)]
    try:
        kernel.mount_new("overlay", options, target)
    except OSError as error:
        if error.errno not in _OLD_KERNEL:
            raise
        _overlay_by_links(target, layers, upper, work)


def idmapped(source: str, target: str, users: Users, *, readonly: bool = False) -> None:
    """Show ``source`` at ``target`` (of the same kind) with the owners that it has on disk, but as ids of ``users``.

    Raises ``CannotMap`` where the file system of the source, or one mounted below it, knows nothing of this.
    """
    attributes = kernel.MOUNT_ATTR_IDMAP | (kernel.MOUNT_ATTR_RDONLY if readonly else 0)
    try:
        kernel.mount_again(source, target, attributes, users.fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EPERM, *_OLD_KERNEL}:
            raise
        raise CannotMap(error.errno, error.strerror, source) from error


def shown(source: str, target: str, *, readonly: bool = False) -> None:
    """Show ``source`` at ``target`` with its owners as they are."""
    kernel.mount_again(source, target, kernel.MOUNT_ATTR_RDONLY if readonly else 0)


def detach(target: str) -> None:
    """Unmount now; what still uses it keeps it until it lets go. Nothing happens where nothing is mounted."""
    try:
        kernel.unmount(target, kernel.MNT_DETACH)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOENT}:
            raise


def _overlay_by_links(target: str, layers: list[str], upper: str, work: str) -> None:
    # mount(2) takes one page of options: short relative links make room for some hundred layers, and a path may then
    # hold colons and commas.
    links = Path(f"{target}.layers")
    links.mkdir(exist_ok=True)
    names = [str(index) for index in range(len(layers))]
    for name, path in zip([*names, "u", "w"], [*layers, upper, work], strict=True):
        (links / name).symlink_to(path)
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(links)
        lower = ":".join(names)
        kernel.mount("alight", target, "overlay", 0, f"lowerdir={lower},upperdir=u,workdir=w")
    finally:
        os.fchdir(before)
        os.close(before)
        for name in [*names, "u", "w"]:
            (links / name).unlink()
        links.rmdir()
