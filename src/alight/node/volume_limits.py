"""How much a volume may hold: a project quota where the filesystem has one, else an image of its own, if wanted.

An image is a sparse file with a filesystem that is mounted over the volume's whole directory. It is mounted where the
agent lives, so it outlives agents; and again in the spawner's mount namespace where mounts do not reach that by
themselves. It is the machine's mount: ``close`` takes it away when the node is shut down.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import logging
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from alight.wire import errors

log = logging.getLogger(__name__)

SMALLEST = 64 << 20
_EXTRA, _JOURNAL = 1.03, 72 << 20  # what a filesystem takes for itself
_QUOTACTL_FD = 443
_PROJECT = 2
_GET_INFO, _GET, _SET = 0x800005, 0x800007, 0x800008
_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_INHERIT = 0x200
_XATTR = struct.Struct("=5I8x")
_QUOTA = struct.Struct("=8QI4x")
_BLOCK_LIMITS = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Limits:
    """Of the volumes below ``root``. ``images``: whether volumes may live in images. ``spawners`` names their pids."""

    def __init__(self, root: Path, *, images: bool, spawners: Callable[[], Iterable[int]] = tuple) -> None:
        self._root = root
        self._images = images
        self._spawners = spawners
        self._folder = root / ".limits"

    def of(self, volume_id: str) -> int:
        """Bytes; 0: as many as the disk has."""
        return int(self._kept(volume_id).get("size", 0))

    def make(self, volume_id: str, size: int) -> None:
        """Make a volume's directory with a limit. Raises InvalidError where that cannot be, with the reason."""
        if size < SMALLEST:
            raise errors.InvalidError(f"a volume of {size} bytes is too small", hint="64 MiB is the smallest limit")
        folder = self._root / volume_id
        if folder.exists():
            raise errors.AlreadyExistsError("the volume has files already: its limit is set when it is made")
        folder.mkdir(mode=0o711)
        try:
            kept = self._limited(folder, volume_id, size)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            new = self._folder / f".{volume_id}"
            new.write_text(json.dumps(kept))
            new.rename(self._folder / volume_id)
        except BaseException:
            self.remove(volume_id)
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise

    def ready(self, volume_id: str) -> None:
        """Have its image mounted, here and for the spawner; nothing for volumes without one. Raises ServiceError."""
        image = self._image(volume_id)
        if not image.exists():
            return
        folder = self._root / volume_id
        folder.mkdir(mode=0o711, exist_ok=True)
        if not os.path.ismount(folder):
            _run("mount", "-t", "ext4", "-o", "loop,nosuid,nodev,discard", str(image), str(folder))
            folder.chmod(0o711)
            with contextlib.suppress(OSError):
                (folder / "lost+found").rmdir()
        here = folder.stat().st_dev
        for pid in self._spawners():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{pid}/root{os.path.realpath(folder)}").st_dev != here:
                    _in_namespace(
                        pid, "mount", "-t", "ext4", "-o", "nosuid,nodev,discard", _device(folder), str(folder)
                    )

    def remove(self, volume_id: str) -> None:
        """Its files are gone, or go with this."""
        self._unmount(volume_id)
        for path in (self._image(volume_id), self._folder / volume_id):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount all images of this instance: no container runs any more."""
        for image in self._root.glob(".images/*.ext4"):
            self._unmount(image.stem)

    def _limited(self, folder: Path, volume_id: str, size: int) -> dict[str, int]:
        why = has_no_project_quota(folder)
        if not why:
            return {"size": size, "project": _give_project(folder, volume_id, size)}
        if not self._images:
            raise errors.InvalidError(
                f"this machine cannot limit the size of a volume: {why}",
                hint="ALIGHT_VOLUME_IMAGES=on keeps volumes with a limit in images of their own; see docs/volumes.md",
            )
        if shutil.which("mkfs.ext4") is None:
            raise errors.InvalidError(
                "an image for the volume cannot be made: there is no mkfs.ext4", hint="apt-get install e2fsprogs"
            )
        image = self._image(volume_id)
        image.parent.mkdir(mode=0o700, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(int(size * _EXTRA) + _JOURNAL)
        image.chmod(0o600)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(image))
        self.ready(volume_id)
        return {"size": size}

    def _unmount(self, volume_id: str) -> None:
        folder = self._root / volume_id
        if not self._image(volume_id).exists():
            return
        for pid in self._spawners():
            with contextlib.suppress(errors.ServiceError):
                _in_namespace(pid, "umount", str(folder))
        if os.path.ismount(folder):
            _run("umount", str(folder))

    def _image(self, volume_id: str) -> Path:
        return self._root / ".images" / f"{volume_id}.ext4"

    def _kept(self, volume_id: str) -> dict[str, int]:
        try:
            found = json.loads((self._folder / volume_id).read_text())
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError):
            return {}


def has_no_project_quota(folder: Path) -> str:
    """Why the filesystem of a directory cannot limit a tree of files; "" when it can."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # struct if_dqinfo: two times, flags, valid.
        if _quotactl(fd, _GET_INFO, 0, ctypes.create_string_buffer(24)) == 0:
            return ""
        number = ctypes.get_errno()
        off = number in (errno.ESRCH, errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP)
        return "its filesystem has no project quota" + ("" if off else f" ({os.strerror(number)})")
    finally:
        os.close(fd)


def _give_project(folder: Path, volume_id: str, size: int) -> int:
    """A project of its own for the directory; what is made in it later belongs to it, too."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        project = _free_project(fd, 0x41000000 | (zlib.crc32(volume_id.encode()) & 0xFFFFFF))
        attributes = bytearray(_XATTR.size)
        fcntl.ioctl(fd, _FSGETXATTR, attributes)
        flags, extent, extents, _, cow = _XATTR.unpack(attributes)
        fcntl.ioctl(fd, _FSSETXATTR, _XATTR.pack(flags | _INHERIT, extent, extents, project, cow))
        blocks = -(-size // 1024)
        wanted = ctypes.create_string_buffer(_QUOTA.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS))
        if _quotactl(fd, _SET, project, wanted) != 0:
            number = ctypes.get_errno()
            raise errors.ServiceError(f"the limit of the volume was refused: {os.strerror(number)}")
        return project
    finally:
        os.close(fd)


def _free_project(fd: int, first: int) -> int:
    for project in range(first, first + 1000):
        found = ctypes.create_string_buffer(_QUOTA.size)
        if _quotactl(fd, _GET, project, found) != 0:
            return project
        hard, soft, used, *_ = _QUOTA.unpack(found.raw[: _QUOTA.size])
        if not (hard or soft or used):
            return project
    raise errors.ServiceError("no number is free for the volume's project quota")


def _quotactl(fd: int, command: int, who: int, data: object) -> int:
    number, what = ctypes.c_long(_QUOTACTL_FD), ctypes.c_uint((command << 8) | _PROJECT)
    return int(_libc.syscall(number, ctypes.c_uint(fd), what, ctypes.c_uint(who), data))


def _device(folder: Path) -> str:
    number = folder.stat().st_dev
    return "/dev/" + Path(os.readlink(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")).name


def _in_namespace(pid: int, *command: str) -> None:
    _run("nsenter", f"--mount=/proc/{pid}/ns/mnt", *command)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise errors.ServiceError(f"{command[0]} failed: {done.stderr.strip() or done.returncode}")
