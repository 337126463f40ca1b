"""A database as it is at one moment, in a file of its own, while others write to it; and what a copy says of itself.

Blocking: for threads, and for programs that do nothing else.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from alight.wire import errors

_FOLDER = Path(__file__).parent


def copy_database(source: Path, target: Path) -> None:
    """Write all that is committed at this moment to a new file. Nobody who reads or writes has to wait for it.

    Written anew and not page by page, so that what was deleted is not in it. Raises ResourceExhaustedError,
    ServiceError.
    """
    # SQLite takes an empty file as it is; one that it made could be read by all.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(source, isolation_level=None, timeout=10.0)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise errors.ResourceExhaustedError(
                f"the disk of {target.parent} is full", hint="free some space there, or choose another place"
            ) from error
        raise errors.ServiceError(f"{source} could not be copied to {target}: {error}") from error


def schema_of(path: Path) -> int:
    """The number of the last migration that a database has had. Raises DataLossError for what is no database."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error as error:
        raise errors.DataLossError(f"{path} is no database: {error}") from error


def newest_schema() -> int:
    """The number of the last migration that this Alight knows."""
    return max(int(file.name[:4]) for file in (_FOLDER / "migrations").glob("[0-9][0-9][0-9][0-9]_*.sql"))
