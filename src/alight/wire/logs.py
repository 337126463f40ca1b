"""What clients and the server say to each other about output: ``logs.query`` and its answer. See ``messages``."""

from __future__ import annotations

from alight.wire.record import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, Tuple
else:
    from typing import Tuple  # decoders look the fields' types up

STDOUT, STDERR, SYSTEM = "stdout", "stderr", "system"
SOURCES = (STDOUT, STDERR, SYSTEM)


@dataclass(frozen=True)
class LogQuery:
    """logs.query ⇉ LogPieces, the oldest first. Which lines of which containers: at least one of ``app``,
    ``function``, ``call`` and ``container`` says it, and each that is given narrows it.

    ``tail``: only the last so many lines of what fits (-1: all). ``follow``: go on with what comes, until the app,
    the call or the container has ended. ``after``: a ``cursor`` from an answer to the same question; goes on there,
    with nothing left out and nothing twice, and without ``tail``.
    """

    app: str = ""  # name or id
    function: str = ""  # id, or a name within ``app``
    call: str = ""  # id
    container: str = ""  # id
    environment: str = ""
    source: str = ""  # one of SOURCES; "" for all
    since: float = 0.0  # unix seconds
    until: float = 0.0  # 0: no end
    search: str = ""  # only lines that hold it, in upper or lower case
    tail: int = -1
    follow: bool = False
    after: str = ""


@dataclass(frozen=True)
class LogPiece:
    """Lines that one container wrote together, ``size`` bytes of the answer's body. They end with a line feed unless
    the last one is unfinished; its rest comes with a later piece of the same container and source.

    ``call`` and ``input`` (its position) are those that ran; ``inputs`` is how many ran together, so that the line is
    of one of ``input`` … ``input + inputs - 1``. "" and -1: of none, or nobody can tell.
    """

    at: float  # unix seconds
    container: str
    source: str
    size: int
    function: str = ""  # id
    call: str = ""
    input: int = -1
    inputs: int = 1


@dataclass(frozen=True)
class LogPieces:
    """Some of the answer; the body holds the pieces one after the other. ``cursor`` goes on behind them.

    ``functions`` names the functions whose ids came up for the first time: pairs of id and name. ``ended``: why
    nothing comes any more, in the last message of an answer that followed.
    """

    pieces: Tuple[LogPiece, ...] = ()
    cursor: str = ""
    functions: Tuple[Tuple[str, str], ...] = ()
    ended: str = ""

    def cut(self, body: bytes) -> Iterator[Tuple[LogPiece, bytes]]:
        """Each piece with its bytes."""
        at = 0
        for piece in self.pieces:
            yield piece, bytes(body[at : at + piece.size])
            at += piece.size
