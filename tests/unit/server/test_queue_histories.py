"""A queue beside a plain list: histories of puts and gets that are said again, given back, and lost with servers."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alight.server.services.queues import Queues
from alight.server.services.shared_store import SharedStore
from alight.wire.shared import QueueGet, QueuePut, QueueWhich
from tests.unit.generated import times

QUEUE = "qu-0000000000000000000000"
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk's flushes would be most of its time
STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 4), st.integers(1, 3)),  # values, how often it is said
    st.tuples(st.just("get"), st.integers(1, 6), st.sampled_from(["arrived", "open", "said again", "back"])),
    st.tuples(st.just("again"), st.integers(0, 5), st.none()),
    st.tuples(st.just("settle"), st.none(), st.none()),
    st.tuples(st.just("crash"), st.none(), st.none()),
    st.tuples(st.just("wait and put"), st.integers(1, 3), st.integers(1, 3)),
)


class Reader:
    """The other end of a request, which stays."""

    broken = False

    async def wait_broken(self):
        await asyncio.Event().wait()


class History:
    """Ours, and what it must be like."""

    def __init__(self, path):
        self.path = path
        self.begin()
        self.there = []  # [(place, value)]: what may be taken, in order
        self.out = {}  # request: what it got, while its answer counts as not arrived
        self.told = []  # requests whose answers have arrived, and the server has not been told
        self.count = 0

    def begin(self):
        self.shared = SharedStore(self.path)
        self.queues = Queues(self.shared)

    async def crash(self):
        """End without a goodbye: what waits for company is not written."""
        store = await self.shared.get()
        with store._wake:
            store._jobs.clear()
        await self.shared.close()
        self.begin()

    async def put(self, count, times, name=None):
        values = [str(self.count + index).encode() for index in range(count)]
        request = name or "p" + os.urandom(16).hex()
        asked = QueuePut(QUEUE, tuple(map(len, values)), request, settled=self.settled())
        for _ in range(times):
            await self.queues.put(asked, b"".join(values), Reader())
        self.there += [(self.count + index, value) for index, value in enumerate(values)]
        self.count += count

    async def get(self, count, request, wait=0.0):
        asked = QueueGet(QUEUE, request, count, wait=wait, settled=self.settled())
        found = []
        async for items, body in self.queues.get(asked, Reader()):
            at = 0
            for size in items.sizes:
                found.append(body[at : at + size])
                at += size
        return found

    def settled(self):
        told, self.told = tuple(self.told), []
        return told

    def took(self, found, count, request):
        """The model takes the same: from the front, at least one where there is any."""
        assert [value for _, value in self.there[: len(found)]] == found
        assert len(found) <= count
        assert bool(found) == bool(self.there)
        self.out[request] = self.there[: len(found)]
        del self.there[: len(found)]

    async def step(self, what, number, more):
        if what == "put":
            await self.put(number, more)
        elif what == "get":
            request = "g" + os.urandom(16).hex()
            found = await self.get(number, request)
            self.took(found, number, request)
            if more == "said again":
                assert await self.get(number, request) == [value for _, value in self.out[request]]
            elif more == "arrived":
                del self.out[request]
                self.told.append(request)
            elif more == "back":
                await self.queues.back(QUEUE, request)
                self.there = sorted([*self.out.pop(request), *self.there])
        elif what == "again" and self.out:
            request = sorted(self.out)[number % len(self.out)]
            if self.out[request]:
                assert await self.get(9, request) == [value for _, value in self.out[request]]
        elif what == "settle":
            await self.queues.settle(self.settled())
        elif what == "crash":
            await self.crash()
        elif what == "wait and put" and not self.there:
            requests = ["g" + os.urandom(16).hex() for _ in range(2)]
            waiting = [asyncio.ensure_future(self.get(number, request, wait=5.0)) for request in requests]
            while len(self.queues._waiting) < 2:  # noqa: ASYNC110  a part that knows no event
                await asyncio.sleep(0)
            await self.put(number + more, 1)  # the first who waits gets its fill, the second the rest
            for request, one in zip(requests, waiting, strict=True):
                self.took(await one, number, request)

    async def run(self, steps):
        try:
            for step in steps:
                await self.step(*step)
                assert await self.queues.count(QueueWhich(QUEUE)) == len(self.there)
            left = []
            while found := await self.get(100, "g" + os.urandom(16).hex()):
                left += found
            assert left == [value for _, value in self.there]
        finally:
            await self.shared.close()


@given(st.lists(STEPS, max_size=25))
@settings(max_examples=times(20))
@pytest.mark.timeout(600)
def test_ours_is_the_list(steps):
    with tempfile.TemporaryDirectory(dir=QUICK) as folder:

        async def main():
            await History(Path(folder) / "shared.db").run(steps)

        asyncio.run(main())
