"""Maps while servers, machines, callers and containers are killed at random: every input answered, once, rightly."""

from __future__ import annotations

import asyncio
import random

import pytest

from alight.wire import errors, ids
from alight.wire.spec import Autoscaling, FunctionSpec, RetryPolicy

INPUTS = 300
KILLS = ("server", "caller", "machine", "container")


class Storm:
    """One map through what happens to it. ``runs`` counts how often each input was run."""

    def __init__(self, world, seed):
        self.world = world
        self.random = random.Random(seed)
        self.call = ids.new_id(ids.CALL)
        self.got, self.runs, self.happened = {}, {}, []
        self.begun = False

    async def function(self, x):
        self.runs[x] = self.runs.get(x, 0) + 1
        await asyncio.sleep(self.random.random() * 0.01)
        if x % 17 == 0 and self.runs[x] < 2:
            raise ValueError("again")
        return x * 3

    async def begin(self):
        await self.world.serve(node_grace=30, bodies_in_memory=self.random.choice([2000, 10_000_000]))
        self.node = await self.world.node({"f": self.function})
        self.client = await self.world.client()
        scaling = Autoscaling(max_containers=3, max_concurrent_inputs=self.random.choice([1, 5]))
        spec = FunctionSpec(name="f", retries=RetryPolicy(3, 1.0, 0.0, 1.0), autoscaling=scaling)
        _, functions = await self.client.app(spec, kind="detached")
        self.f = functions["f"]

    async def attempt(self, size):
        """Send the call, again if need be, and take what comes of it until the connection is lost or all is said."""
        client, have = self.client, tuple((one, one + 1) for one in sorted(self.got))
        stream = await client.open_map(self.f, call=self.call, resend=self.begun, have=have)
        begin = 0
        if self.begun:
            client.read(stream, *await stream.recv())
            begin = stream.accepted
        self.begun = True

        async def send():
            for at in range(begin, INPUTS, size):
                await client.send(stream, at, list(range(at, min(INPUTS, at + size))))
                await asyncio.sleep(0)
            await stream.end()

        sending = asyncio.ensure_future(send())
        try:
            while (message := await stream.recv()) is not None:
                new = client.read(stream, *message)
                assert not set(new) & set(self.got), "an input was answered twice"
                self.got.update(new)
        except errors.ConnectionError:
            pass
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def kill(self, kind):
        world, node = self.world, self.node
        self.happened.append(kind)
        if kind == "server":
            await node.disconnect()
            await world.crash()
            await world.serve(node_grace=30, bodies_in_memory=2000)
            if self.random.random() < 0.5:
                await node.connect(world.socket)
            self.client = await world.client()
            if node.peer.closed:
                await node.connect(world.socket)
        elif kind == "caller":
            self.client.peer.close()
            await self.client.peer.wait_closed()
            self.client = await world.client()
        elif kind == "machine":
            await node.disconnect()
            await asyncio.sleep(0.02)
            await node.connect(world.socket)
        elif node.containers:
            node.kill_container(self.random.choice(list(node.containers)))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_a_map_comes_whole_out_of_a_storm(world, seed):
    async def work(world):
        storm = Storm(world, seed)
        await storm.begin()
        size = storm.random.choice([1, 7, 64])
        while len(storm.got) < INPUTS:
            trying = asyncio.ensure_future(storm.attempt(size))
            if len(storm.happened) < 5:
                await asyncio.sleep(storm.random.random() * 0.2)
                await storm.kill(storm.random.choice(KILLS))
            await asyncio.wait_for(trying, 30)
        assert storm.got == {one: 3 * one for one in range(INPUTS)}
        again = [one for one, runs in storm.runs.items() if runs > 1 and one % 17]
        assert not again or "container" in storm.happened, f"{again} ran again after {storm.happened}"
        parts = world.server.parts
        await world.until(lambda: storm.call not in parts.calls.live)
        await parts.store.flush()
        row = await parts.store.one("call_by_id", call_id=storm.call)
        assert (row["succeeded"], row["failed"], row["status"]) == (INPUTS, 0, "success")
        lines = parts.calls.book.lines.values()
        assert {(line.inputs, line.running, line.calls, line.stored) for line in lines} <= {(0, 0, 0, 0)}
        assert not any(parts.calls.book.held.values())

    world(work)
