"""What every store must do: run on SQLite in a file and in memory."""

from __future__ import annotations

import asyncio
import functools
import json
import sqlite3
from pathlib import Path

import pytest

import alight.store
from alight.store import open_store
from alight.wire import chunk, errors
from alight.wire.calling import CallUpdate
from alight.wire.codec import from_plain


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


def test_who_waits_goes_on_when_those_told_of_the_same_commit_were_told(place):
    async def work(store):
        told = []
        store.write_then([setting("a")], lambda error: told.append(error))
        await store.write([setting("b")])
        assert told == [None]

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


def test_a_write_may_be_replaced_until_it_is_begun(place):
    async def work(store):
        loop = asyncio.get_running_loop()
        heard = loop.create_future()
        early = store.write_soon([setting("a", "early")], independent=True)
        assert store.replace(early, [setting("b", "late")], heard.set_result)
        assert not store.replace(early, [setting("c")], heard.set_result)  # somebody waits for it already
        assert await heard is None
        assert await store.one("meta_get", key="a") is None
        assert (await store.one("meta_get", key="b"))["value"] == "late"
        begun = store.write_soon([setting("d")], independent=True)
        await store.flush()
        assert not store.replace(begun, [setting("e")], heard.set_result)
        assert await store.one("meta_get", key="d") is not None
        assert await store.one("meta_get", key="e") is None

    drive(place, work)


def first_schema(path, rows):
    """A database as the first version left it, with calls of one input: (call, what its input says)."""
    connection = sqlite3.connect(path)
    connection.executescript((Path(alight.store.__file__).parent / "migrations/0001_start.sql").read_text())
    connection.execute("PRAGMA user_version=1")
    for number, (call_id, parent, said) in enumerate(rows):
        connection.execute("INSERT INTO calls VALUES (?, 'fu-1', 'ap-1', 'm', ?, ?)", (call_id, parent, float(number)))
        names = ", ".join(said)
        marks = ", ".join("?" * len(said))
        connection.execute(
            f"INSERT INTO inputs (call_id, function_id, app_id, created_at, {names})"
            f" VALUES (?, 'fu-1', 'ap-1', 1.0, {marks})",
            (call_id, *said.values()),
        )
    connection.commit()
    connection.close()


def test_calls_of_the_first_schema_move_over(tmp_path):
    """Whoever updates has calls that wait, results that are kept, and large ones of both."""
    call = ["fc-" + letter * 22 for letter in "abcdef"]
    box = "ta-" + "x" * 22
    ended = {"state": "done", "done_at": 5.0, "container_id": box}
    failure = json.dumps({"type": "builtins.ValueError", "message": "no"})
    rows = [
        (
            call[0],
            "",
            {
                "input_id": "in-0",
                **ended,
                "status": "success",
                "result": b"\xff" * 300,
                "attempt": 2,
                "log_offset": 70_000,
            },
        ),
        (
            call[1],
            "in-0",
            {"input_id": "in-1", **ended, "status": "exception", "result": b"pickled", "failure": failure},
        ),
        (call[2], "", {"input_id": "in-2", "state": "waiting", "body": b"arguments", "attempt": 3, "failures": 2}),
        (call[3], "", {"input_id": "in-3", "state": "waiting", "blob": "x" + "a" * 64, "size": 9}),
        (
            call[4],
            "",
            {"input_id": "in-4", **ended, "status": "success", "result_blob": "x" + "b" * 64, "result_size": 1 << 30},
        ),
        (call[5], "", {"input_id": "in-5", **ended, "status": "expired"}),
    ]
    path = str(tmp_path / "alight.db")
    first_schema(path, rows)

    async def work(store):
        found = [await store.one("call_by_id", call_id=one) for one in call]
        assert [row["status"] for row in found] == ["success", "failed", "", "", "success", "expired"]
        assert [(row["accepted"], row["total"]) for row in found] == [(1, 1)] * 6
        assert (found[1]["parent_call"], found[1]["parent_position"]) == (call[0], 0)
        assert [
            row["call_id"] for row in await store.read("calls_window", function_id="fu-1", after=0, limit=9)
        ] == call[2:4]

        [row] = await store.read("outputs_after", call_id=call[0], after=0, limit=9)
        said = chunk.Outputs.decode(row["head"])
        assert (said.call_id, said.container, said.attempt, said.log_offset) == (call[0], box, 2, 70_000)
        assert [bytes(one) for one in chunk.cut(said.sizes, row["body"])] == [b"\xff" * 300]
        [row] = await store.read("outputs_after", call_id=call[4], after=0, limit=9)
        assert chunk.Outputs.decode(row["head"]).is_reference
        assert chunk.read_reference(row["body"]) == ("x" + "b" * 64, 1 << 30)
        [row] = await store.read("outputs_after", call_id=call[1], after=0, limit=9)
        update = from_plain(CallUpdate, json.loads(row["head"]))
        assert (update.state, update.status, update.failure.message) == ("done", "exception", "no")
        assert row["body"] == b"pickled"
        assert await store.read("outputs_after", call_id=call[5], after=0, limit=9) == []

        assert (await store.one("chunk_at", call_id=call[2], position=0))["body"] == b"arguments"
        [large] = await store.read("chunks_references", call_id=call[3])
        assert chunk.read_reference(large["body"]) == ("x" + "a" * 64, 9)
        [tried] = await store.read("attempts_of_call", call_id=call[2])
        assert (tried["attempt"], tried["failures"]) == (3, 2)

    drive(path, work)


