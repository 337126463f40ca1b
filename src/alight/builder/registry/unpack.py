"""One layer of a registry image, from its archive into a directory, as overlayfs wants it. A program of its own.

An archive from the world is hostile until shown otherwise, so this runs as a process that has the layer's directory as
its root: whatever names and links an archive holds, there is nothing else that they could reach. It also keeps an agent
with calls to serve from spending its time on archives, and a killed build kills it. It imports nothing of Alight.

    python -I unpack.py ARCHIVE DIRECTORY RESERVE

ARCHIVE is a tar, plain or compressed by gzip or zstd. RESERVE is how many bytes of the disk must stay free. Prints one
JSON object: what was done (``diff_id``, ``entries``, ``bytes``, ``left_out``, ``opaque``), or ``error`` and ``kind``
("bad", "space", "zstd").
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import hashlib
import json
import math
import os
import resource
import shutil
import signal
import stat
import sys
import tarfile
from typing import Any, BinaryIO

_PR_SET_PDEATHSIG = 1

PIECE = 1 << 20
WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

#: Headers are read into memory. Extended attributes of 64 KiB each and a path make the longest honest one.
_LONGEST_HEADER = 16 << 20
#: Memory that an archive may cost, should something else in it be hostile. zstd's window is 128 MiB at most.
_MEMORY = 2 << 30
#: How much is written between two looks at the disk.
_LOOK_EVERY = 64 << 20
#: Inodes that must stay free.
_INODES = 10_000
#: Extended attributes that a layer may set. Never overlayfs's own: they would lead into other layers.
_ATTRIBUTES = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")


class BadLayer(Exception):
    """An archive that no honest tool writes, or a broken one."""


class NoSpace(Exception):
    """The disk would be fuller than it may be."""


class Source:
    """The plain bytes of an archive: read forwards only, hashed as they pass."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner = inner
        self._hash = hashlib.sha256()
        self._buffer = memoryview(b"")
        self._at = 0

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:  # contents are read in smaller pieces
            raise BadLayer(f"it has a header of {size >> 20} MiB")
        pieces = []
        while size > 0:
            if not self._buffer:
                more = self._inner.read(PIECE)
                if not more:
                    break
                self._hash.update(more)
                self._buffer = memoryview(more)
            pieces.append(bytes(self._buffer[:size]))
            self._buffer = self._buffer[size:]
            size -= len(pieces[-1])
            self._at += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def tell(self) -> int:
        return self._at

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != 0 or position < self._at:
            raise BadLayer("its entries overlap")
        while self._at < position and self.read(min(PIECE, position - self._at)):
            pass
        return self._at

    def digest(self) -> str:
        """The sha256 of everything, the rest included."""
        while self.read(PIECE):
            pass
        return "sha256:" + self._hash.hexdigest()


