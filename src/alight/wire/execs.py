"""What is said to run a program in a container that runs. See ``messages`` for the notation.

On both streams bytes go as they are: towards the program those without a head, from it those without a head (standard
output, or all of its terminal) and those whose head is ``ExecWord("stderr")``. Nothing of it is kept anywhere: a
program ends with the stream that it was started on.
"""

from __future__ import annotations

from typing import Dict, Tuple

from alight.wire.record import dataclass, field


@dataclass(frozen=True)
class ExecStart:
    """container.exec ⇄ ExecWord and bytes, until the program ended.

    From the server ``started`` first, ``stderr`` with bytes, ``ended`` last (alone when it could not be started); from
    the client ``size``, ``signal`` and ``eof``: its standard input is over.
    NotFoundError: no such container runs. ``cwd`` "": the container's.
    """

    container_id: str
    argv: Tuple[str, ...]
    env: Dict[str, str] = field(default_factory=dict)  # beyond the container's
    cwd: str = ""
    terminal: bool = False
    rows: int = 0
    columns: int = 0
    term: str = ""  # what the user's terminal is (TERM)


@dataclass(frozen=True)
class NodeExec:
    """node.exec (server → node) ⇄ as ``ExecStart``. ``env``: what the server gave this container's function, with its
    secrets; the node keeps none of that."""

    start: ExecStart
    env: Dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ExecWord:
    """``status`` of ``ended`` is the program's exit status, or 128 and the signal that ended it."""

    kind: str  # started | stderr | ended | size | signal | eof
    status: int = 0
    text: str = ""  # ended: why, when it was not the program's own doing
    rows: int = 0
    columns: int = 0
    signal: int = 0
