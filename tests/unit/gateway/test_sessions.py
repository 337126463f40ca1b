"""Protects sessions: their requests go to one container as long as it lives, and nowhere else after it."""

from __future__ import annotations

import pytest

from alight.gateway.pools import Lease, Pool
from alight.gateway.sessions import Sessions
from alight.gateway.table import Target
from tests.unit.gateway.test_requests import live
from tests.unit.gateway.world import World, answer


class Waiter:
    def __init__(self):
        self.lease, self.refused = None, None

    def begin(self, lease):
        self.lease = lease

    def refuse(self, status, said):
        self.refused = status


class Scheduler:
    def __init__(self):
        self.asked, self.ended = 0, []

    def ask(self, function_id):
        self.asked += 1
        return f"wl-{self.asked}"

    def end(self, lease_id, *, timed_out=False):
        self.ended.append(lease_id)

    def cancel(self, lease_id):
        pass


class Place:
    """One function with sessions, and requests of them: ``enter`` is what an exchange does."""

    def __init__(self, *containers, capacity=1):
        self.scheduler, self.sessions = Scheduler(), Sessions()
        self.pool = Pool("fu-1", self.scheduler)
        self.pool.capacity = capacity
        for name in containers:
            self.give(name)

    def give(self, name):
        lease_id = next(iter(self.pool.pending), f"wl-{name}")
        self.pool.pending.setdefault(lease_id, Lease(self.pool, lease_id))
        return self.pool.on_given(lease_id, name, 0.0)

    def start(self, idle_timeout=600.0):
        _, token = self.sessions.start("fu-1", idle_timeout, 0.0)
        return token, self.sessions.find("fu-1", token, 0.0)

    def enter(self, session, now=0.0):
        waiter = Waiter()
        session.enter(waiter, self.pool, now)
        if waiter.lease is not None:
            session.begin(waiter.lease)
        return waiter

    def over(self, session, waiter, now=0.0):
        session.leave(waiter, now)
        self.pool.release(waiter.lease, now, 0.1)


def test_requests_of_a_session_stay_and_sessions_spread():
    place = Place("ta-1", "ta-2", capacity=10)
    found = []
    for _ in range(4):
        _, session = place.start()
        containers = set()
        for _ in range(3):
            waiter = place.enter(session)
            containers.add(waiter.lease.container_id)
            place.over(session, waiter)
        assert len(containers) == 1
        found += containers
    assert sorted(found) == ["ta-1", "ta-1", "ta-2", "ta-2"]


def test_a_request_waits_for_its_container_though_another_is_free():
    place = Place("ta-1", "ta-2")
    _, session = place.start()
    first = place.enter(session)
    second = place.enter(session)
    assert second.lease is None
    place.over(session, first)
    assert second.lease is first.lease


def test_requests_that_come_before_there_is_a_container_wait_for_the_choice_of_the_first():
    place = Place()
    _, session = place.start()
    waiters = [place.enter(session) for _ in range(3)]
    place.pool.capacity = 10
    assert place.scheduler.asked == 1
    lease = place.give("ta-1")
    session.begin(lease)
    assert {one.lease for one in waiters} == {lease}


def test_one_that_leaves_before_it_has_chosen_passes_the_choice_on():
    place = Place()
    _, session = place.start()
    first, second = place.enter(session), place.enter(session)
    place.pool.leave(first)
    session.leave(first, 0.0)
    place.give("ta-1")
    assert second.lease is not None


def test_a_container_with_sessions_is_kept_and_goes_after_them():
    place = Place("ta-1")
    token, session = place.start(idle_timeout=10.0)
    place.over(session, place.enter(session))
    place.pool.tick(5.0, 1.0)
    assert not place.scheduler.ended
    place.sessions.tick(9.0)
    assert place.sessions.find("fu-1", token, 9.0) is session
    place.sessions.tick(10.0)
    assert place.sessions.find("fu-1", token, 10.0) is None
    place.pool.tick(12.0, 1.0)
    assert len(place.scheduler.ended) == 1


def test_a_request_under_way_keeps_its_session():
    place = Place("ta-1")
    token, session = place.start(idle_timeout=10.0)
    waiter = place.enter(session)
    place.sessions.tick(1000.0)
    assert place.sessions.find("fu-1", token, 1000.0) is session
    place.over(session, waiter, 1000.0)
    assert place.sessions.find("fu-1", token, 1009.0) is session


