"""Calls of many inputs through a whole server: every input answered once, memory bounded, nothing lost to a crash."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc

import pytest

from alight.server.services.readers import Reader
from alight.wire import chunk, errors, ids, payload
from alight.wire.calling import CallCancel, CallResult, CallUpdate
from alight.wire.commands import Output, Report, Run
from alight.wire.messages import AppStop
from alight.wire.spec import Autoscaling, FunctionSpec, RetryPolicy


def double(**fields):
    return FunctionSpec(name="double", **fields)


def live(world):
    return world.server.parts.calls.live


async def count(world, table):
    store = world.server.parts.store
    store._queries["test_count"] = f"SELECT count(*) AS n FROM {table}"
    await store.flush()
    return (await store.one("test_count"))["n"]


async def attach(client, call_id, **asked):
    return await client.peer.open("call.result", CallResult(call_id, **asked), end=True)


@pytest.mark.parametrize(("inputs", "size"), [(0, 256), (1, 256), (1000, 256), (3000, 1024), (50, 1)])
def test_a_map_comes_back_whole(world, inputs, size):
    async def work(world):
        await world.serve(node_grace=30)
        await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, functions = await client.app(double())
        values = await client.map(functions["double"], list(range(inputs)), size)
        assert values == {position: 2 * position for position in range(inputs)}
        await world.until(lambda: not live(world))
        assert await count(world, "chunks") == 0
        [row] = await world.server.parts.store.read(
            "calls_recent", environment="", owner="", state="", before=0, limit=5
        )
        assert (row["accepted"], row["total"], row["succeeded"], row["status"]) == (inputs, inputs, inputs, "success")

    world(work)


def test_a_map_runs_while_its_caller_still_sends(world):
    async def work(world):
        await world.serve(node_grace=30)
        await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, functions = await client.app(double())
        stream = await client.open_map(functions["double"])
        for start in range(0, 40, 10):
            await client.send(stream, start, list(range(start, start + 10)))
            assert len(await client.gather(stream, 10)) == 10
        await stream.end()
        assert await client.gather(stream) == {}

    world(work)


def test_exceptions_of_a_map_come_for_their_inputs_alone(world):
    async def work(world):
        def picky(x):
            if x % 3 == 0:
                raise ValueError(x)
            return x

        await world.serve(node_grace=30)
        await world.node({"double": picky})
        client = await world.client()
        _, functions = await client.app(double())
        values = await client.map(functions["double"], list(range(300)), 100)
        assert len(values) == 300
        for position, value in values.items():
            if position % 3:
                assert value == position
            else:
                assert (value.status, value.failure.message) == ("exception", str(position))
        [row] = await world.server.parts.store.read(
            "calls_recent", environment="", owner="", state="", before=0, limit=5
        )
        await world.server.parts.store.flush()
        row = await world.server.parts.store.one("call_by_id", call_id=row["call_id"])
        assert (row["succeeded"], row["failed"], row["status"]) == (200, 100, "failed")

    world(work)


def test_retries_of_a_map_are_of_single_inputs(world):
    async def work(world):
        tries = {}

        def flaky(x):
            tries[x] = tries.get(x, 0) + 1
            if x % 10 == 0 and tries[x] < 3:
                raise ValueError("not yet")
            return x

        await world.serve(node_grace=30)
        await world.node({"double": flaky})
        client = await world.client()
        _, functions = await client.app(double(retries=RetryPolicy(2, 1.0, 0.0, 1.0)))
        assert await client.map(functions["double"], list(range(100)), 50) == {one: one for one in range(100)}
        assert tries == {one: 1 if one % 10 else 3 for one in range(100)}
        assert await count(world, "attempts") == 0

    world(work)


def test_a_frame_that_comes_twice_or_late_changes_nothing(world):
    async def work(world):
        gate = asyncio.Event()

        async def slow(x):
            await gate.wait()
            return x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow})
        client = await world.client()
        _, functions = await client.app(double(autoscaling=Autoscaling(max_concurrent_inputs=4)))
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, [0, 1, 2, 3])
        await world.until(lambda: len(node.given) == 4)
        [name] = node.containers
        body = payload.dumps_bytes("first") + payload.dumps_bytes("first")
        sizes = [len(payload.dumps_bytes("first"))] * 2
        node.answer(name, chunk.Outputs(stream.call_id, range(2), sizes, container=name), body)
        assert await client.gather(stream, 2) == {0: "first", 1: "first"}
        three = payload.dumps_bytes("twice") * 3
        node.answer(name, chunk.Outputs(stream.call_id, (1, 0, 2), [len(three) // 3] * 3, container=name), three)
        late = chunk.Outputs(stream.call_id, range(3, 4), [len(three) // 3], container=name, attempt=9)
        node.answer(name, late, three[: len(three) // 3])
        assert await client.gather(stream, 1) == {2: "twice"}
        gate.set()
        await stream.end()
        assert await client.gather(stream) == {3: 3}
        await world.until(lambda: not node.containers[name].unacknowledged)

    world(work)


def test_a_caller_that_comes_back_goes_on_where_the_server_says(world):
    async def work(world):
        gate = asyncio.Event()

        async def slow(x):
            if x >= 20:
                await gate.wait()
            return x

        await world.serve(node_grace=30)
        await world.node({"double": slow}, cpus=2)
        client = await world.client()
        _, functions = await client.app(double(), kind="detached")
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(30)))
        got = await client.gather(stream, 20)
        client.peer.close()
        await client.peer.wait_closed()

        client = await world.client()
        again = await client.open_map(functions["double"], call=stream.call_id, resend=True, have=((0, len(got)),))
        gate.set()
        rest = {}
        while len(rest) < 10:
            rest.update(await client.gather(again, 1))
        assert again.accepted == 30
        await client.send(again, 30, list(range(30, 40)))
        await again.end()
        rest.update(await client.gather(again))
        assert rest == {one: one for one in range(20, 40)}

    world(work)


@pytest.mark.parametrize("sent", [True, False])
def test_a_killed_server_loses_no_input_of_a_map(world, sent):
    """Killed with some answered, some in containers, some waiting; its caller sends what the new one lacks."""

    async def work(world):
        gate, runs = asyncio.Event(), []

        async def slow(x):
            runs.append(x)
            if x >= 10:
                await gate.wait()
            return x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow}, cpus=2)
        client = await world.client()
        _, functions = await client.app(double(autoscaling=Autoscaling(max_containers=2)), kind="detached")
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(40)))
        if sent:
            await stream.end()
        got = await client.gather(stream, 10)
        await world.until(lambda: len(runs) >= 12)
        await node.disconnect()
        await world.crash()

        await world.serve(node_grace=30)
        client = await world.client()
        have = tuple((one, one + 1) for one in sorted(got))
        again = await client.open_map(functions["double"], call=stream.call_id, resend=True, have=have)
        await node.connect(world.socket)
        gate.set()
        message = await asyncio.wait_for(again.recv(), 5)
        client.read(again, *message)
        if again.accepted < 40:
            await client.send(again, again.accepted, list(range(again.accepted, 40)))
        await again.end()
        rest = await client.gather(again)
        assert {**got, **rest} == {one: one for one in range(40)}
        assert not set(got) & set(rest)
        assert sorted(runs) == list(range(40))

    world(work)


def test_what_a_dead_caller_had_sent_runs_and_is_kept(world):
    async def work(world):
        await world.serve(node_grace=30, holder_grace=0.1)
        await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, functions = await client.app(double(), kind="detached")
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(50)))
        await client.gather(stream, 50)
        client.peer.close()
        await world.until(lambda: not live(world))
        client = await world.client()
        attached = await attach(client, stream.call_id, index=-1)
        assert await client.gather(attached) == {one: 2 * one for one in range(50)}
        row = await world.server.parts.store.one("call_by_id", call_id=stream.call_id)
        assert (row["total"], row["caller_gone"], row["status"]) == (50, 1, "success")

    world(work)


def test_results_are_taken_by_index_by_range_and_as_they_come(world):
    async def work(world):
        gate = asyncio.Event()

        async def slow(x):
            if x == 7:
                await gate.wait()
            return x

        await world.serve(node_grace=30)
        await world.node({"double": slow})
        client = await world.client()
        _, functions = await client.app(double(autoscaling=Autoscaling(max_concurrent_inputs=3)))
        stream = await client.open_map(functions["double"], wait=False, verb="spawn_map")
        await client.send(stream, 0, list(range(20)))
        await stream.end()
        await client.gather(stream)
        assert stream.accepted == 20
        assert await client.gather(await attach(client, stream.call_id, index=3)) == {3: 3}
        with pytest.raises(errors.NotFoundError, match="has no input 20"):
            await client.gather(await attach(client, stream.call_id, index=20))
        got = await client.gather(await attach(client, stream.call_id, index=-1, start=2, stop=5, have=((3, 4),)))
        assert got == {2: 2, 4: 4}
        follower = await attach(client, stream.call_id, index=-1)
        first = await client.gather(follower, 19)
        with pytest.raises(errors.TimeoutError):
            await client.gather(await attach(client, stream.call_id, index=7, timeout=0))
        gate.set()
        assert {**first, **await client.gather(follower)} == {one: one for one in range(20)}
        assert await client.gather(await attach(client, stream.call_id, index=7)) == {7: 7}

    world(work)


def test_cancelling_a_map_ends_what_is_open_and_what_it_called(world):
    async def work(world):
        async def forever(x):
            if x >= 5:
                await asyncio.Event().wait()
            return x

        await world.serve(node_grace=30)
        node = await world.node({"double": forever, "inner": forever})
        client = await world.client()
        _, functions = await client.app(double(), FunctionSpec(name="inner"))
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(5, 25)))
        await world.until(lambda: node.given)
        child = await client.start(functions["inner"], 9, parent_input=ids.input_id(stream.call_id, 0))
        await world.until(lambda: child.call_id in live(world))
        rows = await count(world, "outputs")
        await client.ask("call.cancel", CallCancel(stream.call_id), dict)
        got = await client.gather(stream)
        assert len(got) == 20
        assert {one.status for one in got.values()} == {"cancelled"}
        assert (await client.result(child))[0].status == "cancelled"
        await world.until(lambda: not any(one.running for one in node.containers.values()))
        assert await count(world, "outputs") == rows + 2  # one for all of the map, one for the child
        again = await client.gather(await attach(client, stream.call_id, index=-1))
        assert {one.error["message"] for one in again.values()} == {"the call was cancelled"}

    world(work)


def test_a_stopped_app_ends_its_maps(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        app_id, functions = await client.app(double())
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(20)))
        await world.until(lambda: live(world) and live(world)[stream.call_id].accepted == 20)
        await client.ask("app.stop", AppStop(app_id, "enough"), dict)
        got = await client.gather(stream)
        assert {one.error["message"] for one in got.values()} == {"the app was stopped: enough"}
        again = await client.gather(await attach(client, stream.call_id, index=-1))
        assert len(again) == 20
        await world.server._janitor.clean(0.0)
        assert await count(world, "chunks") == 0

    world(work)


def test_bodies_beyond_the_room_wait_in_the_store(world):
    async def work(world):
        await world.serve(node_grace=30, bodies_in_memory=20_000)
        client = await world.client()
        _, functions = await client.app(double(autoscaling=Autoscaling(max_containers=1)), kind="detached")
        stream = await client.open_map(functions["double"])
        for start in range(0, 64, 8):
            await client.send(stream, start, [bytes([start + at]) * 1000 for at in range(8)])
        await stream.end()
        await world.until(lambda: live(world) and live(world)[stream.call_id].total == 64)
        assert sum(len(one.body) for one in live(world)[stream.call_id].chunks) <= 20_000
        await world.node({"double": lambda x: (x[0], len(x))})
        assert await client.gather(stream) == {one: (one, 1000) for one in range(64)}

    world(work)


def test_a_slow_reader_is_caught_up_from_the_store(world):
    """Its outputs are more than what its stream may have under way: nothing of them waits in memory."""

    async def work(world):
        await world.serve(node_grace=30)
        await world.node({"double": lambda x: bytes(100_000)})
        client = await world.client()
        _, functions = await client.app(double())
        stream = await client.open_map(functions["double"])
        for start in range(0, 200, 10):
            await client.send(stream, start, list(range(10)))
        await stream.end()
        await world.until(lambda: not live(world))
        assert len(await client.gather(stream)) == 200

    world(work)


def test_generator_items_come_in_order_and_a_slow_reader_makes_it_wait(world):
    async def work(world):
        made = []

        def many(n):
            for number in range(n):
                made.append(number)
                yield bytes([number % 256]) * 500_000

        await world.serve(node_grace=30)
        await world.node({"double": many})
        client = await world.client()
        _, functions = await client.app(double(is_generator=True))
        stream = await client.start(functions["double"], 120, verb="remote_gen")
        await asyncio.sleep(0.5)
        # What its stream takes (8 MiB), what the server lets it be ahead (16 MiB), what the machine holds (4 MiB).
        assert len(made) * 500_000 < 40 << 20
        got = await client.gather(stream)
        assert [key for key in got if isinstance(key, tuple)] == [(0, number) for number in range(120)]
        assert (got[0].status, got[0].items) == ("success", 120)

    world(work)


def test_a_caller_of_a_generator_goes_on_after_a_killed_server(world):
    async def work(world):
        gate = asyncio.Event()

        async def wait():
            await gate.wait()

        await world.serve(node_grace=30)
        node = await world.node({"double": lambda x: x})
        client = await world.client()
        _, functions = await client.app(double(is_generator=True), kind="detached")
        held = asyncio.Event()

        async def forever(x):
            await held.wait()

        node.functions["double"] = forever
        stream = await client.start(functions["double"], 1, verb="remote_gen")
        await world.until(lambda: node.given)
        [name] = node.containers

        def give(number):
            value = payload.dumps_bytes(number)
            head = chunk.Outputs(
                stream.call_id, range(number, number + 1), [len(value)], container=name, flags=chunk.ITEMS
            )
            node.answer(name, head, value)

        for number in range(5):
            give(number)
        got = await client.gather(stream, 3)
        await world.server.parts.store.flush()
        await node.disconnect()
        await world.crash()
        for number in range(5, 8):
            give(number)

        await world.serve(node_grace=30)
        await node.connect(world.socket)
        client = await world.client()
        again = await client.start(
            functions["double"], 1, call=stream.call_id, resend=True, verb="remote_gen", items=len(got)
        )
        rest = await client.gather(again, 5)
        assert rest == {(0, number): number for number in range(3, 8)}
        node.answer(name, Output(stream.call_id, 0, 1, "success", name, items=8), b"")
        end = await client.gather(again)
        assert (end[0].status, end[0].items) == ("success", 8)
        held.set()

    world(work)


def test_returned_inputs_run_elsewhere(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({"double": lambda x: x})

        async def forever(x):
            await asyncio.Event().wait()

        node.functions["double"] = forever
        client = await world.client()
        _, functions = await client.app(double(autoscaling=Autoscaling(max_containers=1)))
        call = await client.start(functions["double"], 1)
        await world.until(lambda: node.given)
        [name] = node.containers
        container = node.containers[name]
        container.running.clear()
        container.seen.clear()
        assert world.server.parts.calls.counts(call.call_id)["running"] == 1
        node.functions["double"] = lambda x: x
        node.report(Report("returned", container=name, runs=(Run(call.call_id, 0, 1, 1),)))
        assert (await client.result(call))[1] == 1

    world(work)


def test_more_is_refused_when_the_disk_is_full_and_what_was_accepted_stays(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        _, functions = await client.app(double(), kind="detached")
        store = world.server.parts.store
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(10)))
        await world.until(lambda: live(world) and live(world)[stream.call_id].accepted == 10)
        await store.flush()
        store.limit_pages(1)

        async def send_on():
            for start in range(10, 4000, 10):
                await client.send(stream, start, [bytes(20_000)] * 10)
                await asyncio.sleep(0)
            await client.gather(stream)

        with pytest.raises(errors.ResourceExhaustedError, match="takes no more inputs of this call"):
            await send_on()
        store.limit_pages(1 << 30)
        row = await store.one("call_by_id", call_id=stream.call_id)
        assert row["accepted"] >= 10
        assert row["status"] == ""

    world(work)


def test_chunks_that_do_not_fit_are_refused(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        _, functions = await client.app(double())
        for head, body, words in (
            (lambda call: chunk.Inputs(call, 5, [1]), b"x", "missing"),
            (lambda call: chunk.Inputs(call, 0, [2]), b"x", "does not fit"),
            (lambda call: chunk.Inputs(ids.new_id(ids.CALL), 0, [1]), b"x", "does not fit"),
        ):
            stream = await client.open_map(functions["double"])
            await stream.send_raw(head(stream.call_id).encode(), body)
            with pytest.raises(errors.InvalidError, match=words):
                await client.gather(stream)

    world(work)


def test_spawned_calls_beyond_the_window_wait_in_the_store(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        _, functions = await client.app(double(), kind="detached")

        async def spawn(number):
            stream = await client.start(functions["double"], number, wait=False, verb="spawn")
            await stream.recv()
            return stream.call_id

        calls = [await asyncio.gather(*map(spawn, range(at, at + 500))) for at in range(0, 3000, 500)]
        function_id = functions["double"].function_id
        assert len(live(world)) == 1024
        assert world.server.parts.calls.line(function_id) == (3000, 0)
        assert world.server.parts.calls.beyond(function_id) == 3000 - 1024
        await world.crash()

        await world.serve(node_grace=30)
        assert len(live(world)) == 1024
        assert world.server.parts.calls.line(function_id) == (3000, 0)
        await world.node({"double": lambda x: 2 * x})
        await world.until(lambda: world.server.parts.calls.line(function_id) == (0, 0), 20)
        client = await world.client()
        for at, call_id in ((0, calls[0][0]), (2999, calls[5][499])):
            assert await client.gather(await attach(client, call_id)) == {0: 2 * at}
        assert not live(world)

    world(work)


def test_a_call_that_waits_in_the_store_can_be_awaited_and_cancelled(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        _, functions = await client.app(double(), kind="detached")

        async def spawn(number):
            stream = await client.start(functions["double"], number, wait=False, verb="spawn")
            await stream.recv()
            return stream.call_id

        calls = await asyncio.gather(*map(spawn, range(1100)))
        assert calls[-1] not in live(world)
        await client.ask("call.cancel", CallCancel(calls[-1]), dict)
        assert (await client.gather(await attach(client, calls[-1])))[0].status == "cancelled"
        waiting = await attach(client, calls[-2])
        await world.node({"double": lambda x: x})
        assert await client.gather(waiting) == {0: 1098}

    world(work)


def test_a_reader_says_each_position_once_whatever_it_has(world):
    """Whatever came before, twice or scattered: the cut is what the reader lacks."""

    async def work(world):
        await world.serve(node_grace=30)
        sent = []

        class Stream:
            broken = False

        reader = Reader(world.server.parts.store, Stream(), None, {"call_id": "fc-x"}, have=((2, 4),))
        from alight.server.services.results import VALUES, Recorded

        def offer(positions):
            body = b"".join(bytes([one]) for one in positions)
            head = chunk.Outputs("fc-x", positions, [1] * len(positions)).encode()
            message = reader._message(Recorded(1, VALUES, positions[0], positions, head, body))
            if message is not None:
                said = chunk.Outputs.decode(message[0])
                pieces = [bytes(one) for one in chunk.cut(said.sizes, message[1])]
                sent.extend(zip(said.positions, pieces))

        for positions in (range(3), range(1, 6), (9, 4, 7), (7, 8), range(6, 10)):
            offer(positions)
        assert sorted(sent) == [(one, bytes([one])) for one in (0, 1, 4, 5, 6, 7, 8, 9)]

    world(work)


def test_running_is_said_of_a_map_once(world):
    async def work(world):
        async def forever(x):
            await asyncio.Event().wait()

        await world.serve(node_grace=30)
        await world.node({"double": forever})
        client = await world.client()
        app_id, functions = await client.app(double())
        stream = await client.open_map(functions["double"])
        await client.send(stream, 0, list(range(20)))
        head, _ = await asyncio.wait_for(stream.recv(), 5)
        assert stream.decode(CallUpdate, head).state == "running"
        counts = world.server.parts.calls.counts(stream.call_id)
        assert counts["running"] >= 1
        assert counts["running"] + counts["waiting"] == 20
        await client.ask("app.stop", AppStop(app_id), dict)

    world(work)


@pytest.mark.slow
def test_very_many_waiting_calls_cost_rows_and_not_memory(world):
    """100,000 calls in the store of one function: a starting server takes up a window of them."""

    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        _, functions = await client.app(double(), kind="detached")
        function_id = functions["double"].function_id
        app_id = world.server.parts.functions.by_id[function_id].app_id
        body = payload.dumps_bytes(((1,), {}))
        calls = [
            {
                "seq": number,
                "call_id": f"fc-{number:022d}",
                "function_id": function_id,
                "app_id": app_id,
                "verb": "spawn",
                "method": "",
                "parent_call": "",
                "parent_position": 0,
                "now": 1.0,
                "accepted": 1,
                "total": 1,
            }
            for number in range(1, 100_001)
        ]
        chunks = [
            {"call_id": one["call_id"], "start": 0, "count": 1, "flags": 0, "sizes": None, "body": body}
            for one in calls
        ]
        await world.server.parts.store.write([("call_add", calls), ("chunk_add", chunks)])
        del calls, chunks
        await world.crash()

        gc.collect()
        before = len(gc.get_objects())
        tracemalloc.start()
        began = time.perf_counter()
        await world.serve(node_grace=30)
        took = time.perf_counter() - began
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert took < 5
        assert len(live(world)) == 1024
        assert world.server.parts.calls.line(function_id) == (100_000, 0)
        assert world.server.parts.calls.beyond(function_id) == 100_000 - 1024
        assert size < 12 << 20  # nearly all of it is what any server has
        assert len(gc.get_objects()) - before < 40_000

        node = await world.node({"double": lambda x: x})
        await world.until(lambda: len(node.given) > 3000, 20)
        assert len(live(world)) <= 2048
        await node.disconnect()

    world(work)
