"""Files to and from volumes: what clients and machines say to each other on ``volume.upload`` and ``volume.fetch``.

An upload is one stream for any number of files. The client offers them in pages (``UploadSay.offers``, numbered from 0
on), the machine answers each page with an ``UploadNeed``, the client sends what is wanted, and at the end
(``finish``) all files appear under their names, or none. A fetch is the reverse: the client asks in pages
(``FetchAsk``), the machine sends ``Fetched`` after ``Fetched``. Bodies hold the bytes of many small files or a piece of
a large one; ``parts`` says whose. Both may be begun again after they broke: bytes that have come are not sent twice.

Who can open the other's files through the kernel (a client with the node's rights on the same machine) is told of an
open file there (``Door``) and copies it itself; everybody else never gets past the attempt to open it.
"""

from __future__ import annotations

import re
from typing import Tuple

from alight.wire.record import dataclass

#: Files of one page of offers or asks, and the bytes that they may have together when it is more than one.
PAGE_FILES = 1000
PAGE_BYTES = 64 << 20
#: Files from this size on are worth a door, and are fetched on from where a broken fetch ended.
LARGE = 1 << 20


@dataclass(frozen=True)
class Offer:
    """A file that the client has. ``digest`` is its SHA-256."""

    path: str
    size: int
    digest: str
    mode: int = 0o644


@dataclass(frozen=True)
class UploadSay:
    """The client's words. ``parts``: (number of a file, bytes of it), in the order of the body.

    ``check``: paths of files to come, before anything else is said: those that exist already are an error.
    ``left``: files that were written through their door. ``dropped``: files that cannot be sent as they were offered.
    """

    check: Tuple[str, ...] = ()
    offers: Tuple[Offer, ...] = ()
    parts: Tuple[Tuple[int, int], ...] = ()
    left: Tuple[int, ...] = ()
    dropped: Tuple[int, ...] = ()
    finish: bool = False
    doors: bool = False  # it may try them


@dataclass(frozen=True)
class Door:
    """A file that a process of this machine holds open: /proc/<process>/fd/<fd>, and which file it is."""

    number: int
    process: int
    fd: int
    device: int
    inode: int
    boot: str  # of the machine: ids of processes mean nothing elsewhere


@dataclass(frozen=True)
class UploadNeed:
    """The machine's answer: to ``check`` (empty), to a page of offers (``first`` is its first number), to ``finish``.

    ``offsets``: from where on each file is wanted; -1: not at all, the volume has it. ``wrong``: files whose bytes were
    not those of their digest, to be offered again.
    """

    first: int = 0
    offsets: Tuple[int, ...] = ()
    doors: Tuple[Door, ...] = ()
    wrong: Tuple[int, ...] = ()


@dataclass(frozen=True)
class Uploaded:
    """All files have their names now. ``came``: those that had to be sent, and ``size`` their bytes."""

    files: int = 0
    came: int = 0
    size: int = 0
    done: bool = False  # always True there: it tells this answer from the others


@dataclass(frozen=True)
class Wanted:
    """A file to be fetched: from ``offset`` on where its version is still ``version``, else from its beginning."""

    path: str
    offset: int = 0
    version: str = ""


@dataclass(frozen=True)
class FetchAsk:
    """The client's words: files by their numbers from 0 on, and those whose doors it is done with."""

    files: Tuple[Wanted, ...] = ()
    taken: Tuple[int, ...] = ()
    doors: bool = False  # it may try them


@dataclass(frozen=True)
class Begun:
    """A file that comes now: its size, and where in it the first byte that comes lies."""

    number: int
    size: int
    offset: int = 0
    mode: int = 0o644
    version: str = ""


@dataclass(frozen=True)
class Failed:
    """A file that cannot be fetched, with the reason."""

    number: int
    reason: str
    missing: bool = False  # there is no such file


@dataclass(frozen=True)
class Fetched:
    """The machine's words, in order: ``begun``, then ``parts`` of the body, then ``ended``.

    ``changed``: of those that ended, the ones that somebody wrote to meanwhile.
    """

    begun: Tuple[Begun, ...] = ()
    doors: Tuple[Door, ...] = ()
    parts: Tuple[Tuple[int, int], ...] = ()
    ended: Tuple[int, ...] = ()
    changed: Tuple[int, ...] = ()
    failed: Tuple[Failed, ...] = ()


def name_out(path: str) -> str:
    """A path for the wire. Bytes that are no UTF-8 (lone surrogates here) become NUL, which no path has, and digits."""
    return _SURROGATE.sub(lambda found: f"\0{ord(found[0]) - 0xDC00:02x}", path) if not path.isascii() else path


def name_in(path: str) -> str:
    """The reverse of ``name_out``."""
    return _ESCAPED.sub(lambda found: chr(0xDC00 + int(found[1], 16)), path) if "\0" in path else path


_SURROGATE = re.compile("[\udc80-\udcff]")
_ESCAPED = re.compile("\0([89a-f][0-9a-f])")
