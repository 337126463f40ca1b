"""What all unit tests share: a schema that is there already. To make one takes 15 ms, and the tests make 500."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from alight.store import sqlite
from tests.unit import generated


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Many generated inputs take longer than any other test may."""
    for item in items if generated.MANY else ():
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(autouse=True, scope="session")
def _ready_schema():
    """An empty database becomes a copy of one that went through all migrations in this process.

    Databases that have something in them are migrated as ever, and so are all of the store's own tests, in
    tests/contract: nothing is replaced there.
    """
    migrate = sqlite._migrate
    made: dict[Path, sqlite3.Connection] = {}
    one_at_a_time = threading.Lock()  # stores open on threads of their own

    def copied(connection: sqlite3.Connection, folder: Path, path: str) -> None:
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            migrate(connection, folder, path)
            return
        with one_at_a_time:
            if folder not in made:
                made[folder] = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                migrate(made[folder], folder, ":memory:")
            made[folder].backup(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "_migrate", copied)
        yield
    for connection in made.values():
        connection.close()
