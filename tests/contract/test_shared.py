"""Dicts and queues as a program has them: the SDK, a real server process, its real disk; killed in the middle, too."""

from __future__ import annotations

import asyncio
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alight.sdk.client import Client, Target
from alight.sdk.dict import Dict, key_bytes
from alight.sdk.queue import Queue
from alight.sdk.sync import call_blocking
from alight.wire import errors
from alight.wire.shared import EphemeralNamed

SOURCE = Path(__file__).resolve().parents[2] / "src"
MANY = 600  # values of the test with kills


class Served:
    """A server process for one home, and a client of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process = self._begin()
        self.clients: list[Client] = []
        self.client = self.new_client()

    def new_client(self) -> Client:
        self.clients.append(Client(Target(path=str(self.home / "run/server.sock"))))
        return self.clients[-1]

    def queue(self, name: str, **more) -> Queue:
        return Queue.from_name(name, create_if_missing=True, client=more.pop("client", self.client), **more)

    def dict(self, name: str, **more) -> Dict:
        return Dict.from_name(name, create_if_missing=True, client=self.client, **more)

    def kill(self) -> None:
        """Kill it, and start it again."""
        self.process.kill()
        self.process.communicate()
        self.process = self._begin()

    def close(self) -> None:
        for client in self.clients:
            client.shut()
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=20)
        said = (self.home.parent / "server.err").read_text()
        assert '"level": "error"' not in said, said

    def _begin(self) -> subprocess.Popen[bytes]:
        log = (self.home.parent / "server.err").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "alight.server", "--home", str(self.home), "--listen", "none"],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(SOURCE), "ALIGHT_WEB_LISTEN": "none"},
        )
        log.close()
        assert process.stdout is not None
        assert process.stdout.readline() == b"READY\n"
        return process


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("shared") / "home")
    yield served
    served.close()


@pytest.fixture
def fresh(tmp_path):
    served = Served(tmp_path / "home")
    yield served
    served.close()


class Custom:
    """A value of a class."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return isinstance(other, Custom) and other.x == self.x

    __hash__ = None


# queues


def test_values_come_in_the_order_in_which_they_were_put(shared_server):
    q = shared_server.queue("order")
    q.put("first")
    q.put_many([2, None, Custom(4), b"five"])
    assert q.len() == 5
    assert list(q.iterate()) == ["first", 2, None, Custom(4), b"five"]
    assert q.get() == "first"
    assert q.get_many(3) == [2, None, Custom(4)]
    assert q.get_many(10) == [b"five"]
    assert q.get_many(0) == []
    assert q.len() == 0


def test_an_empty_queue_says_so_as_the_reference_does(shared_server):
    q = shared_server.queue("empty")
    assert q.get(block=False) is None
    assert q.get_many(3, block=False) == []
    with pytest.raises(queue.Empty, match="nothing came to Queue"):
        q.get(timeout=0.05)
    with pytest.raises(queue.Empty):
        q.get_many(3, timeout=0)


def test_partitions_know_nothing_of_one_another(shared_server):
    q = shared_server.queue("partitions")
    q.put(1)
    q.put_many([2, 3], partition="a")
    q.put(4, partition="ü" * 32)
    assert (q.len(), q.len(partition="a"), q.len(total=True)) == (1, 2, 4)
    assert q.get(partition="a") == 2
    q.clear(partition="a")
    assert (q.len(partition="a"), q.len(total=True)) == (0, 2)
    q.clear(all=True)
    assert q.len(total=True) == 0
    q.put(5, partition="a")
    assert q.get(partition="a") == 5


