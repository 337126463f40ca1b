"""SQLite with one writer thread and group commit.

Everything that was queued while the last commit went to disk goes into the next one, so that the cost of an fsync is
shared by all who wait for it. Each transaction has its own savepoint: one that fails takes no other with it. Readers
have their own connection and thread, so they never wait for a commit. This file must never learn what a row means.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alight.store.base import Row, Statement, Ticket
from alight.store.queryfile import load_queries
from alight.wire import errors

MEMORY = ":memory:"
_FOLDER = Path(__file__).parent
_BUSY_SECONDS = 10.0
_LINGER = 0.025  # seconds that writes which nobody waits for may wait for company
_BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds
_BATCH = 4096  # transactions per commit: bounds how long one commit can take
log = logging.getLogger(__name__)


async def open_store(path: Path | str, migrations: str = "migrations") -> SqliteStore:
    """Open (or make) a database, bring its schema up to date and start its threads. ``":memory:"`` keeps nothing.

    ``migrations`` is the folder beside this file that has its schema.
    """
    store = SqliteStore(str(path), migrations)
    try:
        await asyncio.wrap_future(store.started)
    except BaseException:
        await store.close()
        raise
    return store


@dataclass
class _Job:
    """One transaction on its way. ``done`` is None when nobody waits."""

    statements: Sequence[Statement]
    done: asyncio.Future[list[int]] | Callable[[Exception | None], None] | None
    counts: list[int] | None = None
    error: errors.Error | None = None
    urgent: bool = True
    independent: bool = False
    relaxed: bool = False  # a power cut may undo it
    taken: bool = False  # by the writer: nothing can be added any more


class SqliteStore:
    """The Store in one SQLite file. Use ``open_store``."""

    def __init__(self, path: str, migrations: str = "migrations") -> None:
        import concurrent.futures  # noqa: PLC0415  asyncio has loaded it already

        self._path = path
        self._migrations = _FOLDER / migrations
        self._full = True  # whether the next commit waits for the disk
        self._loop = asyncio.get_running_loop()
        self._queries = load_queries(_FOLDER / "queries")
        self._jobs: deque[_Job] = deque()
        self._asides: list[Callable[[sqlite3.Connection], None]] = []  # work between two commits
        self._wake = threading.Condition()
        self._closing = False
        self._due = False
        self._company = False  # a timer will make the writer look at what is not urgent
        self._reads: queue.SimpleQueue[Callable[[sqlite3.Connection], None] | None] = queue.SimpleQueue()
        self.lost_writes = 0
        self.commits = 0
        self.commit_bounds = _BOUNDS
        self.commit_counts = [0] * (len(_BOUNDS) + 1)  # commits by how long they took; the last: longer than all bounds
        self.commit_seconds = 0.0
        self.started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._writer = threading.Thread(target=self._write_forever, name="store-writer", daemon=True)
        self._reader: threading.Thread | None = None
        if path != MEMORY:
            self._reader = threading.Thread(target=self._read_forever, name="store-reader", daemon=True)
        self._writer.start()

    async def read(self, name: str, /, **params: Any) -> list[Row]:
        """Rows of a query, as mappings by column."""
        future: asyncio.Future[list[Row]] = self._loop.create_future()

        def then(rows: list[Row], error: errors.Error | None) -> None:
            if error is None:
                _succeed(future, rows)
            else:
                _fail(future, error)

        self.read_then(name, then, **params)
        return await future

    def read_then(self, name: str, then: Callable[[list[Row], errors.Error | None], None], /, **params: Any) -> None:
        """``read`` for who cannot wait."""
        sql = self._sql(name)

        def work(connection: sqlite3.Connection) -> None:
            try:
                rows = [_Row(row) for row in connection.execute(sql, params)]
            except sqlite3.Error as error:
                self._call_back(then, [], _in_words(error, name, self._path))
            else:
                self._call_back(then, rows, None)

        if self._reader is None:
            with self._wake:
                self._asides.append(work)
                self._wake.notify()
        else:
            self._reads.put(work)

    async def one(self, name: str, /, **params: Any) -> Row | None:
        """The first row of a query, or None."""
        rows = await self.read(name, **params)
        return rows[0] if rows else None

    async def write(self, statements: Sequence[Statement], *, urgent: bool = True) -> list[int]:
        """One transaction; returns after its commit."""
        done: asyncio.Future[list[int]] = self._loop.create_future()
        self._queue(_Job(statements, done, urgent=urgent))
        return await done

    def write_soon(
        self, statements: Sequence[Statement], *, independent: bool = False, relaxed: bool = False
    ) -> Ticket:
        """One transaction that nobody waits for."""
        job = _Job(statements, None, urgent=False, independent=independent, relaxed=relaxed)
        self._queue(job)
        return job

    def write_then(
        self,
        statements: Sequence[Statement],
        then: Callable[[Exception | None], None],
        ticket: Ticket | None = None,
    ) -> None:
        """One transaction, or the end of an earlier one that has not begun, and what to call after its commit."""
        if isinstance(ticket, _Job) and ticket.done is None:
            with self._wake:
                if not ticket.taken:
                    ticket.statements, ticket.done = [*ticket.statements, *statements], then
                    return
        self._queue(_Job(statements, then, urgent=False, independent=ticket is not None))

    def write_now(
        self, statements: Sequence[Statement], then: Callable[[Exception | None], None], *, relaxed: bool = False
    ) -> None:
        """One urgent transaction, and what to call after its commit."""
        self._queue(_Job(statements, then, relaxed=relaxed))

    def replace(
        self, ticket: Ticket, statements: Sequence[Statement], then: Callable[[Exception | None], None]
    ) -> bool:
        """Write something else than was said, while nobody has begun to write it."""
        if not isinstance(ticket, _Job) or ticket.done is not None:
            return False
        self._check(statements)
        with self._wake:
            if ticket.taken:
                return False
            ticket.statements, ticket.done = statements, then
        return True

    async def flush(self) -> None:
        """Return when everything queued before is committed."""
        await self.write([])

    async def close(self) -> None:
        """Commit what is queued, end the threads, close the file."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._reads.put(None)
        await asyncio.to_thread(self._writer.join)
        if self._reader is not None and self._reader.ident is not None:
            await asyncio.to_thread(self._reader.join)

    def limit_pages(self, pages: int) -> None:
        """Let the file grow no further than this: how tests meet a full disk."""
        with self._wake:
            self._asides.append(lambda connection: connection.execute(f"PRAGMA max_page_count={pages:d}").close())
            self._wake.notify()

    # the writer's thread

    def _write_forever(self) -> None:
        try:
            connection = self._connect()
        except (sqlite3.Error, OSError, errors.Error) as error:
            wrong = error if isinstance(error, errors.Error) else _in_words(error, "open", self._path)
            self.started.set_exception(wrong)
            return
        with contextlib.closing(connection):
            if self._reader is not None:
                self._reader.start()
            self.started.set_result(None)
            while True:
                with self._wake:
                    while not (self._due or self._asides or self._closing):
                        self._wake.wait()
                    jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), _BATCH))]
                    for job in jobs:
                        job.taken = True
                    self._due = bool(self._jobs)
                    reads, self._asides = self._asides, []
                    if self._closing and not jobs and not reads:
                        return
                for work in reads:
                    work(connection)
                if jobs:
                    self._commit(connection, jobs)

    def _connect(self) -> sqlite3.Connection:
        if self._path != MEMORY:
            # SQLite would make it readable by all; the payloads in it are the users'. Before the first connection and
            # never after: closing any descriptor of the file drops this process's locks on it, and the next program
            # that opens and closes the database would take itself for the last and delete the log that is written to.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = self._open_file()
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        _migrate(connection, self._migrations, self._path)
        return connection

    def _open_file(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        return connection

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        began = time.perf_counter()
        try:
            self._choose_waiting(connection, full=not all(job.relaxed for job in jobs))
            connection.execute("BEGIN IMMEDIATE")
            runs = _runs(jobs)
            if not self._run_plainly(connection, runs):
                connection.execute("BEGIN IMMEDIATE")
                self._run_apart(connection, runs)
            connection.execute("COMMIT")
            self.commits += 1
            took = time.perf_counter() - began
            self.commit_counts[bisect.bisect_left(_BOUNDS, took)] += 1
            self.commit_seconds += took
        except sqlite3.Error as error:
            # Nothing of this batch is on disk: each of its writers hears so, and the next batch starts anew.
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            wrong = _in_words(error, "commit", self._path)
            for job in jobs:
                job.error = job.error or wrong
        waited = [job for job in jobs if job.done is not None]
        for job in jobs:
            if job.done is None and job.error is not None:
                self.lost_writes += 1
                log.error("a write was lost (%s): %s", ", ".join(name for name, _ in job.statements), job.error)
        if waited:
            self._call_back(_settle, waited)

    def _choose_waiting(self, connection: sqlite3.Connection, *, full: bool) -> None:
        """Whether the next commit waits for the disk: not when all of it may be undone by a power cut."""
        if full != self._full:
            connection.execute("PRAGMA synchronous=FULL" if full else "PRAGMA synchronous=NORMAL")
            self._full = full

    def _run_plainly(self, connection: sqlite3.Connection, runs: list[list[_Job]]) -> bool:
        """All of it without savepoints, which nearly always does. False: something failed, and nothing was done."""
        try:
            for alike in runs:
                if len(alike) == 1:
                    alike[0].counts = self._execute(connection, alike[0].statements)
                    continue
                for index, (name, _) in enumerate(alike[0].statements):
                    connection.executemany(self._sql(name), [job.statements[index][1] for job in alike])
        except (sqlite3.Error, errors.Error):
            if connection.in_transaction:  # a full disk makes SQLite roll everything back by itself
                connection.execute("ROLLBACK")
            return False
        return True

    def _run_apart(self, connection: sqlite3.Connection, runs: list[list[_Job]]) -> None:
        """Each transaction by itself: one that fails takes no other with it."""
        for alike in runs:
            if len(alike) == 1 or not self._run_together(connection, alike):
                for job in alike:
                    self._run(connection, job)

    def _execute(self, connection: sqlite3.Connection, statements: Sequence[Statement]) -> list[int]:
        """Rows that each statement changed."""
        counts: list[int] = []
        for name, params in statements:
            execute = connection.execute if isinstance(params, Mapping) else connection.executemany
            counts.append(execute(self._sql(name), params).rowcount)
        return counts

    def _run_together(self, connection: sqlite3.Connection, jobs: list[_Job]) -> bool:
        """Transactions of one form, statement by statement: a fraction of the time. False: nothing was done."""
        try:
            connection.execute("SAVEPOINT together")
            for index, (name, _) in enumerate(jobs[0].statements):
                connection.executemany(self._sql(name), [job.statements[index][1] for job in jobs])
            connection.execute("RELEASE together")
        except sqlite3.Error:
            if not connection.in_transaction:
                raise  # a full disk makes SQLite roll everything back by itself
            connection.execute("ROLLBACK TO together")
            connection.execute("RELEASE together")
            return False
        return True

    def _run(self, connection: sqlite3.Connection, job: _Job) -> None:
        if not job.statements:
            job.counts = []
            return
        alone = len(job.statements) == 1 and isinstance(job.statements[0][1], Mapping)
        name = job.statements[0][0]
        try:
            if not alone:  # a single statement is atomic by itself
                connection.execute("SAVEPOINT one_transaction")
            counts: list[int] = []
            for name, params in job.statements:
                counts += self._execute(connection, ((name, params),))
            if not alone:
                connection.execute("RELEASE one_transaction")
            job.counts = counts
        except (sqlite3.Error, errors.Error) as error:
            job.error = error if isinstance(error, errors.Error) else _in_words(error, name, self._path)
            if not connection.in_transaction:
                raise  # a full disk makes SQLite roll everything back by itself
            if not alone:
                connection.execute("ROLLBACK TO one_transaction")
                connection.execute("RELEASE one_transaction")

    # the reader's thread

    def _read_forever(self) -> None:
        with contextlib.closing(self._open_file()) as connection:
            connection.execute("PRAGMA query_only=ON")
            while (work := self._reads.get()) is not None:
                work(connection)

    # either

    def _sql(self, name: str) -> str:
        try:
            return self._queries[name]
        except KeyError:
            raise errors.InternalError(f"there is no query {name!r} in store/queries") from None

    def _check(self, statements: Sequence[Statement]) -> None:
        """Raise for a name that is none, here and not in the writer's thread."""
        for name, _ in statements:
            if name not in self._queries:
                self._sql(name)

    def _queue(self, job: _Job) -> None:
        self._check(job.statements)
        with self._wake:
            if self._closing:
                raise errors.ServiceError("the server is stopping")
            self._jobs.append(job)
            if job.urgent:
                self._due = True
                self._wake.notify()
                return
        # The writer sleeps until there is company: waking it for each would take the interpreter from the event loop.
        if not self._company:
            self._company = True
            self._loop.call_later(_LINGER, self._end_of_linger)

    def _end_of_linger(self) -> None:
        with self._wake:
            self._company = False
            self._due = True
            self._wake.notify()

    def _call_back(self, function: Callable[..., None], *args: Any) -> None:
        # A loop that is closed already has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)


class _Row(dict[str, Any]):
    """A row as a plain dict: it outlives its cursor and may be changed by its reader."""


def _runs(jobs: list[_Job]) -> list[list[_Job]]:
    """Neighbours that may run together, together."""
    runs: list[list[_Job]] = []
    last: tuple[str, ...] | None = None
    for job in jobs:
        form = tuple(name for name, _ in job.statements) if job.independent else None
        if form is not None and form == last:
            runs[-1].append(job)
        else:
            runs.append([job])
        last = form
    return runs


def _settle(jobs: list[_Job]) -> None:
    # Who waits goes on in a later turn of the loop: after all that is called here, before all that it leads to.
    for job in jobs:
        if isinstance(job.done, asyncio.Future):
            if job.error is not None:
                _fail(job.done, job.error)
            else:
                _succeed(job.done, job.counts or [])
    for job in jobs:
        if callable(job.done):
            job.done(job.error)


def _succeed(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: errors.Error) -> None:
    if not future.done():
        future.set_exception(error)


def _migrate(connection: sqlite3.Connection, folder: Path, path: str) -> None:
    """Run the migrations that this database has not had, each with its number in one transaction."""
    have = int(connection.execute("PRAGMA user_version").fetchone()[0])
    steps = {int(file.name[:4]): file for file in folder.glob("[0-9][0-9][0-9][0-9]_*.sql")}
    newest = max(steps, default=0)
    if have > newest:
        raise errors.VersionError(
            f"the state in {path} was written by a newer Alight (schema {have}, this one knows {newest})",
            hint="update this one: `pip install --upgrade alight`",
        )
    for number in sorted(steps):
        if number <= have:
            continue
        connection.execute("BEGIN IMMEDIATE")
        for statement in _split(steps[number].read_text()):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={number}")
        connection.execute("COMMIT")


def _split(script: str) -> list[str]:
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    if current.strip() and not all(line.startswith("--") for line in current.strip().splitlines()):
        raise ValueError("a migration ends in the middle of a statement")
    return statements


def _in_words(error: Exception, what: str, path: str) -> errors.Error:
    code = getattr(error, "sqlite_errorcode", None)
    if code in {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}:
        return errors.AlreadyExistsError(f"there is one already ({what}: {error})")
    if isinstance(error, sqlite3.IntegrityError):
        return errors.ConflictError(f"the store refuses {what}: {error}")
    if code == sqlite3.SQLITE_FULL:
        return errors.ResourceExhaustedError(
            f"the disk of {path} is full", hint="free some space there; nothing that was accepted before is lost"
        )
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return errors.DataLossError(f"{path} is damaged: {error}", hint="restore it from a backup")
    if isinstance(error, (sqlite3.OperationalError, OSError)):
        return errors.ServiceError(f"the store failed at {what}: {error}")
    return errors.InternalError(f"the store failed at {what}: {error}")
