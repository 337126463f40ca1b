"""What every store must do: run on SQLite in a file and in memory."""

from __future__ import annotations

import asyncio
import functools

import pytest

from alight.store import open_store
from alight.wire import errors


@pytest.fixture(params=["file", "memory"])
def place(request, tmp_path):
    return ":memory:" if request.param == "memory" else str(tmp_path / "alight.db")


def drive(place, work):
    async def main():
        store = await open_store(place)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def setting(key, value="1"):
    return ("meta_set", {"key": key, "value": value})


def environment(name):
    return ("environment_add", {"name": name, "owner": "", "now": 0.0})


def volume(name, volume_id):
    return (
        "volume_add",
        {"volume_id": volume_id, "name": name, "environment": "main", "owner": "", "format": 2, "now": 0.0},
    )


def test_what_was_awaited_is_seen(place):
    async def work(store):
        assert await store.write([setting("a"), environment("main")]) == [1, 1]
        assert (await store.one("meta_get", key="a"))["value"] == "1"
        assert await store.one("meta_get", key="b") is None

    drive(place, work)


def test_a_failing_transaction_leaves_nothing_and_takes_no_neighbour_along(place):
    async def work(store):
        results = await asyncio.gather(
            store.write([setting("before")]),
            store.write([volume("data", "vo-1")]),
            store.write([setting("half"), volume("data", "vo-2")]),
            store.write([setting("after")]),
            return_exceptions=True,
        )
        assert isinstance(results[2], errors.AlreadyExistsError)
        assert [results[i] for i in (0, 1, 3)] == [[1], [1], [1]]
        assert await store.one("meta_get", key="half") is None
        assert await store.one("meta_get", key="after") is not None

    drive(place, work)


def test_many_writers_share_commits(place):
    async def work(store):
        before = store.commits
        await asyncio.gather(*[store.write([setting(f"k{number}")]) for number in range(500)])
        assert store.commits - before < 100

    drive(place, work)


def test_a_write_that_nobody_waits_for_lands_before_a_later_one(place):
    async def work(store):
        store.write_soon([setting("soon", "first")])
        await store.write([setting("soon", "second")])
        assert (await store.one("meta_get", key="soon"))["value"] == "first"
        store.write_soon([volume("a", "vo-1")])
        store.write_soon([volume("a", "vo-2")])
        await store.flush()
        assert store.lost_writes == 1

    drive(place, work)


def test_state_survives_and_a_newer_schema_is_refused(tmp_path):
    place = str(tmp_path / "alight.db")

    async def write(store):
        await store.write([setting("kept")])

    async def read(store):
        assert await store.one("meta_get", key="kept") is not None

    drive(place, write)
    drive(place, read)

    import sqlite3

    connection = sqlite3.connect(place)
    connection.execute("PRAGMA user_version=9999")
    connection.close()
    with pytest.raises(errors.VersionError, match="newer Alight"):
        drive(place, read)


def test_a_database_is_for_its_owner_alone(tmp_path):
    async def nothing(store):
        pass

    drive(str(tmp_path / "alight.db"), nothing)
    assert (tmp_path / "alight.db").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_said_and_survived(tmp_path):
    async def work(store):
        store.limit_pages(40)
        with pytest.raises(errors.ResourceExhaustedError):
            await store.write([("meta_set", {"key": "big", "value": "x" * (4 << 20)})])
        store.limit_pages(100_000)
        await store.write([setting("small")])
        assert await store.one("meta_get", key="big") is None

    drive(str(tmp_path / "alight.db"), work)


def test_something_else_in_the_place_of_a_database(tmp_path):
    (tmp_path / "alight.db").write_bytes(b"not a database at all" * 100)

    async def nothing(store):
        pass

    with pytest.raises(errors.DataLossError, match="damaged"):
        drive(str(tmp_path / "alight.db"), nothing)


def test_the_end_of_a_write_lands_with_it_or_after_it(place):
    async def work(store):
        loop = asyncio.get_running_loop()
        heard = [loop.create_future() for _ in range(3)]

        def tell(number):
            return lambda error: heard[number].set_result(error)

        early = store.write_soon([setting("a", "1")], independent=True)
        other = store.write_soon([setting("b", "1")], independent=True)
        store.write_then([setting("c", "2")], tell(0), early)
        await store.flush()
        assert early.taken
        store.write_then([setting("e", "2")], tell(1), other)
        store.write_then([setting("d"), volume("data", "vo-1"), volume("data", "vo-2")], tell(2))
        assert await heard[0] is None
        assert await heard[1] is None
        assert isinstance(await heard[2], errors.Error)
        assert [(await store.one("meta_get", key=key))["value"] for key in "abce"] == ["1", "1", "2", "2"]

    drive(place, work)


def test_one_of_many_alike_that_fails_takes_no_other_along(place):
    async def work(store):
        errors_of = {}
        for number, name in enumerate(["one", "two", "one", "three"]):
            ticket = store.write_soon([setting(f"k{number}")], independent=True)
            tell = functools.partial(errors_of.__setitem__, number)
            store.write_then([volume(name, f"vo-{number}")], tell, ticket)
        await store.flush()
        assert {number: error is None for number, error in errors_of.items()} == {0: True, 1: True, 2: False, 3: True}
        assert await store.one("meta_get", key="k2") is None
        assert await store.one("meta_get", key="k3") is not None

    drive(place, work)
