"""What a store promises. The one seam between the server and whatever keeps its state.

Times are unix seconds, JSON is text, user bytes are blobs. Queries are named; their names and parameters are in
``queries/*.sql``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from alight.wire.errors import Error

Row = Mapping[str, Any]

#: A named query and its parameters; a list of parameter sets runs it once for each.
Statement = tuple[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]]


class Ticket(Protocol):
    """A write that is on its way."""

    @property
    def taken(self) -> bool: ...


class Store(Protocol):
    """Named reads, and writes in transactions that share commits (group commit)."""

    async def read(self, name: str, /, **params: Any) -> list[Row]:
        """Rows of a query. Sees every write that was awaited; a ``write_soon`` only once it is committed."""
        ...

    def read_then(self, name: str, then: Callable[[list[Row], Error | None], None], /, **params: Any) -> None:
        """``read`` for who cannot wait: ``then`` is called with the rows, or with what went wrong."""
        ...

    async def one(self, name: str, /, **params: Any) -> Row | None:
        """The first row, or None."""
        ...

    async def write(self, statements: Sequence[Statement], *, urgent: bool = True) -> list[int]:
        """Run the statements as one transaction; returns, after the commit is on disk, the rows each changed.

        Without ``urgent`` the commit may linger a few milliseconds for company. All or nothing. Transactions commit
        in the order in which they were given, many in one commit.

        Raises AlreadyExistsError where a unique index refuses, ConflictError where another constraint does,
        ResourceExhaustedError when the disk is full; the store goes on afterwards.
        """
        ...

    def write_soon(
        self, statements: Sequence[Statement], *, independent: bool = False, relaxed: bool = False
    ) -> Ticket:
        """``write`` without waiting. It lands in the same order; a failure is logged and counted in ``lost_writes``.

        Only for what can be said again (a connected caller's input) or what nobody relies on (last_used_at).
        ``independent``: it touches no row that another one of its form touches, so that many may be run statement by
        statement. ``relaxed``: it survives the end of this process, but a power cut may undo it.
        """
        ...

    def write_now(
        self, statements: Sequence[Statement], then: Callable[[Exception | None], None], *, relaxed: bool = False
    ) -> None:
        """``write`` for who cannot wait: ``then`` is called after the commit, with its error.

        ``relaxed``: as for ``write_soon``; a commit of such transactions alone does not wait for the disk.
        """
        ...

    def write_then(
        self,
        statements: Sequence[Statement],
        then: Callable[[Exception | None], None],
        ticket: Ticket | None = None,
    ) -> None:
        """``write_soon`` for what somebody has to be told of: ``then`` is called after the commit, with its error.

        With the ticket of an earlier ``write_soon`` that is independent it becomes the end of that transaction, when
        that has not begun.
        """
        ...

    def replace(
        self, ticket: Ticket, statements: Sequence[Statement], then: Callable[[Exception | None], None]
    ) -> bool:
        """Put other statements in the place of an earlier ``write_soon`` that is independent, as ``write_then`` would.

        False when that has begun to be written: nothing was done.
        """
        ...

    async def flush(self) -> None:
        """Return when everything given so far is on disk, or has failed."""
        ...

    async def close(self) -> None:
        """Flush and let go of the file."""
        ...


def transaction(*statements: Statement) -> list[Statement]:
    """Statements as a list; reads well where several make one transaction."""
    return list(statements)
