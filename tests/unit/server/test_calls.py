"""Calls through a whole server: accepted means kept, answered once, and never lost to a crash."""

from __future__ import annotations

import asyncio

import pytest

from alight.wire import chunk, errors, ids, payload
from alight.wire.calling import CallCancel, CallResult, CallUpdate
from alight.wire.failure import Failure
from alight.wire.messages import AppStop
from alight.wire.spec import Autoscaling, FunctionSpec, Resources, RetryPolicy


def double(**fields):
    return FunctionSpec(name="double", **fields)


def test_a_call_comes_back_with_its_value(world):
    async def work(world):
        await world.serve(node_grace=30)
        await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, functions = await client.app(double())
        update, value = await client.remote(functions["double"], 21)
        assert (update.state, update.status, update.attempt, value) == ("done", "success", 1, 42)

    world(work)


def test_a_result_is_on_disk_and_its_node_forgets_it(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, functions = await client.app(double())
        update, _ = await client.remote(functions["double"], 1)
        container = node.containers[update.container]
        await world.until(lambda: not container.unacknowledged)
        store = world.server.parts.store
        row = await store.one("call_by_id", call_id=update.call_id)
        assert (row["status"], row["succeeded"]) == ("success", 1)
        assert await store.one("chunk_at", call_id=update.call_id, position=0) is None
        assert not world.server.parts.calls.live

    world(work)


def test_spawn_is_answered_after_the_commit_and_taken_up_by_id(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        _, functions = await client.app(double(), kind="detached")
        stream = await client.start(functions["double"], 4, wait=False)
        head, _ = await stream.recv()
        assert stream.decode(CallUpdate, head).state == "accepted"
        await world.crash()

        await world.serve(node_grace=30)
        await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        attached = await client.peer.open("call.result", CallResult(stream.call_id), end=True)
        assert (await client.result(attached))[1] == 8
        again = await client.peer.open("call.result", CallResult(stream.call_id), end=True)
        assert (await client.result(again))[1] == 8

    world(work)


def test_waiting_for_a_result_has_an_end(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        _, functions = await client.app(double())
        stream = await client.start(functions["double"], 4, wait=False)
        await stream.recv()
        attached = await client.peer.open("call.result", CallResult(stream.call_id, timeout=0.01), end=True)
        with pytest.raises(errors.TimeoutError, match=r"within 0\.01 s"):
            await client.result(attached)
        unknown = await client.peer.open("call.result", CallResult(ids.new_id(ids.CALL)), end=True)
        with pytest.raises(errors.NotFoundError):
            await client.result(unknown)

    world(work)


def test_a_resend_attaches_and_runs_nothing_twice(world):
    async def work(world):
        gate = asyncio.Event()

        async def slow(x):
            await gate.wait()
            return x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow})
        client = await world.client()
        _, functions = await client.app(double(), FunctionSpec(name="other"))
        first = await client.start(functions["double"], 5)
        await world.until(lambda: node.given)
        second = await client.start(functions["double"], 5, call=first.call_id, resend=True)
        gate.set()
        assert (await client.result(first))[1] == (await client.result(second))[1] == 5
        third = await client.start(functions["double"], 5, call=first.call_id)
        assert (await client.result(third))[1] == 5
        assert node.given == [ids.input_id(first.call_id, 0)]
        stolen = await client.start(functions["other"], 5, call=first.call_id)
        with pytest.raises(errors.ConflictError):
            await client.result(stolen)

    world(work)


def test_a_killed_server_loses_no_call_and_runs_none_again(world):
    async def work(world):
        gate = asyncio.Event()
        runs = []

        async def slow(x):
            runs.append(x)
            await gate.wait()
            return x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow})
        client = await world.client()
        _, functions = await client.app(double())
        call = await client.start(functions["double"], 7)
        await world.until(lambda: runs)
        await node.disconnect()
        await world.crash()

        await world.serve(node_grace=30)
        client = await world.client()
        resent = await client.start(functions["double"], 7, call=call.call_id, resend=True)
        await node.connect(world.socket)
        await asyncio.sleep(0)
        gate.set()
        assert (await client.result(resent))[1] == 7
        assert runs == [7]

    world(work)


