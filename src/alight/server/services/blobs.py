"""Content in a folder: by its SHA-256 (user files, pickled functions), or given a name (large arguments and results).

A blob is whole or not there: bytes go to a temporary file that gets its name at the end, when the digest fits. Knowing
a name is the right to read it (256 bits nobody guesses), which is why names of user values never leave the app they
belong to. Values travel once: they are given a random name instead of being hashed, and lie apart, so that a machine
may share such a file with the one container that it is for. Nothing else ever depends on their bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import stat
import time
from pathlib import Path
from typing import Any, AsyncIterator, Iterable, Iterator, List, Set, Tuple

from alight.server.disk import full_disk
from alight.server.services.writeback import Writeback
from alight.wire import errors
from alight.wire.codec import PIECE, Buffer

log = logging.getLogger(__name__)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_GIVEN = re.compile(r"x[0-9a-f]{64}")
_FILE = re.compile(r"[0-9a-f]{32}")
_AT_ONCE = 4 << 20  # bytes per visit to another thread
_DROPS_AT_ONCE = 50  # files, before others have their turn
_TOUCH_EVERY = 3600.0  # seconds: when a blob was last asked for is known to the hour
_SHORT = 2  # characters in the names of the folders


class Blobs:
    """A folder of blobs. Safe for many at once; two who put the same content both succeed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.incoming = folder / "incoming"
        self.given = folder / "given"
        self._writeback = Writeback()
        self._holders = 0
        self._let_go_later: List[str] = []

    def open(self) -> None:
        """Make the folder, and drop what a killed server left half-written."""
        self.incoming.mkdir(parents=True, exist_ok=True)
        self.given.mkdir(exist_ok=True)
        for leftover in self.incoming.iterdir():
            leftover.unlink(missing_ok=True)

    async def keep(self, name: str) -> None:
        """Return when a blob is on disk: from then on it survives the machine too. Raises what ``full_disk`` makes."""
        path = self.path(name)
        try:
            await asyncio.to_thread(_sync, path)
        except OSError as error:
            self.let_go(name)
            raise full_disk(error, self._folder) from error

    def settle(self, name: str) -> None:
        """A large result has come: write it to the disk beside its way to the caller, then free the memory it takes."""
        if _GIVEN.fullmatch(name):
            self._writeback.add(self.given / name)

    def path(self, digest: str) -> Path:
        """Where a blob lies (or would lie). Raises InvalidError for what is no digest."""
        if _GIVEN.fullmatch(digest):
            return self.given / digest
        if not _DIGEST.fullmatch(digest):
            raise errors.InvalidError(f"{digest!r} is not the name of a blob")
        return self._folder / digest[:2] / digest

    def missing(self, digests: Iterable[str]) -> Tuple[str, ...]:
        """Of these, those that are not here, each once, in the order asked. The others count as used just now."""
        return tuple(digest for digest in dict.fromkeys(digests) if not _touch(self.path(digest)))

    async def put(self, pieces: AsyncIterator[Tuple[bytes, bytes]], digest: str = "") -> Tuple[str, int]:
        """Keep the bodies of a stream as one blob, under ``digest`` or a name of ours. Returns the name and the size.

        Raises DataLossError when the bytes are not those of ``digest``, ResourceExhaustedError when the disk is full.
        """
        temporary = self.incoming / os.urandom(16).hex()
        hashed, size = hashlib.sha256() if digest else None, 0
        try:
            with temporary.open("xb", buffering=0) as file:
                waiting: List[bytes] = []
                held = 0
                async for _head, body in pieces:
                    waiting.append(body)
                    held += len(body)
                    if held >= _AT_ONCE:
                        await asyncio.to_thread(_take, hashed, file, waiting)
                        size, held, waiting = size + held, 0, []
                # Hashing and writing leave the loop free for others only when they take long.
                if held > 64 << 10:
                    await asyncio.to_thread(_take, hashed, file, waiting)
                else:
                    _take(hashed, file, waiting)
                size += held
            if hashed is not None:
                _check(digest, hashed.hexdigest(), size)
            name = digest or _new_name()
            path = self.path(name)
            path.parent.mkdir(exist_ok=True)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise full_disk(error, self._folder) from error
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return name, size

    def adopt(self, file: str, size: int) -> str:
        """Take a file of the incoming folder as it is, by renaming it; the name that it has now.

        Only for those who may write in that folder: nobody else can have put it there. Raises InvalidError.
        """
        if not _FILE.fullmatch(file):
            raise errors.InvalidError("a file that is left for the server has 32 hexadecimal digits as its name")
        source = self.incoming / file
        try:
            found = source.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                raise errors.InvalidError("what was left for the server is not the file that was announced")
            name = _new_name()
            source.rename(self.path(name))
        except OSError as error:
            raise errors.InvalidError(f"what was left for the server is not there: {error.strerror}") from error
        return name

    def let_go(self, name: str) -> None:
        """Delete a blob that was given its name, soon: nobody needs it any more. Others stay."""
        if not _GIVEN.fullmatch(name):
            return
        if self._holders:
            self._let_go_later.append(name)
            return
        # Freeing many pages takes a while.
        asyncio.get_running_loop().run_in_executor(None, _unlink, self.given / name)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While this lasts nothing is deleted: somebody copies what is here."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                names, self._let_go_later = self._let_go_later, []
                for name in names:
                    self.let_go(name)

    async def older(self, before: float, *, given: bool = False) -> Set[str]:
        """Names of blobs by content, or of ``given`` ones, that nobody asked for since ``before`` (unix seconds)."""
        return await asyncio.to_thread(_older, self.given if given else self._folder, before, flat=given)

    async def drop(self, names: Set[str], before: float) -> int:
        """Delete these, save those that were asked for since; how many it were."""
        gone = 0
        for number, name in enumerate(sorted(names)):
            if number % _DROPS_AT_ONCE == 0:
                await asyncio.sleep(0)
            if self._holders:
                break
            # Looked at and deleted in one go on the event loop, where uploads end and are asked for.
            path = self.path(name)
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("a blob that is of no more use could not be deleted: %s", error)
        return gone

    async def drop_incoming(self, before: float) -> None:
        """Delete what somebody left for the server and never spoke of, or sends since so long that nobody waits."""
        for name in await asyncio.to_thread(_older, self.incoming, before, flat=True, wanted=_FILE):
            _unlink(self.incoming / name)

    async def read(self, digest: str) -> AsyncIterator[Buffer]:
        """The content in pieces. Raises NotFoundError."""
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise errors.NotFoundError(f"there is no blob {digest[:12]}… (any more)") from None
        with os.fdopen(fd, "rb", buffering=0) as file:
            while True:
                some = memoryview(await asyncio.to_thread(file.read, _AT_ONCE))
                if not some:
                    return
                for start in range(0, len(some), PIECE):
                    yield some[start : start + PIECE]


