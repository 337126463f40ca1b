"""One upload into a volume under way: what it was offered, what has come of it, and what is wrong with it.

Its files wait in a folder of their own (``volume_placing.Plan`` says what they are). Blocking: for threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec

from alight.node import paths
from alight.node.volume_digests import Digests
from alight.node.volume_placing import Placing, Plan, allocate
from alight.node.volume_words import boot_id, explained
from alight.wire import errors
from alight.wire.transfers import LARGE, PAGE_FILES, Door, Offer, Uploaded, UploadNeed, UploadSay, name_in

_PIECE = 4 << 20
_MOST_PENDING = 4 * PAGE_FILES
_say_decoder = msgspec.json.Decoder(UploadSay)


class _Staged:
    """A file on its way."""

    __slots__ = ("fd", "hashed", "offer", "received")

    def __init__(self, offer: Offer, received: int = 0) -> None:
        self.offer = offer
        self.received = received
        self.fd = -1
        self.hashed: Any = None  # None: written by the client itself, which saw to the digest


class Upload:
    """One upload under way. Blocking: for threads, one at a time."""

    def __init__(self, data: Path, folder: Path, parts: Path, digests: Digests, *, force: bool) -> None:
        self._path = data
        self._folder_path = folder
        self._parts = parts
        self._digests = digests
        self._force = force
        self._root = paths.open_root(data)
        self._folder = paths.open_root(folder)
        self._plan = Plan(folder)
        self._next = 0
        self._pending: dict[int, _Staged] = {}
        self._wrong: list[int] = []
        self._came = self._size = 0
        self._lock = threading.Lock()

    def take_all(self, messages: list[tuple[bytes, bytes]]) -> tuple[list[UploadNeed], bool]:
        """What to answer to some messages, and whether all files are here. Raises what makes the upload fail."""
        with self._lock:
            return self._take_all(messages)

    def _take_all(self, messages: list[tuple[bytes, bytes]]) -> tuple[list[UploadNeed], bool]:
        answers: list[UploadNeed] = []
        for head, body in messages:
            try:
                said = _say_decoder.decode(head)
            except msgspec.MsgspecError as error:
                raise errors.InvalidError(f"a message of an upload could not be read: {error}") from error
            for path in said.check:
                self._look(name_in(path))
            if said.check:
                answers.append(UploadNeed())
            if said.offers:
                answers.append(self._take_offers(said.offers, doors=said.doors))
            at = 0
            view = memoryview(body)
            for number, count in said.parts:
                self._take_part(number, view[at : at + count])
                at += count
            for number in said.left:
                self._take_left(number)
            for number in said.dropped:
                self._set_wrong(number)
            if said.finish:
                if self._pending:
                    raise errors.InternalError(f"an upload was to end while {len(self._pending)} files were missing")
                if not self._wrong:
                    return answers, True
                answers.append(UploadNeed(wrong=tuple(self._wrong)))
                self._wrong = []
        self._plan.flush()
        return answers, False

    def place(self) -> Uploaded:
        """Give all files their names. Raises, and none has: AlreadyExistsError, NotFoundError, InvalidError."""
        self._check_there()
        with self._lock, self._failing("/"):
            self._plan.seal()
            count = Placing(self._root, self._folder, force=self._force).run(self._plan)
        return Uploaded(count, self._came, self._size, done=True)

    def close(self, placed: bool) -> None:
        """Let go of everything. What was brought and not placed is kept by its digest for another try."""
        with self._lock:  # a thread of ours may still be at it when its task was cancelled
            self._close(placed)

    def _close(self, placed: bool) -> None:
        for staged in self._pending.values():
            if staged.fd >= 0:
                os.close(staged.fd)
        self._plan.close()
        os.close(self._root)
        os.close(self._folder)
        if not placed and self._parts.is_dir():
            keep_parts(self._folder_path, self._parts)
        shutil.rmtree(self._folder_path, ignore_errors=True)

    def _check_there(self) -> None:
        try:
            there, ours = os.stat(self._path, follow_symlinks=False), os.fstat(self._root)
        except FileNotFoundError:
            there, ours = None, None
        if there is None or ours is None or there.st_ino != ours.st_ino:
            raise errors.NotFoundError("the volume was deleted while files were uploaded to it")

    # offers

    def _take_offers(self, offers: tuple[Offer, ...], *, doors: bool) -> UploadNeed:
        first = self._next
        offsets: list[int] = []
        open_doors: list[Door] = []
        if len(offers) + len(self._pending) > _MOST_PENDING:
            raise errors.InvalidError("an upload offers its files in pages, each after the one before it has been sent")
        for offered in offers:
            number = self._next
            self._next += 1
            path = paths.relative(name_in(offered.path))
            offer = Offer(path, offered.size, offered.digest, offered.mode & 0o777)
            offset = self._wanted(number, offer)
            offsets.append(offset)
            if doors and offset >= 0 and offer.size >= LARGE:
                open_doors.append(self._open_door(number))
        return UploadNeed(first, tuple(offsets), tuple(open_doors))

    def _look(self, path: str) -> os.stat_result | None:
        """What has the path of a file to come. Raises InvalidError, AlreadyExistsError."""
        relative = paths.relative(path)
        paths.split(relative)
        try:
            with explained(path):
                fd = paths.open_beneath(self._root, relative, os.O_PATH | os.O_NOFOLLOW)
        except errors.NotFoundError:
            return None
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        if stat.S_ISDIR(found.st_mode):
            raise errors.AlreadyExistsError(f"{path!r} is a directory of the volume", hint="name the file to write")
        if not self._force:
            raise already_there(path)
        return found

    def _wanted(self, number: int, offer: Offer) -> int:
        """From where on a file is to be sent; -1 when it is here."""
        found = self._look(offer.path)
        similar = found is not None and stat.S_ISREG(found.st_mode) and found.st_size == offer.size
        if similar and self._digest_of(offer.path) == offer.digest:
            self._plan.keep(offer.path, offer.mode)
            return -1
        staged = _Staged(offer, self._claim(number, offer))
        self._pending[number] = staged
        if staged.received or not offer.size:
            self._open(number, staged)
            if staged.received == offer.size:
                if not self._finish(number, staged):
                    self._wrong.remove(number)  # what was kept was spoilt: from the beginning
                    os.unlink(str(number), dir_fd=self._folder)
                    self._pending[number] = _Staged(offer)
                    return 0
                return -1
        return staged.received

    def _claim(self, number: int, offer: Offer) -> int:
        """Bytes of it that an earlier upload left; they are this one's now."""
        kept = self._parts / offer.digest
        if not _is_digest(offer.digest):
            raise errors.InvalidError(f"{offer.path!r} was offered without a digest")
        try:
            os.rename(kept, str(number), dst_dir_fd=self._folder)
        except FileNotFoundError:
            return 0
        size = os.stat(str(number), dir_fd=self._folder).st_size
        if size <= offer.size:
            return size
        os.unlink(str(number), dir_fd=self._folder)
        return 0

    def _digest_of(self, path: str) -> str:
        try:
            fd = paths.open_file(self._root, path)
        except (OSError, errors.Error):
            return ""
        try:
            return self._digests.of(fd)
        finally:
            os.close(fd)

    # bytes

    def _open(self, number: int, staged: _Staged) -> None:
        with self._failing(staged.offer.path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            staged.fd = os.open(str(number), flags, 0o600, dir_fd=self._folder)
            self._plan.add(number, staged.offer, os.fstat(staged.fd).st_ino)
            if staged.offer.size >= LARGE:
                allocate(staged.fd, staged.offer.size)
            staged.hashed = hashlib.sha256()
            _hash(staged, 0, staged.received)

    def _open_door(self, number: int) -> Door:
        staged = self._pending[number]
        if staged.fd < 0:
            self._open(number, staged)
        found = os.fstat(staged.fd)
        return Door(number, os.getpid(), staged.fd, found.st_dev, found.st_ino, boot_id())

    def _take_part(self, number: int, body: memoryview) -> None:
        staged = self._pending.get(number)
        if staged is None:
            return  # of one that was dropped
        if staged.fd < 0:
            self._open(number, staged)
        if staged.received + len(body) > staged.offer.size:
            raise errors.InvalidError(f"more bytes came for {staged.offer.path!r} than were offered")
        staged.hashed.update(body)
        view = body
        with self._failing(staged.offer.path):
            while view:
                count = os.pwrite(staged.fd, view, staged.received)
                staged.received += count
                view = view[count:]
        self._size += len(body)
        if staged.received == staged.offer.size:
            self._finish(number, staged)

    def _take_left(self, number: int) -> None:
        """The client, who may write where we may, has written the file itself, and hashed what it wrote."""
        staged = self._pending.get(number)
        if staged is None:
            return
        if os.fstat(staged.fd).st_size != staged.offer.size:
            self._set_wrong(number)
            return
        self._size += staged.offer.size - staged.received
        if staged.received:  # what lay there before the client has not read
            with self._failing(staged.offer.path):
                _hash(staged, staged.received, staged.offer.size)
        else:
            staged.hashed = None
        self._finish(number, staged)

    def _finish(self, number: int, staged: _Staged) -> bool:
        """All bytes of a file are here. Whether they are those that were offered."""
        right = staged.hashed is None or staged.hashed.hexdigest() == staged.offer.digest
        if not right:
            self._set_wrong(number)
            return False
        os.fchmod(staged.fd, staged.offer.mode)
        os.close(staged.fd)
        staged.fd = -1
        del self._pending[number]
        self._came += 1
        return True

    def _set_wrong(self, number: int) -> None:
        staged = self._pending.pop(number, None)
        if staged is None:
            return
        if staged.fd >= 0:
            os.close(staged.fd)
            staged.fd = -1
            os.truncate(f"/proc/self/fd/{self._folder}/{number}", 0)
        self._plan.drop(number)
        self._wrong.append(number)

    @contextlib.contextmanager
    def _failing(self, path: str) -> Any:
        """A full disk ends the upload and gives back what it took; other troubles keep what came."""
        try:
            with explained(path):
                yield
        except errors.ResourceExhaustedError:
            for staged in self._pending.values():
                if staged.fd >= 0:
                    os.close(staged.fd)
                    staged.fd = -1
            self._pending.clear()
            for name in os.listdir(self._folder):
                if name.isdigit():
                    os.unlink(name, dir_fd=self._folder)
            raise


def _hash(staged: _Staged, start: int, end: int) -> None:
    while start < end:
        piece = os.pread(staged.fd, min(_PIECE, end - start), start)
        if not piece:
            raise errors.DataLossError(f"what had come of {staged.offer.path!r} is gone: try again")
        staged.hashed.update(piece)
        start += len(piece)


def already_there(path: str) -> errors.AlreadyExistsError:
    """What is said of a file that would be replaced without anybody having asked for it."""
    return errors.AlreadyExistsError(f"the volume has a file {path!r} already", hint="use --force to replace it")


def keep_parts(folder: Path, parts: Path) -> None:
    """Keep what an unfinished upload brought under its digests."""
    for number, digest in Plan.digests(folder).items():
        staged = folder / str(number)
        with contextlib.suppress(OSError):
            if staged.stat().st_size:
                os.utime(staged)
                staged.rename(parts / digest)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")