def test_an_output_that_came_while_the_server_was_down_is_the_result(world):
    async def work(world):
        gate = asyncio.Event()

        async def slow(x):
            await gate.wait()
            return x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow})
        client = await world.client()
        _, functions = await client.app(double())
        call = await client.start(functions["double"], 7)
        await world.until(lambda: node.given)
        await node.disconnect()
        await world.crash()
        gate.set()
        container = next(iter(node.containers.values()))
        await world.until(lambda: container.unacknowledged)

        await world.serve(node_grace=30)
        await node.connect(world.socket)
        await world.until(lambda: not container.unacknowledged)
        client = await world.client()
        resent = await client.start(functions["double"], 7, call=call.call_id)
        assert (await client.result(resent))[1] == 7
        assert len(node.given) == 1

    world(work)


def test_an_input_that_the_store_never_heard_of_is_adopted(world):
    """Its caller was connected, so nobody waited for the commit; the server was killed before it."""

    async def work(world):
        gate = asyncio.Event()

        async def slow(x):
            await gate.wait()
            return x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow})
        client = await world.client()
        _, functions = await client.app(double())
        await client.start(functions["double"], 0)
        await world.until(lambda: node.given)
        call_id = ids.new_id(ids.CALL)
        container = next(iter(node.containers.values()))
        await node.disconnect()
        [known] = container.running
        container.running[call_id, 0] = container.running.pop(known)
        container.attempts[call_id, 0] = container.attempts.pop(known)
        await world.crash()

        await world.serve(node_grace=30)
        await node.connect(world.socket)
        await world.until(lambda: call_id in world.server.parts.calls.live)
        name = container.start.container_id
        value = payload.dumps_bytes("kept")
        node.answer(name, chunk.Outputs(call_id, range(1), [len(value)], container=name), value)
        await world.until(lambda: not container.unacknowledged)
        client = await world.client()
        resent = await client.start(functions["double"], 0, call=call_id, resend=True)
        assert (await client.result(resent))[1] == "kept"
        assert len(node.given) == 1

    world(work)


def test_retries_follow_the_users_policy(world):
    async def work(world):
        tries = []

        def flaky(x):
            tries.append(x)
            if len(tries) < 3:
                raise ValueError("not yet")
            return "at last"

        await world.serve(node_grace=30)
        await world.node({"double": flaky})
        client = await world.client()
        _, functions = await client.app(double(retries=RetryPolicy(2, 1.0, 0.01, 1.0)))
        update, value = await client.remote(functions["double"], 1)
        assert (update.attempt, value, len(tries)) == (3, "at last", 3)

    world(work)


def test_an_exception_comes_home(world):
    async def work(world):
        def broken(x):
            raise ValueError("no")

        await world.serve(node_grace=30)
        await world.node({"double": broken})
        client = await world.client()
        _, functions = await client.app(double())
        update, _ = await client.remote(functions["double"], 1)
        assert (update.status, update.failure.type, update.failure.message) == (
            "exception",
            "builtins.ValueError",
            "no",
        )

    world(work)


def test_a_lost_container_costs_no_retry_and_memory_is_said(world):
    async def work(world):
        gate = asyncio.Event()

        async def slow(x):
            await gate.wait()
            return x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow})
        client = await world.client()
        _, functions = await client.app(double())
        call = await client.start(functions["double"], 1)
        await world.until(lambda: node.given)
        node.kill_container(next(iter(node.containers)))
        await world.until(lambda: len(node.given) == 2)
        node.kill_container(next(iter(node.containers)), oom=True)
        update, _ = await client.result(call)
        assert update.status == "terminated"
        assert update.error["message"] == "killed for memory: limit 128 MiB, peak 128 MiB"
        assert "memory=" in update.error["hint"]

    world(work)