def _new_name() -> str:
    return "x" + os.urandom(32).hex()


def _touch(path: Path) -> bool:
    """Whether a file is there; if so, it counts as used just now."""
    try:
        if path.stat().st_mtime < time.time() - _TOUCH_EVERY:
            os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _older(folder: Path, before: float, *, flat: bool, wanted: re.Pattern[str] | None = None) -> Set[str]:
    """Names of files of a folder, or of the folders in it, that were last written before some moment."""
    wanted = wanted or (_GIVEN if flat else _DIGEST)
    folders = [folder] if flat else [one for one in folder.iterdir() if len(one.name) == _SHORT and one.is_dir()]
    found: Set[str] = set()
    for one in folders:
        with os.scandir(one) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if wanted.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < before:
                        found.add(entry.name)
    return found


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("an argument that is of no more use could not be deleted: %s", error)


def _sync(path: Path) -> None:
    for one in (path, path.parent):  # what it holds, and that it is called so
        fd = os.open(one, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _check(asked: str, found: str, size: int) -> None:
    if asked and asked != found:
        raise errors.DataLossError(f"an upload of {size} bytes did not arrive as it was sent: send it again")


def _take(hashed: Any, file: Any, bodies: Iterable[bytes]) -> None:
    for body in bodies:
        if hashed is not None:
            hashed.update(body)
        view = memoryview(body)
        while view:
            view = view[file.write(view) :]