def test_the_queries_of_lists_use_an_index(tmp_path):
    """What is asked of a server with millions of calls must not read them all."""

    async def work(store):
        for name, params in (
            ("calls_window", {"function_id": "", "after": 0, "limit": 1}),
            ("calls_recent_of_function", {"function_id": "", "state": "", "before": 0, "limit": 1}),
            ("calls_recent_of_app", {"app_id": "", "state": "", "before": 0, "limit": 1}),
            ("calls_open_of_function", {"function_id": "", "before": 0, "limit": 1}),
            ("calls_open_children", {"call_id": ""}),
            ("calls_expiring", {"before": 0, "limit": 1}),
            ("outputs_after", {"call_id": "", "after": 0, "limit": 1}),
            ("output_of_input", {"call_id": "", "position": 0}),
            ("chunk_at", {"call_id": "", "position": 0}),
        ):
            store._queries["explained"] = f"EXPLAIN QUERY PLAN {store._queries[name]}"
            plan = [row["detail"] for row in await store.read("explained", **params)]
            assert not [one for one in plan if "TEMP B-TREE" in one], (name, plan)
            assert "SCAN" not in plan[0] or name == "calls_recent", (name, plan)

    drive(str(tmp_path / "alight.db"), work)


def test_relaxed_and_full_commits_take_turns(place):
    async def work(store):
        said = []
        for number in range(6):
            store.write_now([setting(f"k{number}", str(number))], said.append, relaxed=number % 2 == 0)
            store.write_soon([setting(f"s{number}")], relaxed=True)
            await store.flush()
        assert said == [None] * 6
        assert (await store.one("meta_get", key="k4"))["value"] == "4"
        assert await store.one("meta_get", key="s5") is not None

    drive(place, work)


def test_who_cannot_wait_hears_what_failed(place):
    async def work(store):
        said = []
        store.write_now([volume("v", "vo-1")], said.append)
        store.write_now([volume("v", "vo-2")], said.append, relaxed=True)
        await store.flush()
        assert said[0] is None
        assert isinstance(said[1], errors.AlreadyExistsError)

    drive(place, work)


def test_a_store_has_the_schema_that_was_asked_for(tmp_path):
    async def main():
        store = await open_store(tmp_path / "shared.db", "shared")
        try:
            assert await store.read("queue_ids") == []
            with pytest.raises(errors.ServiceError):
                await store.read("meta_get", key="a")
        finally:
            await store.close()

    asyncio.run(main())
