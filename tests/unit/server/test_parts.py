"""The small parts: logs on disk, leases, settings, the server's own log, cleaning up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
import struct
import time

import pytest

from alight.server import journal
from alight.server.leases import Leases
from alight.server.logs import Logs
from alight.server.settings import Settings, from_environment
from alight.wire import errors, ids
from alight.wire.calling import CallResult
from alight.wire.spec import FunctionSpec

HEAD = struct.Struct("!dBI")


def record(data, at=1.0, fd=1):
    return HEAD.pack(at, fd, len(data)) + data


@pytest.fixture
def logs(tmp_path):
    """Logs of at most 16 KiB a container."""
    logs = Logs(tmp_path / "logs", 16 << 10)
    yield logs
    logs.close()


def test_what_is_appended_is_read_back_from_any_record_on(logs):
    name = ids.new_id(ids.CONTAINER)
    first = logs.append(name, 0, record(b"one") + record(b"two", fd=2))
    end = logs.append(name, first, record(b"three"))
    assert [(one.fd, one.data) for one in logs.read(name, 0)] == [(1, b"one"), (2, b"two"), (1, b"three")]
    assert [one.data for one in logs.read(name, first)] == [b"three"]
    assert logs.read(name, end) == []
    assert logs.end(name) == end


def test_what_comes_twice_is_kept_once(logs):
    name = ids.new_id(ids.CONTAINER)
    both = record(b"one") + record(b"two")
    end = logs.append(name, 0, both)
    assert logs.append(name, 0, both) == end
    assert logs.append(name, len(record(b"one")), record(b"two") + record(b"three")) > end
    assert [one.data for one in logs.read(name, 0)] == [b"one", b"two", b"three"]


def test_a_torn_record_of_a_killed_server_is_cut_off(logs, tmp_path):
    name = ids.new_id(ids.CONTAINER)
    end = logs.append(name, 0, record(b"whole"))
    logs.forget(name)
    with (tmp_path / "logs" / name / f"{0:016d}").open("ab") as file:
        file.write(record(b"torn")[:-2])
    assert logs.append(name, end, record(b"next")) > end
    assert [one.data for one in logs.read(name, 0)] == [b"whole", b"next"]


def test_a_long_log_keeps_its_newest_part(logs):
    name = ids.new_id(ids.CONTAINER)
    end = 0
    for number in range(100):
        end = logs.append(name, end, record(b"%04d" % number + b"x" * 1000))
    place, seen = 0, []
    while found := logs.read(name, place):
        seen += [int(one.data[:4]) for one in found]
        place = found[-1].end
    assert seen == list(range(seen[0], 100))
    assert 10 <= len(seen) <= 25


def test_a_record_larger_than_what_is_read_at_once_comes_whole(logs):
    name = ids.new_id(ids.CONTAINER)
    logs.append(name, 0, record(b"x" * 5000))
    assert len(logs.read(name, 0, limit=100)[0].data) == 5000


def test_names_that_are_no_containers_reach_no_file(logs, tmp_path):
    for name in ("../../etc/passwd", "", "ta-../x"):
        with pytest.raises(errors.InvalidError):
            logs.append(name, 0, record(b"x"))


def test_old_logs_go(logs, tmp_path):
    name = ids.new_id(ids.CONTAINER)
    logs.append(name, 0, record(b"x"))
    logs.sweep(time.time() + 10)
    assert (tmp_path / "logs" / name).exists()  # it is written to
    logs.forget(name)
    logs.sweep(time.time() - 10)
    assert (tmp_path / "logs" / name).exists()
    logs.sweep(time.time() + 10)
    assert not (tmp_path / "logs" / name).exists()


def test_leases_expire_when_the_last_holder_has_been_gone_for_the_grace():
    async def main():
        gone = []
        leases = Leases(0.02, gone.append)
        leases.begin("a")
        leases.hold("a")
        leases.hold("a")
        leases.let_go("a")
        leases.begin("b")
        leases.forget("b")
        leases.let_go("b")
        await asyncio.sleep(0.04)
        assert gone == []
        leases.let_go("a")
        leases.hold("a")
        await asyncio.sleep(0.04)
        assert gone == []
        leases.let_go("a")
        await asyncio.sleep(0.04)
        assert gone == ["a"]

    asyncio.run(main())


def test_settings_are_read_once_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGHT_HOLDER_GRACE", "7")
    assert from_environment(tmp_path, "").holder_grace == 7
    monkeypatch.setenv("ALIGHT_HOLDER_GRACE", "soon")
    with pytest.raises(errors.InvalidError, match="ALIGHT_HOLDER_GRACE"):
        from_environment(tmp_path, "")
    assert Settings(tmp_path, "[::1]:80").listen_address() == ("::1", 80)
    assert Settings(tmp_path, "none").listen_address() is None
    for wrong in ("9009", "host:", "host:99999", ":1"):
        with pytest.raises(errors.InvalidError):
            Settings(tmp_path, wrong).listen_address()


def test_the_servers_own_log_is_lines_of_json_and_turns_over(tmp_path, monkeypatch):
    path = tmp_path / "server.log"
    monkeypatch.setattr(journal, "_BYTES", 1000)
    saved = os.dup(2)
    fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.dup2(fresh, 2)
        handler = journal.Journal(path)
        for number in range(100):
            handler.emit(logging.LogRecord("alight.x", logging.INFO, "", 0, 'line %d "q"\n', (number,), None))
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(fresh)
    files = sorted(tmp_path.iterdir())
    assert [one.name for one in files] == ["server.log", *[f"server.log.{number}" for number in range(1, 6)]]
    for line in path.read_text().splitlines() + files[1].read_text().splitlines():
        assert json.loads(line)["at"] == "alight.x"


def test_results_expire_and_say_so(world):
    async def work(world):
        await world.serve(results_kept=7, rows_kept=30)
        await world.node({"f": lambda: "x"})
        client = await world.client()
        _, functions = await client.app(FunctionSpec(name="f"))
        call = await client.start(functions["f"])
        await client.result(call)
        janitor, now = world.server._janitor, time.time()
        await world.server.parts.calls.drain()
        await janitor.clean(now)
        attached = await client.peer.open("call.result", CallResult(call.call_id), end=True)
        assert (await client.result(attached))[1] == "x"
        await janitor.clean(now + 10)
        attached = await client.peer.open("call.result", CallResult(call.call_id), end=True)
        with pytest.raises(errors.OutputExpiredError):
            await client.result(attached)
        await janitor.clean(now + 60)
        attached = await client.peer.open("call.result", CallResult(call.call_id), end=True)
        with pytest.raises(errors.NotFoundError):
            await client.result(attached)

    world(work)


def test_the_file_of_a_large_result_goes_with_it(world):
    async def work(world):
        server = await world.serve(results_kept=7, rows_kept=30)
        await world.node({"f": lambda: "x"})
        client = await world.client()
        _, functions = await client.app(FunctionSpec(name="f"))
        await client.result(await client.start(functions["f"]))
        await server.parts.calls.drain()

        async def pieces():
            yield b"", b"a large result"

        name, _size = await server.parts.blobs.put(pieces())
        with contextlib.closing(sqlite3.connect(server.settings.state / "alight.db")) as store:
            store.execute("UPDATE outputs SET flags = 1, body = ?", (f"{name}:14".encode(),))
            store.commit()
        await server._janitor.clean(time.time())
        assert server.parts.blobs.path(name).exists()
        await server._janitor.clean(time.time() + 10)
        await world.until(lambda: not server.parts.blobs.path(name).exists())

    world(work)
