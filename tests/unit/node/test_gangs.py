"""Containers of a machine that wait for each other before their code begins."""

from __future__ import annotations

import asyncio

import pytest

from alight.node.engine.base import EngineError
from alight.node.gangs import Gangs, Member, environment
from alight.testing.fake_engine import FakeEngine
from alight.wire.commands import Cluster

IDS = ("ta-a", "ta-b")


def cluster(rank):
    return Cluster("cu-1", rank, IDS)


def test_nobody_begins_before_all_are_there(tmp_path):
    async def story():
        engine = FakeEngine(tmp_path)
        gangs = Gangs(engine)
        members = [Member(one, cluster(rank), gangs) for rank, one in enumerate(IDS)]
        first = asyncio.create_task(members[0].meet())
        await asyncio.sleep(0)
        assert (engine.told, first.done(), members[0].must_wait) == ([], False, True)
        met = await members[1].meet()
        assert (await first).addresses == met.addresses == ("192.0.2.1", "192.0.2.2")
        assert not any(one.must_wait for one in members)
        members[0].leave()
        members[1].leave()
        members[1].leave()
        await asyncio.sleep(0.01)
        assert engine.told == [("connect", "cu-1"), ("disconnect", "cu-1")]

    asyncio.run(story())


def test_who_waits_for_one_that_ended_waits_in_vain(tmp_path):
    async def story():
        gangs = Gangs(FakeEngine(tmp_path))
        waits = asyncio.create_task(gangs.meet("ta-a", cluster(0)))
        await asyncio.sleep(0)
        gangs.leave("ta-a", cluster(0))
        with pytest.raises(asyncio.CancelledError):
            await waits

    asyncio.run(story())


def test_what_keeps_them_apart_is_said_to_each(tmp_path):
    class Apart(FakeEngine):
        async def connect(self, gang, container_ids):
            raise EngineError("nft refused")

    async def story():
        gangs = Gangs(Apart(tmp_path))
        both = [gangs.meet(one, cluster(rank)) for rank, one in enumerate(IDS)]
        found = await asyncio.gather(*both, return_exceptions=True)
        assert [str(one) for one in found] == ["nft refused"] * 2

    asyncio.run(story())


def test_a_gang_of_an_earlier_agent_is_let_go_with_its_last_container(tmp_path):
    async def story():
        engine = FakeEngine(tmp_path)
        gangs = Gangs(engine)
        members = [Member(one, cluster(rank), gangs) for rank, one in enumerate(IDS)]
        for one in members:
            one.adopt()
            assert not one.must_wait
        members[0].leave()
        await asyncio.sleep(0.01)
        assert engine.told == []
        members[1].leave()
        await asyncio.sleep(0.01)
        assert engine.told == [("disconnect", "cu-1")]

    asyncio.run(story())


def test_a_container_alone_has_nothing_to_wait_for(tmp_path):
    member = Member("ta-a", None, Gangs(FakeEngine(tmp_path)))
    assert not member.must_wait
    member.adopt()
    member.leave()
    assert asyncio.run(member.meet()) is None
    assert environment(None) == {}