def test_a_full_partition_refuses_waits_and_goes_on(shared_server):
    q = shared_server.queue("full")
    q.put_many(list(range(5_000)))
    with pytest.raises(queue.Full, match="5,000 values"):
        q.put("more", block=False)
    with pytest.raises(queue.Full, match=r"within 0\.05 s"):
        q.put("more", timeout=0.05)
    q.put("other", partition="p", block=False)
    assert q.get_many(10) == list(range(10))
    with pytest.raises(queue.Full):
        q.put_many(list(range(11)), block=False)  # all of them or none
    assert q.len() == 4_990
    done = []
    waiting = threading.Thread(target=lambda: done.append(q.put_many(["a"] * 20)))
    waiting.start()
    while not done:
        q.get_many(5)
        waiting.join(0.02)
    assert q.len() <= 5_000
    q.clear()


def test_bad_input_gets_a_sentence(shared_server):
    q = shared_server.queue("bad")
    with pytest.raises(errors.RequestSizeError, match="at most 1,048,576 bytes"):
        q.put(b"x" * (1 << 20))
    with pytest.raises(errors.RequestSizeError, match="number 1 of 2"):
        q.put_many([1, b"x" * (1 << 20)])
    assert q.len() == 0  # nothing of it was sent
    with pytest.raises(errors.SerializationError, match=r"number 2 of 3.*cannot be pickled"):
        q.put_many([1, 2, threading.Lock()])
    with pytest.raises(errors.InvalidError, match="not both"):
        q.len(partition="a", total=True)
    with pytest.raises(errors.InvalidError, match="not both"):
        q.clear(partition="a", all=True)
    for partition in ("", "x" * 65, "ü" * 33):
        with pytest.raises(errors.InvalidError, match="1 to 64 bytes"):
            q.get(partition=partition, block=False)
    with pytest.raises(errors.InvalidError, match="partition of a queue is text"):
        q.put(1, partition=3)
    with pytest.raises(errors.InvalidError, match="partition_ttl"):
        q.put(1, partition_ttl=0)
    with pytest.raises(errors.InvalidError, match="timeout"):
        q.get(timeout=-1)
    with pytest.raises(errors.InvalidError, match="not the id of a queue"):
        Queue.from_id("di-0000000000000000000000")
    with pytest.raises(errors.NotFoundError, match="no queue 'nowhere' in environment"):
        Queue.from_name("nowhere", client=shared_server.client).get()
    with pytest.raises(errors.NotFoundError, match="no queue qu-0000000000000000000000"):
        Queue.from_id("qu-0000000000000000000000", client=shared_server.client).put(1)


def test_a_blocked_get_is_woken_by_the_put_and_served_in_turn(shared_server):
    q = shared_server.queue("turns")
    got = queue.Queue()
    clients = [shared_server.new_client() for _ in range(4)]

    def consume(number, client, count):
        got.put((number, shared_server.queue("turns", client=client).get_many(count)))

    threads = []
    for number, client in enumerate(clients):
        threads.append(threading.Thread(target=consume, args=(number, client, 2)))
        threads[-1].start()
        time.sleep(0.1)  # one after the other: nothing tells from outside that a get waits
    q.put_many([0, 1, 2, 3, 4])
    found = dict(got.get(timeout=10) for _ in range(3))
    assert found == {0: [0, 1], 1: [2, 3], 2: [4]}
    q.put(5)
    assert got.get(timeout=10) == (3, [5])
    for one in threads:
        one.join()
    for client in clients:
        client.shut()