class Unpacking:
    """Entries of one archive, laid below the root directory of this process."""

    def __init__(self, source: Source, reserve: int) -> None:
        self._source = source
        self._reserve = reserve
        self._folders: set[str] = {"/"}
        self._times: dict[str, int] = {}
        self._looked_at = 0
        self.entries = 0
        self.bytes = 0
        self.left_out: dict[str, int] = {}
        self.opaque = False

    def run(self) -> None:
        self._look_at_disk()
        try:
            tar = tarfile.TarFile(fileobj=self._source, errorlevel=2)  # type: ignore[arg-type]  # as much as it needs
        except tarfile.ReadError:
            if self._source.tell() == 0:  # nothing at all: an empty layer
                return
            raise
        while (member := tar.next()) is not None:
            self._entry(member)
            tar.members.clear()  # type: ignore[attr-defined]  # or memory would follow the number of files
            self.entries += 1
            if self.entries % 4096 == 0:
                self._look_at_disk()
        for path, time in self._times.items():
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, ns=(time, time), follow_symlinks=False)

    def _entry(self, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if member.size < 0:
            raise BadLayer(f"{member.name[:200]!r} has a size below zero")
        if not parts:
            if member.isdir():
                self._describe("/", member)
            return
        folder = "/" + "/".join(parts[:-1])
        if parts[-1].startswith(WHITEOUT):
            self._make_folder(folder)
            self._hide(folder, parts[-1])
            return
        path = os.path.join(folder, parts[-1])
        if member.isdir():
            self._folder(path, folder)
        else:
            self._make_folder(folder)
            made = self._make(path, member)
            if not made:
                return
        if not member.islnk():
            self._describe(path, member)

    def _folder(self, path: str, parent: str) -> None:
        self._make_folder(parent)
        found = _look(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            return
        hidden = found is not None and _is_whiteout(found)
        if found is not None:
            os.unlink(path)
        os.mkdir(path, 0o755)
        self._folders.add(path)
        if hidden:
            self._make_opaque(path)

    def _make(self, path: str, member: tarfile.TarInfo) -> bool:
        found = _look(path)
        if found is not None:
            self._clear(path, found)
        if member.isreg():
            self._file(path, member)
        elif member.issym():
            os.symlink(member.linkname, path)
        elif member.islnk():
            target = "/" + "/".join(_parts(member.linkname))
            try:
                os.link(target, path, follow_symlinks=False)
            except OSError as error:
                raise BadLayer(f"{member.name!r} is a hard link to {member.linkname!r}: {error.strerror}") from error
        elif member.isfifo():
            os.mkfifo(path)
        else:
            kind = "device" if member.isdev() else f"entry of type {member.type!r}"
            self.left_out[kind] = self.left_out.get(kind, 0) + 1
            return False
        return True

    def _file(self, path: str, member: tarfile.TarInfo) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(handle, "wb", buffering=0) as file:
            holes: Any = member.sparse  # (offset, size) of what is there, where something is left out
            for offset, size in holes or ((0, member.size),):
                if holes:
                    file.seek(offset)
                left = size
                while left > 0:
                    piece = self._source.read(min(PIECE, left))
                    if not piece:
                        raise BadLayer(f"it ends within {member.name!r}")
                    _write(handle, piece)
                    left -= len(piece)
                    self._count(len(piece))
            if holes:
                file.truncate(member.size)

    def _describe(self, path: str, member: tarfile.TarInfo) -> None:
        os.lchown(path, member.uid, member.gid)
        for name, value in member.pax_headers.items():
            if name.startswith("SCHILY.xattr."):
                self._attribute(path, name[13:], value.encode("utf-8", "surrogateescape"))
        if not member.issym():
            os.chmod(path, stat.S_IMODE(member.mode))
        seconds = math.floor(member.mtime)
        time = seconds * 1_000_000_000 + int((member.mtime - seconds) * 1_000_000_000)
        if member.isdir():
            self._times[path] = time  # in the end: what is laid into it would change it again
        else:
            os.utime(path, ns=(time, time), follow_symlinks=False)

    def _attribute(self, path: str, name: str, value: bytes) -> None:
        if name in _ATTRIBUTES or (name.startswith("user.") and not name.startswith("user.overlay.")):
            try:
                os.setxattr(path, name, value, follow_symlinks=False)
            except OSError:
                self.left_out[f"attribute {name}"] = self.left_out.get(f"attribute {name}", 0) + 1

    def _hide(self, folder: str, name: str) -> None:
        """A whiteout hides what the layers below have; what this layer has stays, whichever came first."""
        if name == OPAQUE:
            self._make_opaque(folder)
            return
        if name.startswith(WHITEOUT + WHITEOUT):
            return  # bookkeeping of an old storage driver
        hidden = name[len(WHITEOUT) :]
        if hidden in ("", ".", ".."):
            raise BadLayer(f"it hides {hidden!r} of {folder!r}")
        path = os.path.join(folder, hidden)
        try:
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                self._make_opaque(path)

    def _make_opaque(self, folder: str) -> None:
        if folder == "/":
            self.opaque = True  # overlayfs does not look at its roots: whoever stacks the layers leaves out the lower
        else:
            os.setxattr(folder, "trusted.overlay.opaque", b"y")

    def _make_folder(self, folder: str) -> None:
        """A directory that entries need and that has not come, or comes later. Links that lead to one are followed."""
        if folder in self._folders:
            return
        parent = os.path.dirname(folder)
        self._make_folder(parent)
        found = _look(folder)
        if found is None:
            os.mkdir(folder, 0o755)
        elif _is_whiteout(found):
            os.unlink(folder)
            os.mkdir(folder, 0o755)
            self._make_opaque(folder)
        elif not os.path.isdir(folder):
            raise BadLayer(f"{folder!r} is used as a directory, and it is none")
        self._folders.add(folder)

    def _clear(self, path: str, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path)
            self._folders = {"/"}
        else:
            os.unlink(path)
            if stat.S_ISLNK(found.st_mode):
                self._folders = {"/"}

    def _count(self, size: int) -> None:
        self.bytes += size
        if self.bytes - self._looked_at >= _LOOK_EVERY:
            self._look_at_disk()

    def _look_at_disk(self) -> None:
        self._looked_at = self.bytes
        disk = os.statvfs("/")
        free = disk.f_bavail * disk.f_frsize
        if free < self._reserve:
            raise NoSpace(f"{self.bytes >> 20} MiB were unpacked and {free >> 20} MiB are left on the disk")
        if disk.f_files and disk.f_favail < _INODES:
            raise NoSpace(f"{self.entries} files were unpacked and the disk has {disk.f_favail} inodes left")


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise BadLayer(f"it holds the path {name[:200]!r}")
    return parts


def _look(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _write(handle: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(handle, rest) :]


def plain(packed: BinaryIO) -> BinaryIO:
    """The bytes of an archive as they were before gzip or zstd. Its first bytes say which, whatever its name says."""
    start = packed.read(4)
    packed.seek(0)
    if start[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=packed)  # type: ignore[return-value]  # a file for reading
    if start == b"\x28\xb5\x2f\xfd" or (len(start) == 4 and start[1:] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50):
        return _zstd(packed)
    return packed


def _zstd(packed: BinaryIO) -> BinaryIO:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415  Python 3.14
    except ImportError:
        from backports import zstd  # noqa: PLC0415  what 3.14 brings, for older ones
    opened: BinaryIO = zstd.ZstdFile(packed)
    return opened


def unpack(archive: str, directory: str, reserve: int) -> dict[str, Any]:
    """Do it. The process has ``directory`` as its root afterwards."""
    # A killed agent's layers are swept by the next one, and nobody may be writing to them then.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with open(archive, "rb") as packed:
        source = Source(plain(packed))
        inside = os.stat(directory)
        os.chroot(directory)
        os.chdir("/")
        if not os.path.samestat(os.stat("/"), inside):  # all that follows names paths from the root
            raise BadLayer("its directory did not become the root of the process that unpacks it")
        work = Unpacking(source, reserve)
        work.run()
        diff_id = source.digest()
    return {
        "diff_id": diff_id,
        "entries": work.entries,
        "bytes": work.bytes,
        "left_out": work.left_out,
        "opaque": work.opaque,
    }


def main() -> int:
    archive, directory, reserve = sys.argv[1:4]
    try:
        report = unpack(archive, directory, int(reserve))
    except ImportError as error:
        report = {"kind": "zstd", "error": str(error)}
    except NoSpace as error:
        report = {"kind": "space", "error": str(error)}
    except OSError as error:
        full = error.errno in (28, 122)  # ENOSPC, EDQUOT
        report = {"kind": "space" if full else "bad", "error": f"{error.filename or ''}: {error.strerror or error}"}
    except MemoryError:
        report = {"kind": "bad", "error": f"unpacking it takes more than {_MEMORY >> 30} GiB of memory"}
    except (BadLayer, tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        report = {"kind": "bad", "error": str(error)}
    except Exception as error:  # noqa: BLE001  zlib's and zstd's own, which say that the data is broken
        report = {"kind": "bad", "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(report))  # noqa: T201  its only output
    return 1 if "error" in report else 0


if __name__ == "__main__":
    sys.exit(main())
