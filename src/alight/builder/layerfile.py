"""One layer as one file: EROFS, as overlayfs wrote it, with whiteouts, owners, times and attributes. Programs of the
system do the work: mkfs.erofs of erofs-utils makes it, mount(8) and cp(1) lay it out.

Such a file can be mounted read-only as it is, as the lower of an overlay. Alight lays it out as a directory all the
same: builds look into layers from outside of containers, and nothing of ours is mounted where it could outlive us.

Blocking, for threads.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alight.wire.errors import ImageBuildError, InvalidError, ResourceExhaustedError

#: lz4 with large blocks: half of the time and two thirds of the size of small ones; more of either is slow to pack.
_MAKE = ("mkfs.erofs", "--quiet", "-zlz4", "-C65536", "-U", "00000000-0000-0000-0000-000000000000", "--preserve-mtime")
#: The time that the file says it was made at, the same for all: the same layer is the same file wherever it is packed.
#: Times of files are theirs unless they are later.
_LATER = "4102444800"
_PIECE = 1 << 20
#: In mounts of its own, gone with the process whatever happens. Device files of the image are of no use there.
_LAY_OUT = """\
set -e
mount --make-rprivate /
mount -t erofs -o ro,nodev,nosuid,noexec "$1" "$2" || mount -t erofs -o ro,nodev,nosuid,noexec,loop "$1" "$2"
exec cp -a "$2/." "$3"
"""


@dataclass(frozen=True)
class Packed:
    """A layer's file: sha256 and size of the file, and the digest of what is in it."""

    digest: str
    size: int
    content: str


def pack(layer: Path, file: Path) -> Packed:
    """Make ``file`` of a layer. Raises ImageBuildError, OSError for the disk."""
    if shutil.which(_MAKE[0]) is None:
        raise ImageBuildError(
            "layers cannot be packed: there is no mkfs.erofs on this machine", hint="apt-get install erofs-utils"
        )
    layer = layer.resolve()  # it may lie on another disk, behind a link
    env = {**os.environ, "SOURCE_DATE_EPOCH": _LATER}
    done = subprocess.run([*_MAKE, str(file), str(layer)], capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()
        if "No space left" in words:
            raise _full()
        raise ImageBuildError(f"a layer could not be packed: {words[-300:]}")
    return Packed(digest_of_file(file), file.stat().st_size, content_of(layer))


def unpack(file: Path, expected: Packed, mount_point: Path, into: Path) -> None:
    """Lay a layer's file out into a directory, and check all of it.

    Raises InvalidError when it is not what was expected, ImageBuildError when it cannot be laid out here.
    """
    size = file.stat().st_size
    if size != expected.size or digest_of_file(file) != expected.digest:
        raise InvalidError(f"a layer's file is not what its image says: {size} bytes of {expected.size}")
    words = ["unshare", "--mount", "--", "sh", "-c", _LAY_OUT, "sh", str(file), str(mount_point), str(into)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip()
        if "No space left" in said:
            raise _full()
        raise ImageBuildError(
            f"a layer could not be laid out: {said[-300:]}",
            hint="the kernel needs EROFS (`modprobe erofs`) and the node root's rights",
        )
    if content_of(into) != expected.content:
        raise InvalidError("a layer's content is not what its image says")


def digest_of_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            total.update(piece)
    return total.hexdigest()


def content_of(root: Path) -> str:
    """The digest of a tree: paths, kinds, modes, owners, times, contents, links, attributes. However it is packed.

    Raises InvalidError for device files, which no layer has besides the marks of overlayfs.
    """
    total = hashlib.sha256()
    names: dict[tuple[int, int], str] = {}
    for path, inside in _walk(root):
        info = os.lstat(path)
        kind, device = stat.S_IFMT(info.st_mode), 0
        row = [inside, kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid]
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            device = info.st_rdev
            if kind != stat.S_IFCHR or device != 0:
                raise InvalidError(f"a layer holds the device file {inside!r}")
        if kind == stat.S_IFREG:
            first = names.setdefault((info.st_dev, info.st_ino), inside) if info.st_nlink > 1 else inside
            row += [info.st_size, info.st_mtime_ns, first if first != inside else digest_of_file(Path(path))]
        elif kind == stat.S_IFLNK:
            row.append(os.readlink(path))
        for name in sorted(os.listxattr(path, follow_symlinks=False)):
            row += [name, os.getxattr(path, name, follow_symlinks=False).hex()]
        total.update(repr(row).encode("utf-8", errors="surrogateescape"))
    return total.hexdigest()


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """All that is below a directory, in an order that depends on names alone; the directory itself first."""
    yield str(root), ""
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)
            yield path, os.path.relpath(path, root)


def _raise(error: OSError) -> None:
    raise error


def _full() -> ResourceExhaustedError:
    return ResourceExhaustedError(
        "no space left on the disk that holds images", hint="`alight image prune` removes what is not used"
    )
