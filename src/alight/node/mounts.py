"""Root filesystems of containers. Runs in the spawner's private mount namespace, so that nothing outlives it there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from alight.node import kernel
from alight.node.users import CannotMap

if TYPE_CHECKING:
    from alight.node.users import Users

#: Where containers' mounts are put together: a directory of the host in which everybody may search, since root of a
#: container has no rights in ours. Each spawner has a file system of its own there, which nobody else sees.
PLACES = "/run/alight/mounts"
_SHARED = f"{PLACES}/.shared"
_BUCKETS = f"{PLACES}/.buckets"
_SHARED_KEPT = 512

_OLD_KERNEL = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def private_namespace() -> None:
    """Give this process mounts of its own. What the host mounts later is still seen; what we mount is not."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_SLAVE)
    Path(PLACES).parent.mkdir(exist_ok=True)
    Path(PLACES).parent.chmod(0o755)
    Path(PLACES).mkdir(exist_ok=True)
    kernel.mount("alight", PLACES, "tmpfs", kernel.MS_NOSUID | kernel.MS_NOEXEC, "mode=711,size=16m")
    Path(_SHARED).mkdir(mode=0o711)
    Path(_BUCKETS).mkdir(mode=0o711)


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
        raise CannotMap(f"The file system of {source} cannot show files with other owners: {error.strerror}") from error


def shown(source: str, target: str, *, readonly: bool = False) -> None:
    """Show ``source`` at ``target`` with its owners as they are."""
    kernel.mount_again(source, target, kernel.MOUNT_ATTR_RDONLY if readonly else 0)


def place(container_id: str) -> str:
    """Where the mounts of a container with a user namespace of its own are put together."""
    return f"{PLACES}/{container_id}"


def bucket_place(container_id: str, number: int) -> str:
    """Where a bucket of a container is mounted."""
    return f"{_BUCKETS}/{container_id}-{number}"


def is_bucket_place(path: str) -> bool:
    """Whether this is a place of ``bucket_place``."""
    return path.startswith(f"{_BUCKETS}/")


def shared_place(source: str, base: int) -> str:
    """Where ``Shared`` shows a source to the containers whose ids begin at ``base``."""
    return f"{_SHARED}/{base:x}-{hashlib.sha256(os.fsencode(source)).hexdigest()[:24]}"


class Shared:
    """What many containers have in common (layers, the library, devices), shown once per range of ids.

    Only the last few hundred are kept: each costs every start a little, since a new mount namespace is a copy of ours.
    """

    def __init__(self) -> None:
        self._shown: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def show(self, source: str, users: Users) -> str:
        """Show a directory, read-only, unless it is shown already; where."""
        found = os.stat(source)
        what = found.st_dev, found.st_ino
        place = shared_place(source, users.base)
        if self._shown.get(place) == what:
            self._shown.move_to_end(place)
            return place
        # Another directory under an old name: whoever has the old one mounted keeps it.
        self._drop(place)
        Path(place).mkdir()
        try:
            idmapped(source, place, users, readonly=True)
        except (OSError, CannotMap):
            Path(place).rmdir()
            raise
        self._shown[place] = what
        while len(self._shown) > _SHARED_KEPT:
            self._drop(next(iter(self._shown)))
        return place

    def device(self, path: str, base: int) -> None:
        """A node of this device whose owner is root of the containers, with the mode of the host's.

        The host's own would belong to nobody there, and most devices are for their owner and group alone.
        """
        found = os.stat(path)
        place = shared_place(path, base)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(place).st_rdev == found.st_rdev:
                return
            Path(place).unlink()
        try:
            os.mknod(place, found.st_mode, found.st_rdev)
        except PermissionError as error:
            raise CannotMap(f"The device {path} cannot be shown with another owner: {error.strerror}") from error
        os.chmod(place, found.st_mode & 0o777)
        os.chown(place, base, base)

    def _drop(self, place: str) -> None:
        if self._shown.pop(place, None) is not None:
            detach(place)
            Path(place).rmdir()


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