def test_an_import_error_is_the_result_with_its_exception(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({})
        node.hold = True
        client = await world.client()
        _, functions = await client.app(double())
        call = await client.start(functions["double"], 1)
        await world.until(lambda: node.containers)
        node.fail_start(next(iter(node.containers)), Failure("builtins.ImportError", "no numpy", pickled=True), b"")
        update, _ = await client.result(call)
        assert (update.status, update.failure.message) == ("init_failure", "no numpy")

    world(work)


def test_an_image_that_does_not_build_fails_the_call_once(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({})
        node.build_error = errors.ImageBuildError("pip could not find nonsense==1", hint="check the name")
        client = await world.client()
        _, functions = await client.app(double())
        update, _ = await client.remote(functions["double"], 1)
        assert update.error["code"] == "image_build"
        assert update.error["hint"] == "check the name"

    world(work)


def test_cancelling_ends_the_call_and_interrupts_its_container(world):
    async def work(world):
        async def forever(x):
            await asyncio.Event().wait()

        await world.serve(node_grace=30)
        node = await world.node({"double": forever})
        client = await world.client()
        _, functions = await client.app(double())
        call = await client.start(functions["double"], 1)
        await world.until(lambda: node.given)
        await client.ask("call.cancel", CallCancel(call.call_id), dict)
        update, _ = await client.result(call)
        assert (update.status, update.error["message"]) == ("cancelled", "the call was cancelled")
        container = next(iter(node.containers.values()))
        await world.until(lambda: not container.running and not container.unacknowledged)

    world(work)


def test_a_wait_says_why(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        _, functions = await client.app(double())
        stream = await client.start(functions["double"], 1)
        head, _ = await asyncio.wait_for(stream.recv(), 5)
        update = stream.decode(CallUpdate, head)
        assert (update.state, update.why) == ("waiting", "waiting for a machine: none is connected")

    world(work)


def test_never_placeable_is_said_when_it_is_published(world):
    async def work(world):
        await world.serve(node_grace=30)
        await world.node({})
        client = await world.client()
        _, functions = await client.app(
            double(resources=Resources(gpus=("a100-40gb",))), FunctionSpec(name="g", resources=Resources(cpu=99))
        )
        assert functions["double"].impossible["hint"] == "run it without one: alight run --gpu none …"
        assert functions["g"].impossible is None
        assert "asks for 99 cores" in functions["g"].warning
        update, _ = await client.remote(functions["double"], 1)
        assert update.status == "impossible"

    world(work)


def test_large_arguments_leave_memory_and_come_back_from_the_store(world):
    async def work(world):
        await world.serve(node_grace=30, bodies_in_memory=1000)
        client = await world.client()
        _, functions = await client.app(double(autoscaling=Autoscaling(max_containers=1)), kind="detached")
        calls = [await client.start(functions["double"], bytes([number]) * 400) for number in range(6)]
        await world.until(lambda: len(world.server.parts.calls.live) == 6)
        assert (
            sum(len(one.body) for call in world.server.parts.calls.live.values() for one in call.chunks or ()) <= 1000
        )
        await world.node({"double": lambda x: x})
        for number, call in enumerate(calls):
            assert (await client.result(call))[1] == bytes([number]) * 400

    world(work)


def test_a_stopped_app_cancels_what_waits_and_keeps_what_is_done(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        app_id, functions = await client.app(double())
        done = await client.start(functions["double"], 1)
        await client.result(done)
        node.hold = True
        node.kill_container(next(iter(node.containers)))
        waiting = await client.start(functions["double"], 2)
        await client.ask("app.stop", AppStop(app_id, "enough", wait=5), dict)
        assert not node.containers
        update, _ = await client.result(waiting)
        assert (update.status, update.error["message"]) == ("cancelled", "the app was stopped: enough")
        late = await client.start(functions["double"], 3)
        with pytest.raises(errors.NotFoundError, match="any more"):
            await client.result(late)
        attached = await client.peer.open("call.result", CallResult(done.call_id), end=True)
        assert (await client.result(attached))[1] == 2

    world(work)


def test_a_machine_that_stays_away_loses_its_inputs_to_another(world):
    async def work(world):
        await world.serve(node_grace=0.05)

        async def forever(x):
            await asyncio.Event().wait()

        lost = await world.node({"double": forever})
        client = await world.client()
        _, functions = await client.app(double())
        call = await client.start(functions["double"], 3)
        await world.until(lambda: lost.given)
        await lost.disconnect()
        await world.node({"double": lambda x: 2 * x})
        update, value = await client.result(call)
        assert (update.attempt, value) == (2, 6)

    world(work)
