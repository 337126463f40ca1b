"""Callers and machines that come back to a server that lost something, or to calls that ended meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from alight.wire.calling import CallCancel
from alight.wire.commands import Report, Run
from alight.wire.spec import Autoscaling, FunctionSpec
from alight.wire.stored import NamedList

DOUBLE = FunctionSpec(name="double", autoscaling=Autoscaling(max_containers=1))


def forget(world, *tables):
    """What a server that is killed loses: rows that were not committed."""
    path = next(world.settings.home.glob("**/alight.db"))
    with sqlite3.connect(path) as connection:
        for table in tables:
            connection.execute(f"DELETE FROM {table}")


async def call_row(world, call_id):
    await world.server.parts.store.flush()
    return await world.server.parts.store.one("call_by_id", call_id=call_id)


@pytest.mark.parametrize("lost", [("outputs",), ("outputs", "chunks", "calls")])
def test_what_a_caller_has_got_is_not_run_again(world, lost):
    """Its answers were lost with a killed server, its arguments perhaps too: the caller's word for it is enough, also
    for the server after the next."""

    async def work(world):
        gate, runs = asyncio.Event(), []

        async def slow(x):
            runs.append(x)
            if x >= 10:
                await gate.wait()
            return x

        await world.serve(node_grace=0.05)
        node = await world.node({"double": slow})
        client = await world.client()
        _, functions = await client.app(DOUBLE, kind="detached")
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(20)))
        got = await client.gather(stream, 10)
        assert sorted(got) == list(range(10))
        node.containers.clear()
        await node.disconnect()
        await world.crash()
        forget(world, *lost)

        for _ in range(2):
            await world.serve(node_grace=0.05)
            client = await world.client()
            again = await client.open_map(functions["double"], call=stream.call_id, resend=True, have=((0, 10),))
            client.read(again, *await asyncio.wait_for(again.recv(), 5))
            if again.accepted < 20:  # what it has got it has kept no arguments of
                await client.send(again, again.accepted, [None] * (10 - again.accepted) + list(range(10, 20)))
            await world.server.parts.store.flush()
            if _ == 0:
                await world.crash()
        del runs[:]
        await world.node({"double": slow})
        gate.set()
        await again.end()
        rest = await client.gather(again)
        assert rest == {one: one for one in range(10, 20)}
        assert sorted(runs) == list(range(10, 20))
        row = await call_row(world, stream.call_id)
        assert (row["accepted"], row["succeeded"], row["status"]) == (20, 20, "success")

    world(work)


def test_a_chunk_of_which_the_server_has_a_part_is_cut(world):
    async def work(world):
        await world.serve(node_grace=30)
        await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, functions = await client.app(DOUBLE)
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(10)))
        await client.send(stream, 4, list(range(4, 16)))
        await stream.end()
        assert await client.gather(stream) == {one: 2 * one for one in range(16)}

    world(work)


def test_inputs_that_a_machine_gives_back_before_their_caller_sends_them_wait_for_it(world):
    async def work(world):
        gate = asyncio.Event()

        async def slow(x):
            await gate.wait()
            return 2 * x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow})
        client = await world.client()
        _, functions = await client.app(DOUBLE, kind="detached")
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(20)))
        await world.until(lambda: node.given)
        await node.disconnect()
        await world.crash()
        forget(world, "chunks", "calls")

        await world.serve(node_grace=30)
        client = await world.client()
        await node.connect(world.socket)
        calls = world.server.parts.calls
        await world.until(lambda: stream.call_id in calls.live)
        again = await client.open_map(functions["double"], call=stream.call_id, resend=True)
        client.read(again, *await asyncio.wait_for(again.recv(), 5))
        assert again.accepted == 0
        name, container = node.containers.popitem()  # so that the fake does not answer for what it drops
        running = list(container.running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        container.running.clear()
        container.seen.clear()
        node.containers[name] = container
        node.report(Report("returned", container=name, runs=(Run(stream.call_id, 0, 1),)))
        await world.until(lambda: calls.live[stream.call_id].arrived.count == 0)
        gate.set()
        await client.send(again, 0, list(range(20)))
        await again.end()
        assert await client.gather(again) == {one: 2 * one for one in range(20)}

    world(work)


def test_what_runs_of_a_call_that_ended_while_its_machine_was_away_is_cancelled(world):
    """Also where the server was started anew and knows nothing of the container."""

    async def work(world):
        async def forever(x):
            await asyncio.Event().wait()

        await world.serve(node_grace=30)
        node = await world.node({"double": forever})
        client = await world.client()
        _, functions = await client.app(DOUBLE, kind="detached")
        stream = await client.start(functions["double"], 1)
        await world.until(lambda: node.given)
        await node.disconnect()
        await client.ask("call.cancel", CallCancel(stream.call_id), dict)
        assert (await call_row(world, stream.call_id))["status"] == "cancelled"
        await world.crash()

        await world.serve(node_grace=30)
        await node.connect(world.socket)
        [container] = node.containers.values()
        await world.until(lambda: not container.running)
        assert not world.server.parts.calls.live
        assert (await call_row(world, stream.call_id))["status"] == "cancelled"

    world(work)


def test_a_container_is_known_as_soon_as_its_machine_has_said_hello(world):
    """Its machine lets requests pass when the server answers, which is before all that it holds was looked up."""

    async def work(world):
        await world.serve()
        node = await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, functions = await client.app(DOUBLE, kind="detached")
        assert (await client.remote(functions["double"], 2))[1] == 4
        [name] = node.containers
        await world.server.parts.store.flush()
        await node.disconnect()
        await world.crash()

        await world.serve()
        giving = world.server.parts.calls.giving
        take_up, looked_up, asks = giving.take_up, asyncio.Event(), asyncio.Event()

        async def slowly(call_ids):
            asks.set()
            await looked_up.wait()
            return await take_up(call_ids)

        giving.take_up = slowly
        await node.connect(world.socket)
        await node.peer.ping(5)
        stream = await node.ask(name, "volume.list", NamedList())
        assert (await stream.recv()) is not None
        assert asks.is_set()
        looked_up.set()

    world(work)


def test_what_is_answered_while_it_is_given_a_second_time_is_not_lost(world):
    """A machine that comes back is told again what may not have reached it; its answer may overtake that."""

    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, functions = await client.app(DOUBLE)
        stream = await client.open_map(functions["double"])
        for start in (0, 550):
            await client.send(stream, start, list(range(start, start + 550)))
        assert len(await client.gather(stream, 1100)) == 1100
        calls = world.server.parts.calls
        await world.until(lambda: calls.live[stream.call_id].forgotten >= 1024)
        assert await calls.giving.fetch(Run(stream.call_id, 0, 500), next(iter(node.containers))) == []
        await client.send(stream, 1100, [1100])
        await stream.end()
        assert await client.gather(stream) == {1100: 2200}

    world(work)


@pytest.mark.parametrize("held", [True, False])
def test_starts_that_a_restarted_node_broke_off_count_against_nobody(world, held):
    """Whether it still has the containers and ends them or had not made them yet; more often than a start may fail."""

    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        spec = FunctionSpec(name="double", autoscaling=Autoscaling(max_containers=1))
        _, functions = await client.app(spec, kind="detached")
        node.hold = True
        stream = await client.start(functions["double"], 4)
        gone = set()
        for _ in range(5):
            await world.until(lambda: set(node.containers) - gone)
            [name] = set(node.containers) - gone
            gone.add(name)
            node.containers.pop(name)
            if held:
                error = {"code": "internal_failure", "message": "the node was restarted"}
                node.report(Report("ended", container=name, signal=9, error=error, interrupted=True))
            else:
                await node.disconnect()
                await node.connect(world.socket)
        node.hold = False
        await world.until(lambda: node.containers)
        assert (await client.result(stream))[1] == 8

    world(work)


@pytest.mark.parametrize("known", [True, False])
def test_what_a_machine_has_answered_while_nobody_heard_it_is_not_run_again(world, known):
    """The machine says what it holds first and its answers a moment later: meanwhile nobody else gets those inputs."""

    async def work(world):
        gate, runs = asyncio.Event(), []

        async def slow(x):
            runs.append(x)
            if x != 9:
                await gate.wait()
            else:
                await asyncio.Event().wait()  # the machine holds this one of the call all the time
            return 2 * x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow})
        client = await world.client()
        many = FunctionSpec(name="double", autoscaling=Autoscaling(max_containers=2, max_concurrent_inputs=5))
        _, functions = await client.app(many, kind="detached")
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(10)))
        await stream.end()
        await world.until(lambda: len(runs) == 10)
        await world.server.parts.store.flush()
        await node.disconnect()
        gate.set()
        await world.until(lambda: sum(len(one.running) for one in node.containers.values()) == 1)
        await world.crash()
        if not known:
            forget(world, "chunks", "calls")

        await world.serve(node_grace=30)
        said, send, given = [], node._send, []
        node._send = lambda head, body: said.append((head, body))
        take = node._on_inputs
        node._on_inputs = lambda inputs, body: (given.append((inputs.start, inputs.stop)), take(inputs, body))
        await node.connect(world.socket)
        client = await world.client()
        again = await client.open_map(functions["double"], call=stream.call_id, resend=True)
        if not known:
            await client.send(again, 0, list(range(10)))
        await again.end()
        world.server.parts.calls.release()
        for _ in range(20):  # the scheduler has its turns
            await asyncio.sleep(0.005)
        assert given == [], "inputs that have their answers were given to a container again"
        node._send = send
        for head, body in said:
            send(head, body)
        assert await client.gather(again, 9) == {one: 2 * one for one in range(9)}
        assert sorted(runs) == list(range(10)), "an input ran twice"
        assert all(one.open <= 1 for one in world.server.parts.loop.state.containers.values())

    world(work)