def test_an_older_version_keeps_its_sessions_and_takes_nobody_else():
    place = Place("ta-1", capacity=10)
    token, session = place.start()
    waiter = place.enter(session)
    place.pool.close(waiter.lease)
    place.over(session, waiter)
    assert not place.scheduler.ended
    other = Waiter()
    place.pool.enter(other, 0.0)
    assert other.lease is None
    again = place.enter(session)
    assert again.lease is waiter.lease
    place.over(session, again)
    assert place.sessions.terminate("fu-1", token, 0.0)
    assert len(place.scheduler.ended) == 1


def test_the_loss_of_a_container_ends_its_sessions_and_refuses_who_waits_for_it():
    place = Place("ta-1", "ta-2")
    token, session = place.start()
    first, second = place.enter(session), place.enter(session)
    place.sessions.lost(first.lease, 0.0)
    assert second.refused == 410
    assert place.sessions.find("fu-1", token, 0.0) is None


def test_a_session_that_ends_before_it_has_a_container_refuses_who_waits_for_the_choice():
    place = Place()
    token, session = place.start()
    place.enter(session)
    second = place.enter(session)
    assert place.sessions.terminate("fu-1", token, 0.0)
    assert second.refused == 410


def test_a_token_is_for_one_function():
    place = Place()
    token, _ = place.start()
    assert place.sessions.find("fu-2", token, 0.0) is None
    assert not place.sessions.terminate("fu-2", token, 0.0)
    assert place.sessions.find("fu-1", token + "x", 0.0) is None


SESSIONED = Target("fu-1", "hello", slots=1, sessioned=True, protected=True)


def ask(token, word=b"Alight-Authorization"):
    shown = b"%b: Bearer %b\r\nAlight-Session-Id: forged\r\n\r\n" % (word, token)
    return b"GET /x HTTP/1.1\r\nHost: hello.localhost\r\n" + shown


@live
@pytest.mark.parametrize("word", [b"Alight-Authorization", b"Modal-Authorization"])
async def test_the_token_opens_its_server_and_the_container_sees_the_id_alone(word):
    async with World() as world:
        world.serve(SESSIONED)
        session_id, token = world.gateway.start_session("fu-1", 600.0)
        async with world.client(ask(token.encode(), word)) as (reader, _):
            first = await world.request()
            assert first.fields[b"alight-session-id"] == session_id.encode()
            assert not {b"alight-authorization", b"modal-authorization"} & set(first.fields)
            async with world.client(ask(token.encode(), word)) as (other, _):
                first.respond(b"one")
                assert (await answer(reader))[2] == b"one"
                second = await world.request()
                assert second.container.name == first.container.name
                second.respond(b"two")
                assert (await answer(other))[2] == b"two"
            assert len(world.leases) == 1


@live
async def test_without_a_session_a_token_of_the_function_is_wanted_as_ever():
    async with World() as world:
        world.serve(SESSIONED)
        said = await world.said(b"GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: close\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 401")


@live
async def test_a_session_that_is_over_is_a_410_with_a_sentence():
    async with World() as world:
        world.serve(SESSIONED)
        _, token = world.gateway.start_session("fu-1", 600.0)
        assert world.gateway.sessions.terminate("fu-1", token, world.gateway.now())
        async with world.client(ask(token.encode())) as (reader, _):
            first, _, body = await answer(reader)
            assert first.startswith(b"HTTP/1.1 410")
            assert b"start another one" in body


@live
async def test_a_lost_container_ends_its_session_and_nothing_is_tried_elsewhere():
    async with World() as world:
        world.serve(SESSIONED)
        _, token = world.gateway.start_session("fu-1", 600.0)
        async with world.client(ask(token.encode())) as (reader, writer):
            await world.request()
            world.gateway.lost(world.leases[0])
            first, _, _ = await answer(reader)
            assert first.startswith(b"HTTP/1.1 502")
            writer.write(ask(token.encode()))
            first, _, _ = await answer(reader)
            assert first.startswith(b"HTTP/1.1 410")
        assert world.arrived.empty()