def test_a_waiter_whose_client_is_gone_takes_nothing(shared_server):
    q = shared_server.queue("gone")
    gone = shared_server.new_client()
    failed = queue.Queue()

    def wait():
        try:
            shared_server.queue("gone", client=gone).get()
        except errors.Error as error:
            failed.put(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    gone.shut()
    assert isinstance(failed.get(timeout=10), errors.ClientClosed)
    thread.join()
    q.put("precious")
    assert q.get(timeout=10) == "precious"


def test_a_cancelled_get_gives_back_what_was_taken_for_it(shared_server):
    q = shared_server.queue("cancelled")

    async def main():
        for number in range(40):
            waiting = asyncio.ensure_future(q.get.aio())
            await asyncio.sleep(0.002)
            putting = asyncio.ensure_future(q.put.aio(number))
            await asyncio.sleep(0.0005 * (number % 8))
            waiting.cancel()
            try:
                got = await waiting
            except asyncio.CancelledError:
                await putting
                got = await q.get.aio(timeout=10)
            await putting
            assert got == number

    asyncio.run(main())
    assert q.len() == 0


def test_iterate_waits_for_more_and_takes_nothing(shared_server):
    q = shared_server.queue("iterated")
    q.put_many(list(range(2_500)))
    assert list(q.iterate()) == list(range(2_500))
    seen = []

    def follow():
        for one in q.iterate(item_poll_timeout=20):
            seen.append(one)
            if one == "last":
                return

    thread = threading.Thread(target=follow)
    thread.start()
    while len(seen) < 2_500:
        time.sleep(0.01)
    while q.len():
        q.get_many(1_000)  # what is taken under its eyes, and a partition that is empty for a while, do not confuse it
    q.put("last")
    thread.join(20)
    assert seen[-1] == "last"
    assert q.len() == 1


def test_large_items_travel_in_pieces(shared_server):
    q = shared_server.queue("large-items")
    values = [bytes([number]) * 900_000 for number in range(60)]
    q.put_many(values)
    assert q.get_many(60) == values


def test_async_forms_are_the_same(shared_server):
    async def main():
        async with Queue.ephemeral.aio(client=shared_server.client) as q:
            await q.put.aio(1)
            await q.put_many.aio([2, 3])
            assert [one async for one in q.iterate.aio()] == [1, 2, 3]
            assert await q.get.aio() == 1
            assert await q.len.aio() == 2
            await asyncio.gather(*(q.put.aio(number) for number in range(50)))
            assert len(await q.get_many.aio(100)) == 52
            await q.clear.aio()
        async with Dict.ephemeral.aio(client=shared_server.client) as d:
            await d.put.aio("a", 1)
            await d.update.aio({"b": 2}, c=3)
            assert {key: value async for key, value in d.items.aio()} == {"a": 1, "b": 2, "c": 3}
            assert await d.pop.aio("a") == 1
            assert not await d.contains.aio("a")

    asyncio.run(main())


# dicts


def test_a_dict_is_a_dict(shared_server):
    d = shared_server.dict("plain")
    d["a"] = {"deep": [1, 2]}
    assert d["a"] == {"deep": [1, 2]}
    d["a"]["deep"].append(3)  # a copy: nothing changes there
    assert d.get("a") == {"deep": [1, 2]}
    assert "a" in d
    assert "b" not in d
    assert d.get("b") is None
    assert d.get("b", 7) == 7
    with pytest.raises(KeyError, match="b"):
        d["b"]
    with pytest.raises(KeyError, match="b"):
        d.pop("b")
    with pytest.raises(KeyError, match="b"):
        del d["b"]
    assert d.pop("b", None) is None
    assert d.put("a", None)
    assert not d.put("a", 2, skip_if_exists=True)
    assert d.put("c", 3, skip_if_exists=True)
    assert d["a"] is None
    assert d.get("a", 5) is None
    d.update([("x", 1)], y=2)
    assert sorted(d.keys()) == ["a", "c", "x", "y"]
    assert sorted(d.items(), key=str) == [("a", None), ("c", 3), ("x", 1), ("y", 2)]
    assert d.len() == 4
    del d["a"]
    d.clear()
    assert (d.len(), list(d.values())) == (0, [])


def test_keys_are_the_same_when_their_pickles_are(shared_server):
    d = shared_server.dict("keys")
    keys = [1, 1.0, True, "1", b"1", (1, "a"), None, ("x", "x")]
    for number, key in enumerate(keys):
        d[key] = number
    assert d.len() == len(keys)
    assert [d[key] for key in keys] == list(range(len(keys)))
    # Whatever objects a tuple is made of.
    assert key_bytes(("ab", "ab")) == key_bytes(("ab", "ABC".lower()[:2]))
    assert set(map(repr, d.keys())) == set(map(repr, keys))


def test_large_values_go_beside_and_are_replaced(shared_server):
    d = shared_server.dict("large")
    d["big"] = b"1" * 5_000_000
    d["small"] = 1
    assert d["big"] == b"1" * 5_000_000
    d["big"] = b"2" * 3_000_000
    assert dict(d.items()) == {"big": b"2" * 3_000_000, "small": 1}
    assert sorted(map(len, (value for value in d.values() if value != 1))) == [3_000_000]
    assert d.pop("big") == b"2" * 3_000_000
    assert list(d.keys()) == ["small"]


def test_many_entries_are_set_and_read_in_pages(shared_server):
    d = shared_server.dict("many")
    d.update({number: str(number) for number in range(12_000)})
    assert d.len() == 12_000
    assert dict(d.items()) == {number: str(number) for number in range(12_000)}
    some = iter(d.keys())
    assert next(some) == 0
    some.close()  # the rest is not wanted
    d.update(dict.fromkeys(range(20), "x" * 300_000))
    assert sum(len(value) for value in d.values()) > 6_000_000


def test_what_a_dict_does_not_take_is_said(shared_server):
    d = shared_server.dict("refuses")
    with pytest.raises(errors.SerializationError, match="the value for the key 'lock'"):
        d["lock"] = threading.Lock()
    with pytest.raises(errors.SerializationError, match="the key of a Dict"):
        d[threading.Lock()] = 1
    with pytest.raises(errors.RequestSizeError, match=r"65,536 bytes.*"):
        d["k" * 70_000] = 1
    with pytest.raises(errors.InvalidError, match="not the id of a dict"):
        Dict.from_id("qu-0000000000000000000000")
    with pytest.raises(errors.InvalidError, match="cannot be the name of a dict"):
        Dict.from_name("no/name")
    with pytest.raises(errors.NotFoundError, match="no dict 'nowhere'"):
        Dict.from_name("nowhere", client=shared_server.client).len()
    assert d.len() == 0


def test_of_many_who_set_if_absent_one_wins(shared_server):
    d = shared_server.dict("race")
    won = []
    threads = [
        threading.Thread(target=lambda n=number: won.append(n) if d.put("lock", n, skip_if_exists=True) else None)
        for number in range(12)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert won == [d["lock"]]


# names, environments, ephemeral ones


@pytest.mark.parametrize("kind", [Dict, Queue])
def test_objects_are_made_listed_and_deleted(shared_server, kind):
    client, name = shared_server.client, f"managed-{kind.__name__}"
    kind.objects.create(name, client=client)
    with pytest.raises(errors.AlreadyExistsError, match="already"):
        kind.objects.create(name, client=client)
    kind.objects.create(name, allow_existing=True, client=client)
    kind.objects.create(name, environment_name="other", client=client)
    newest = kind.objects.list(max_objects=1, client=client)
    assert [one.name for one in newest] == [name]
    assert newest[0].is_hydrated
    assert kind.objects.list(created_before="2001-01-01", client=client) == []
    assert [one.name for one in kind.objects.list(environment_name="other", client=client)] == [name]
    found = kind.from_name(name, client=client)
    info = found.info()
    assert (info.name, info.created_by) == (name, "owner")
    again = kind.from_id(found.object_id, client=client)
    assert again.info() == info
    kind.objects.delete(name, client=client)
    with pytest.raises(errors.NotFoundError):
        found.len()
    with pytest.raises(errors.NotFoundError):
        kind.objects.delete(name, client=client)
    kind.objects.delete(name, allow_missing=True, client=client)
    assert kind.from_name(name, environment_name="other", client=client).len() == 0


def test_environments_have_their_own(shared_server):
    here, there = shared_server.queue("same"), shared_server.queue("same", environment_name="elsewhere")
    here.put("here")
    assert there.len() == 0
    assert here.get() == "here"


def test_an_ephemeral_one_lives_as_long_as_its_block(shared_server):
    with Queue.ephemeral(client=shared_server.client, _heartbeat_sleep=0.01) as q:
        q.put(1)
        copy = pickle.loads(pickle.dumps(q))
        copy._client = shared_server.client
        assert copy.get() == 1
        time.sleep(0.1)  # some heartbeats
        assert q.name is None
        names = [one.object_id for one in Queue.objects.list(client=shared_server.client)]
        assert q.object_id not in names
    with pytest.raises(errors.NotFoundError, match="no queue"):
        q.put(2)
    with pytest.raises(errors.NotFoundError, match="nameless"):
        call_blocking(shared_server.client.do("ephemeral.keep", EphemeralNamed(q.object_id)))


def test_the_error_of_a_block_leaves_no_ephemeral_one(shared_server):
    made = []

    def block():
        with Dict.ephemeral(client=shared_server.client) as d:
            made.append(d)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()
    with pytest.raises(errors.NotFoundError):
        made[0].len()


# kills


def test_a_killed_server_has_it_all_again(fresh):
    q, d = fresh.queue("q"), fresh.dict("d")
    q.put_many(list(range(100)))
    assert q.get_many(30) == list(range(30))
    d.update({number: number for number in range(50)})
    d["large"] = b"x" * 3_000_000
    with Queue.ephemeral(client=fresh.client) as nameless:
        nameless.put("kept")
        fresh.kill()
        assert nameless.get(timeout=10) == "kept"
        nameless.put("left")
    assert q.len() == 70
    assert q.get_many(100) == list(range(30, 100))
    assert d.len() == 51
    assert d["large"] == b"x" * 3_000_000


@pytest.mark.timeout(120)
def test_nothing_is_lost_or_given_twice_while_the_server_is_killed(fresh):
    """Producers and consumers at work, and the server killed again and again under them."""
    fresh.queue("work").hydrate()
    done, over, faults = [], threading.Event(), []

    def produce(number):
        client = fresh.new_client()
        q = fresh.queue("work", client=client)
        at = 0
        try:
            while at < MANY:
                count = 1 + (at + number) % 4
                some = [(number, one) for one in range(at, min(MANY, at + count))]
                q.put(some[0]) if len(some) == 1 else q.put_many(some)
                at += len(some)
        except Exception as error:  # noqa: BLE001  shown by the test
            faults.append(error)

    def consume(number):
        client = fresh.new_client()
        q = fresh.queue("work", client=client)
        try:
            while not over.is_set():
                try:
                    done.extend([q.get(timeout=0.5)] if number % 2 else q.get_many(5, timeout=0.5))
                except queue.Empty:
                    continue
        except Exception as error:  # noqa: BLE001  shown by the test
            faults.append(error)

    producers = [threading.Thread(target=produce, args=(number,)) for number in range(3)]
    consumers = [threading.Thread(target=consume, args=(number,)) for number in range(3)]
    for one in (*producers, *consumers):
        one.start()
    kills = 0
    while any(one.is_alive() for one in producers) and kills < 6:
        seen = len(done)
        while len(done) < seen + 100 and any(one.is_alive() for one in producers):
            time.sleep(0.005)
        fresh.kill()
        kills += 1
    for one in producers:
        one.join(60)
    deadline = time.monotonic() + 30
    while len(done) < 3 * MANY and time.monotonic() < deadline:
        time.sleep(0.02)
    over.set()
    for one in consumers:
        one.join(60)
    assert not faults
    assert kills >= 3
    assert len(done) == len(set(done)), "given twice"
    assert set(done) == {(number, one) for number in range(3) for one in range(MANY)}
