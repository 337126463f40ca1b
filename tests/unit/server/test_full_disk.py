"""A disk that takes no results: they wait in a bounded memory, nothing is acknowledged, and all goes on with it."""

from __future__ import annotations

import asyncio

import pytest

from alight.server.services import recording
from alight.wire import errors
from alight.wire.spec import Autoscaling, FunctionSpec

BIG = FunctionSpec(name="big", autoscaling=Autoscaling(max_containers=1))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(recording, "_AGAIN", 0.05)
    monkeypatch.setattr(recording, "_REFUSED_MOST", 1 << 20)


def test_what_a_full_disk_refuses_is_bounded_and_written_in_the_end(world):
    async def work(world):
        async def big(x):
            await asyncio.sleep(0.002)
            return bytes(100_000)

        await world.serve(node_grace=30)
        node = await world.node({"big": big})
        client = await world.client()
        _, functions = await client.app(BIG, kind="detached")
        stream = await client.open_map(functions["big"], verb="spawn_map", wait=False)
        await client.send(stream, 0, list(range(200)))
        await stream.end()
        store, calls = world.server.parts.store, world.server.parts.calls
        await world.until(lambda: calls.live and calls.live[stream.call_id].accepted == 200)
        await store.flush()
        store.limit_pages(1)

        await world.until(lambda: calls.recording.is_choked)
        await asyncio.sleep(0.2)
        done = calls.live[stream.call_id].ended
        assert done < 200
        assert calls.recording._refused < 16 << 20
        with pytest.raises(errors.ResourceExhaustedError, match="disk is full"):
            await client.remote(functions["big"], 1)
        [container] = node.containers.values()
        kept = len(container.unacknowledged)
        assert kept
        await node.disconnect()
        await node.connect(world.socket)  # it says again what was not acknowledged, and that changes nothing
        await asyncio.sleep(0.1)
        assert len(container.unacknowledged) == kept

        store.limit_pages(1 << 30)
        await world.until(lambda: not calls.live, 20)
        await store.flush()
        row = await store.one("call_by_id", call_id=stream.call_id)
        assert (row["succeeded"], row["status"]) == (200, "success")
        await world.until(lambda: not container.unacknowledged and not calls.recording._unwritten)
        assert calls.recording._refused == 0

    world(work)
