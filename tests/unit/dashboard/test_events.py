"""Protects what pages hear: soon, each what is theirs, bounded however much happens and however slow they are."""

from __future__ import annotations

import asyncio

from alight.dashboard.events import SINGLE_MOST, Topics


def run(work):
    async def main():
        numbers = {"waiting": 0}
        topics = Topics(lambda owner: dict(numbers))
        await work(topics, numbers)
        topics.close()

    asyncio.run(main())


async def hear(listener):
    return await asyncio.wait_for(listener.take(2), 1.5)


def test_many_changes_are_one_word_and_come_within_a_second():
    async def work(topics, numbers):
        listener = topics.listen("")
        first = asyncio.get_running_loop().time()
        for _ in range(1000):
            topics.note("call", "fc-1", "eve")
        topics.note("container", "ta-1", "eve")
        topics.general("nodes")
        said = await hear(listener)
        assert asyncio.get_running_loop().time() - first < 1
        assert said["topics"] == ["calls", "containers", "nodes", "call:fc-1", "container:ta-1"]
        assert await listener.take(0.5) is None, "nothing is told twice"

    run(work)


def test_everybody_hears_of_what_is_theirs():
    async def work(topics, numbers):
        owner, eve, bob = topics.listen(""), topics.listen("eve"), topics.listen("bob")
        topics.note("call", "fc-eve", "eve")
        topics.note("call", "fc-gone", None)  # nobody knows any more whose it was
        assert (await hear(owner))["topics"] == ["calls", "call:fc-eve", "call:fc-gone"]
        assert (await hear(eve))["topics"] == ["calls", "call:fc-eve"]
        assert not (await hear(bob))["topics"], "its first word is of numbers alone"
        assert await bob.take(0.5) is None

    run(work)


def test_a_flood_and_a_reader_that_sleeps_cost_no_memory():
    async def work(topics, numbers):
        listener = topics.listen("")
        for turn in range(4):
            for number in range(5000):
                topics.note("call", f"fc-{turn}-{number}", "eve")
            await asyncio.sleep(0.25)
        assert sum(map(len, listener._single.values())) <= SINGLE_MOST
        said = await hear(listener)
        assert said["many"] == ["call"]
        assert "calls" in said["topics"]

    run(work)


def test_numbers_that_change_are_told():
    async def work(topics, numbers):
        listener = topics.listen("")
        numbers["waiting"] = 7
        assert (await asyncio.wait_for(listener.take(5), 5))["counts"] == {"waiting": 7}

    run(work)


def test_nothing_runs_while_nobody_looks():
    async def work(topics, numbers):
        heard = []
        topics._heard = heard.append
        topics.note("call", "fc-1", "eve")
        assert not topics._fresh
        listener = topics.listen("")
        assert heard == [True]
        listener.close()
        assert heard == [True, False]
        assert topics._timer is None
        listener.close()

    run(work)
