"""A database may be opened by other programs while its server runs; and its schema grows by numbers."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import alight.store
from alight.store import open_store

LOOK = """
import sqlite3, sys
beside = sqlite3.connect(sys.argv[1])
beside.execute("SELECT * FROM meta").fetchall()
beside.close()
"""
FOLDERS = sorted({file.parent for file in Path(alight.store.__file__).parent.glob("*/[0-9][0-9][0-9][0-9]_*.sql")})
#: Numbers that were never used. A database that is further never runs what gets such a number now.
NEVER = {"migrations": {12, 14, 16, 19}}


def test_who_opens_the_database_beside_its_server_takes_nothing_with_them(tmp_path):
    """Were the server's lock on it lost, the other would close the log of commits as its last user, and delete it."""
    place = tmp_path / "alight.db"

    async def main():
        store = await open_store(place)
        try:
            await store.read("meta_get", key="before")  # the reader has its connection
            await asyncio.to_thread(subprocess.run, [sys.executable, "-c", LOOK, str(place)], check=True, timeout=30)
            await store.write([("meta_set", {"key": "after", "value": "1"})])
            with sqlite3.connect(place) as beside:  # what a server that is started after a kill would find
                return beside.execute("SELECT value FROM meta WHERE key = 'after'").fetchall()
        finally:
            await store.close()

    assert asyncio.run(main()) == [("1",)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_migration_has_a_number_of_its_own_above_all_before(folder):
    numbers = Counter(int(file.name[:4]) for file in folder.glob("*.sql"))
    assert [number for number, count in numbers.items() if count > 1] == []
    missing = set(range(1, max(numbers))) - set(numbers)
    assert missing == NEVER.get(folder.name, set()), "a new migration takes the number after the last one"
