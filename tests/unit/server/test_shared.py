"""Dicts, queues and nameless objects in a whole server: repeated requests, lost readers, time, full disks."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from alight.server.auth import CONTAINER, OWNER, Principal
from alight.server.services import ephemeral, queues, shared_store
from alight.wire import errors
from alight.wire.deploying import EnvironmentNamed
from alight.wire.shared import (
    DictCount,
    DictKeys,
    DictPut,
    EphemeralNamed,
    QueueBack,
    QueueGet,
    QueueItems,
    QueueLeft,
    QueuePut,
    QueueWhich,
    SharedEnsure,
    SharedInfo,
    SharedNamed,
)

DAY = 86_400.0


def request(letter):
    return letter + os.urandom(16).hex()


class User:
    """Puts and gets as messages, so that they can be said again."""

    def __init__(self, client, queue_id):
        self.client = client
        self.queue_id = queue_id

    async def put(self, *items, **more):
        asked = QueuePut(self.queue_id, tuple(map(len, items)), more.pop("request", None) or request("p"), **more)
        return await self.client.peer.call("queue.put", asked, QueueLeft, b"".join(items))

    async def get(self, count=1, **more):
        stream = await self.open_get(count, **more)
        return await self.read(stream)

    async def open_get(self, count=1, **more):
        asked = QueueGet(self.queue_id, more.pop("request", None) or request("g"), count, **{"wait": 0.0, **more})
        return await self.client.peer.open("queue.get", asked, end=True)

    async def read(self, stream):
        found = []
        while (message := await asyncio.wait_for(stream.recv(), 5)) is not None:
            at = 0
            for size in stream.decode(QueueItems, message[0]).sizes:
                found.append(message[1][at : at + size])
                at += size
        return found

    async def len(self, **which):
        return (await self.client.ask("queue.len", QueueWhich(self.queue_id, **which), DictCount)).count

    async def back(self, name):
        await self.client.peer.call("queue.back", QueueBack(self.queue_id, name), dict)


async def new_queue(world, **ensure):
    client = await world.client()
    asked = SharedEnsure(**{"name": "q", "create": True, **ensure})
    return User(client, (await client.ask("queue.ensure", asked, SharedInfo)).object_id)


async def new_dict(world, name="d"):
    client = await world.client()
    return client, (await client.ask("dict.ensure", SharedEnsure(name, create=True), SharedInfo)).object_id


async def set_one(client, dict_id, key, value, **more):
    asked = DictPut(dict_id, (len(key), len(value)), more.pop("request", None) or request("d"), **more)
    return (await client.peer.call("dict.put", asked, DictCount, key + value)).count


def test_a_put_that_is_said_again_adds_nothing(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        name = request("p")
        for _ in range(3):
            assert await user.put(b"a", b"b", request=name) == QueueLeft()
        assert await user.len() == 2
        await asyncio.gather(*(user.put(b"c", request=name2) for name2 in [request("p")] * 4))
        assert await user.get(9) == [b"a", b"b", b"c"]

    world(work)


def test_a_get_that_is_said_again_gets_the_same_also_from_the_next_server(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        await user.put(b"a", b"b", b"c")
        name = request("g")
        assert await user.get(2, request=name) == [b"a", b"b"]
        assert await user.get(2, request=name) == [b"a", b"b"]
        await world.crash()
        await world.serve()
        again = User(await world.client(), user.queue_id)
        assert await again.len() == 1
        assert await again.get(2, request=name) == [b"a", b"b"]
        assert await again.get(2, settled=(name,)) == [b"c"]
        assert await again.get(2, request=name) == []  # it was told to forget it
        await world.crash()
        await world.serve()
        assert await User(await world.client(), user.queue_id).len(total=True) == 0

    world(work)


def test_a_waiting_get_survives_its_connection_and_one_that_is_not_asked_again_loses_nothing(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        other = User(await world.client(), user.queue_id)
        name = request("g")
        lost = await other.open_get(request=name, wait=None)
        await world.until(lambda: world.server.parts.shared.queues._waiting)
        other.client.peer.close()
        await other.client.peer.wait_closed()
        again = await user.open_get(request=name, wait=None)
        await user.put(b"a")
        assert await user.read(again) == [b"a"]
        del lost

    world(work)


def test_what_left_for_a_lost_reader_goes_back_in_a_while(world, monkeypatch):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        await user.put(b"a", b"b")
        takes = world.server.parts.shared.queues._takes
        await user.get(1, request=request("g"))
        sent = next(iter(takes.values()))
        taken = await user.open_get(1)
        await user.read(taken)
        unsent = list(takes.values())[1]
        unsent.sent = False  # as if the connection had broken while it was written down
        later = time.time() + 2 * shared_store.KEPT
        monkeypatch.setattr(time, "time", lambda: later)
        await world.server.parts.shared.clean(time.time())
        assert not takes
        assert await user.get(9) == [b"b"]
        assert sent.sent

    world(work)


def test_a_reader_that_leaves_gives_back_what_was_taken_for_it(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        await user.put(b"a", b"b", b"c")
        name = request("g")
        assert await user.get(2, request=name) == [b"a", b"b"]
        await user.back(name)
        assert await user.get(9) == [b"a", b"b", b"c"]
        waits = request("g")
        await user.open_get(1, request=waits, wait=None)
        await world.until(lambda: world.server.parts.shared.queues._waiting)
        await user.back(waits)
        await user.put(b"d")
        assert await user.get() == [b"d"]
        await user.back(request("g"))  # of which nobody knows anything

    world(work)


def test_a_partition_lives_so_long_after_its_last_put(world, monkeypatch):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        await user.put(b"short", partition="s", ttl=10.0)
        await user.put(b"long", partition="l")
        await user.put(b"renewed", partition="r", ttl=10.0)
        await user.put(b"renewed", partition="r")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 60)
        assert await user.len(partition="s") == 0
        assert await user.len(total=True) == 3
        monkeypatch.setattr(time, "time", lambda: now + DAY + 60)
        await world.server.parts.shared.clean(now + DAY + 60)
        assert await user.len(total=True) == 0
        store = world.server.parts.shared.queues._store
        await store.flush()
        assert await store.read("queue_ids") == []

    world(work)


def test_a_queue_that_nobody_uses_leaves_memory_and_comes_back(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        await user.put(b"a", b"b")
        shared = world.server.parts.shared
        shared.queues._held[user.queue_id].result().used_at -= 3600
        await shared.clean(time.time())
        assert not shared.queues._held
        assert shared.queues._values._have == 0
        assert await user.get(9) == [b"a", b"b"]

    world(work)


def test_a_full_disk_is_said_and_nothing_is_half_done(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        await user.put(b"kept")
        waiting = await user.open_get(1, partition="other", wait=None)
        store = world.server.parts.shared.queues._store
        store.limit_pages(1)
        with pytest.raises(errors.ResourceExhaustedError, match=r"shared\.db is full"):
            await user.put(b"x" * 500_000, b"y" * 500_000)
        with pytest.raises(errors.ResourceExhaustedError, match=r"shared\.db is full"):
            await user.put(b"x" * 500_000, partition="other")
        assert await user.len() == 1
        store.limit_pages(1 << 30)
        await user.put(b"after")
        await user.put(b"handed over", partition="other")
        assert await user.read(waiting) == [b"handed over"]
        assert await user.get(9) == [b"kept", b"after"]

    world(work)


def test_a_get_takes_items_that_are_not_in_memory_or_need_more_than_one_message(world):
    """The way of requests that are served at once ends where something has to be read first."""

    async def work(world):
        await world.serve()
        user = await new_queue(world)
        big = os.urandom(700 << 10)
        await user.put(b"a")
        await user.put(big, b"b", big)
        await world.crash()
        await world.serve()
        again = User(await world.client(), user.queue_id)
        assert await again.len() == 4  # it is in memory from here on, its values are not
        assert await again.get() == [b"a"]
        for _ in range(4):
            await again.put(big)
        assert await again.get(9) == [big, b"b", big]
        assert await again.get(9) == [big, big, big, big]
        assert await again.len() == 0

    world(work)


def test_what_was_put_for_one_that_has_gone_is_there_for_the_next(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        await user.put(b"a")
        name = request("p")
        leaving = User(await world.client(), user.queue_id)
        asked = QueuePut(user.queue_id, (1,), name)
        await leaving.client.peer.open("queue.put", asked, b"b", end=True)
        leaving.client.peer.close()
        assert await user.put(b"b", request=name) == QueueLeft()  # whichever came first
        assert await user.get(9) == [b"a", b"b"]
        assert (await user.len(total=True)) == 0

    world(work)


def test_deleting_a_queue_wakes_who_waits_for_it(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        await user.put(b"in another partition", partition="p")
        waiting = await user.open_get(wait=None)
        await world.until(lambda: world.server.parts.shared.queues._waiting)
        await user.client.ask("queue.delete", SharedNamed("q"), dict)
        with pytest.raises(errors.NotFoundError, match="deleted"):
            await user.read(waiting)
        with pytest.raises(errors.NotFoundError, match="no queue"):
            await user.put(b"a")
        assert await world.server.parts.shared.queues._store.read("queue_ids") == []

    world(work)


@pytest.mark.parametrize(
    "asked",
    [
        {"sizes": (3,)},
        {"sizes": (-1, 3)},
        {"sizes": ()},
        {"request": "p" + "x" * 32},
        {"request": "g" + "0" * 32},
        {"ttl": -1.0},
        {"ttl": float("inf")},
        {"partition": "x" * 65},
    ],
)
def test_a_hostile_put_is_refused(world, asked):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        fields = {"sizes": (2,), "request": request("p"), **asked}
        with pytest.raises(errors.InvalidError):
            await user.client.peer.call("queue.put", QueuePut(user.queue_id, **fields), QueueLeft, b"ab")
        assert await user.len(total=True) == 0

    world(work)


def test_a_request_of_one_queue_says_nothing_of_another(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world)
        other = User(user.client, (await new_queue(world, name="other")).queue_id)
        await user.put(b"secret")
        name = request("g")
        assert await user.get(request=name) == [b"secret"]
        with pytest.raises(errors.InvalidError, match="another queue"):
            await other.get(request=name)
        await other.back(name)
        assert await user.len() == 0

    world(work)


# dicts


def test_a_change_that_is_said_again_is_done_once(world):
    async def work(world):
        await world.serve()
        client, dict_id = await new_dict(world)
        name = request("d")
        assert await set_one(client, dict_id, b"k", b"1", skip_if_exists=True, request=name) == 1
        assert await set_one(client, dict_id, b"k", b"1", skip_if_exists=True, request=name) == 1
        assert await set_one(client, dict_id, b"k", b"2", skip_if_exists=True) == 0
        old = request("d")
        await set_one(client, dict_id, b"k", b"2", request=old)
        await set_one(client, dict_id, b"k", b"3")
        await set_one(client, dict_id, b"k", b"2", request=old)  # it arrived long ago: the newer one stays
        popped = DictKeys(dict_id, request("d"))
        for _ in range(2):
            stream = await client.peer.open("dict.pop", popped, b"k", end=True)
            head, body = await stream.recv()
            assert body == b"3", head
            await set_one(client, dict_id, b"k", b"again")
        cleared = DictKeys(dict_id, request("d"))
        await client.ask("dict.clear", cleared, dict)
        await set_one(client, dict_id, b"k", b"4")
        await client.ask("dict.clear", cleared, dict)
        assert (await client.ask("dict.len", DictKeys(dict_id), DictCount)).count == 1

    world(work)


def test_entries_that_nobody_used_for_a_week_go_and_blobs_with_them(world, monkeypatch):
    async def work(world):
        await world.serve()
        client, dict_id = await new_dict(world)
        shared, blobs = world.server.parts.shared, world.server.parts.blobs

        async def pieces():
            yield b"", b"x" * 10

        blob, size = await blobs.put(pieces())
        await set_one(client, dict_id, b"large", b"", large=(blob,), lengths=(size,))
        await set_one(client, dict_id, b"used", b"1")
        assert await shared.dicts.blobs() == {blob}
        start = time.time()
        monkeypatch.setattr(time, "time", lambda: start + 6 * DAY)
        await client.peer.call("dict.get", DictKeys(dict_id), dict, b"used")
        monkeypatch.setattr(time, "time", lambda: start + 8 * DAY)
        await shared.clean(start + 8 * DAY)
        assert (await client.ask("dict.len", DictKeys(dict_id), DictCount)).count == 1
        assert blobs.path(blob).exists()  # who was told of it may still be reading it
        await shared.clean(start + 9 * DAY)
        await world.until(lambda: not blobs.path(blob).exists())
        assert await shared.dicts.blobs() == set()

    world(work)


def test_what_a_deleted_dict_left_is_removed_later(world):
    async def work(world):
        await world.serve()
        client, dict_id = await new_dict(world)
        await set_one(client, dict_id, b"k", b"1")
        await world.server.parts.store.write([("shared_delete", {"object_id": dict_id})])  # and died before the rest
        await world.server.parts.shared.clean(time.time())
        assert await world.server.parts.shared.dicts.count(dict_id) == 0

    world(work)


# names and nameless ones


def test_code_uses_what_is_in_its_own_environment_alone(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world, environment="other")
        names = world.server.parts.shared.queue_names
        inside = Principal(CONTAINER, owner=OWNER, environment="main")
        with pytest.raises(errors.PermissionDeniedError, match="environment 'main' may not use a queue of another"):
            await names.check(user.queue_id, inside)
        await names.check(user.queue_id, Principal(CONTAINER, environment="other"))
        asked = SharedEnsure(environment="other", ephemeral=True)
        nameless = await user.client.ask("queue.ensure", asked, SharedInfo)
        with pytest.raises(errors.PermissionDeniedError, match="another environment"):
            await world.server.parts.ephemeral.drop(nameless.object_id, inside)

    world(work)


def test_a_nameless_one_that_nobody_keeps_goes(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world, ephemeral=True, name="")
        kept = await new_queue(world, ephemeral=True, name="")
        await user.put(b"a")
        parts = world.server.parts
        later = time.time() + ephemeral.PATIENCE + 1
        await parts.store.write([("ephemeral_seen", {"object_id": kept.queue_id, "now": later})])
        await parts.ephemeral.expire(later)
        with pytest.raises(errors.NotFoundError):
            await user.len()
        assert await kept.len() == 0
        with pytest.raises(errors.NotFoundError, match="no nameless object"):
            await user.client.ask("ephemeral.keep", EphemeralNamed(user.queue_id), dict)
        await kept.client.ask("ephemeral.keep", EphemeralNamed(kept.queue_id), dict)

    world(work)


def test_a_server_that_was_away_gives_the_holders_time(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world, ephemeral=True, name="")
        old = {"object_id": user.queue_id, "now": 1.0}
        await world.server.parts.store.write([("ephemeral_seen", old)])
        await world.crash()
        await world.serve()
        await world.server.parts.ephemeral.expire(time.time())
        assert await User(await world.client(), user.queue_id).len() == 0

    world(work)


def test_an_environment_with_values_in_it_is_not_deleted(world):
    async def work(world):
        await world.serve()
        user = await new_queue(world, environment="full")
        with pytest.raises(errors.ConflictError, match="0 dicts and 1 queues"):
            await user.client.ask("environment.delete", EnvironmentNamed("full"), dict)
        await user.client.ask("queue.delete", SharedNamed("q", environment="full"), dict)
        await user.client.ask("environment.delete", EnvironmentNamed("full"), dict)

    world(work)


def test_partitions_and_open_gets_are_bounded(world, monkeypatch):
    async def work(world):
        monkeypatch.setattr(queues, "PARTITIONS_MOST", 3)
        monkeypatch.setattr(queues, "_TAKES_MOST", 10)
        await world.serve()
        user = await new_queue(world)
        for name in "abc":
            await user.put(b"1", partition=name)
        for name in "defg":
            with pytest.raises(errors.ResourceExhaustedError, match="3 partitions"):
                await user.put(b"1", partition=name)
        [held] = world.server.parts.shared.queues._held.values()
        assert len(held.result().partitions) == 3
        for _ in range(40):  # by a client that never says that it has them
            await user.put(b"2", partition="a")
            assert await user.get(partition="a")
        await world.until(lambda: len(world.server.parts.shared.queues._takes) <= 11)
        assert await user.len(total=True) == 3

    world(work)
