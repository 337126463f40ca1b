"""Functions and calls over the wire, with a whole server and a fake machine: found, bound, scaled, listed, shown."""

from __future__ import annotations

import asyncio

import pytest

from alight.wire import errors, ids, payload
from alight.wire.calling import CallCancel, CallDetails, CallGraph, CallList, CallListed, CallShow
from alight.wire.messages import (
    AppList,
    AppListed,
    FunctionBind,
    FunctionFind,
    FunctionInfo,
    FunctionScale,
    FunctionScaling,
    FunctionStats,
    PublishedFunction,
)
from alight.wire.spec import Autoscaling, FunctionSpec, MethodSpec, ParameterSpec, Resources

DOUBLE = FunctionSpec(name="double", module="job")
MODEL = FunctionSpec(
    name="Model.*",
    class_name="Model",
    methods=(MethodSpec("predict"),),
    class_parameters=(ParameterSpec("size", "int"),),
)


async def details(client, call_id):
    return await client.ask("call.show", CallShow(call_id), CallDetails)


async def until(client, call_id, condition):
    async def look():
        while not condition(await details(client, call_id)):  # noqa: ASYNC110  the server is asked as people ask it
            await asyncio.sleep(0.005)

    await asyncio.wait_for(look(), 5)


def test_a_function_is_found_and_called_by_another_client(world):
    async def work(world):
        await world.serve()
        await world.node({"double": lambda x: 2 * x})
        first, other = await world.client(), await world.client()
        app_id, _ = await first.app(DOUBLE, MODEL, name="numbers", kind="detached")
        found = await other.ask("function.find", FunctionFind("numbers", "double"), FunctionInfo)
        assert (found.name, found.app_id) == ("double", app_id)
        assert (await other.remote(found, 21))[1] == 42
        model = await other.ask("function.find", FunctionFind("numbers", "Model.*"), FunctionInfo)
        assert (model.methods, model.parameters) == (MODEL.methods, MODEL.class_parameters)
        with pytest.raises(errors.NotFoundError, match="no running or deployed app 'letters'"):
            await other.ask("function.find", FunctionFind("letters", "double"), FunctionInfo)

    world(work)


def test_a_variant_has_a_pool_of_its_own_through_a_restart(world):
    async def work(world):
        await world.serve()
        node = await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, published = await client.app(DOUBLE, kind="detached")
        base = published["double"]
        asked = FunctionBind(base.function_id, {"resources": {"memory": 333}})
        variant = await client.ask("function.bind", asked, PublishedFunction)
        assert (await client.remote(variant, 4))[1] == 8
        assert (await client.remote(base, 5))[1] == 10
        assert sorted(one.start.memory for one in node.containers.values()) == [128, 333]
        listed = await client.ask("app.list", AppList(), AppListed)
        assert listed.apps[0].functions == ("double",)
        await world.crash()
        await world.serve()
        again = await world.client()
        assert await again.ask("function.bind", asked, PublishedFunction) == variant

    world(work)


def test_parameters_are_checked_without_being_read(world):
    async def work(world):
        await world.serve()
        client = await world.client()
        _, published = await client.app(MODEL)
        body = payload.dumps_bytes({"sise": 3})

        async def bind(given, body=body):
            asked = FunctionBind(published["Model.*"].function_id, given=given)
            return await asyncio.wait_for(client.peer.call("function.bind", asked, PublishedFunction, body), 5)

        with pytest.raises(errors.InvalidError, match="Model has no parameter 'sise'"):
            await bind({"sise": "int"})
        body = payload.dumps_bytes({"size": 3})
        pool = await bind({"size": "int"}, body)
        spec = world.server.parts.functions.get(pool.function_id).spec
        assert spec.parameters
        assert pool.function_id != published["Model.*"].function_id

    world(work)


def test_what_no_machine_can_run_is_said_at_binding(world):
    async def work(world):
        await world.serve()
        await world.node({})
        client = await world.client()
        _, published = await client.app(DOUBLE)
        asked = FunctionBind(published["double"].function_id, {"resources": {"memory": 1 << 20}})
        answer = await client.ask("function.bind", asked, PublishedFunction)
        assert answer.impossible is not None
        assert "memory=1048576 MiB" in answer.impossible["message"]

    world(work)


def test_scaling_by_hand_is_done_at_once_and_counted(world):
    async def work(world):
        await world.serve()
        node = await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, published = await client.app(DOUBLE)
        function = published["double"]
        await client.remote(function, 1)
        (before,) = node.containers
        changes = {"min_containers": 2, "max_containers": 3}
        scaling = await client.ask("function.scale", FunctionScale(function.function_id, changes), FunctionScaling)
        assert (scaling.min_containers, scaling.max_containers) == (2, 3)
        await world.until(lambda: len(node.containers) == 2)
        assert before in node.containers  # it stayed
        stats = {}

        async def counted():
            while stats.get("now") != FunctionStats(0, 2, 0, 2):
                stats["now"] = await client.ask("function.stats", FunctionScale(function.function_id), FunctionStats)
                await asyncio.sleep(0.005)

        await asyncio.wait_for(counted(), 5)
        with pytest.raises(errors.InvalidError, match="max_containers=1 is too small"):
            await client.ask(
                "function.scale", FunctionScale(function.function_id, {"max_containers": 1}), FunctionScaling
            )

    world(work)


def test_calls_are_listed_and_shown_while_they_run_and_after(world):
    async def work(world):
        going = asyncio.Event()

        async def slow(x):
            await going.wait()
            if x == 1:
                raise ValueError("bad row")
            return x

        await world.serve()
        await world.node({"slow": slow})
        client = await world.client()
        spec = FunctionSpec(name="slow", autoscaling=Autoscaling(max_containers=1))
        _, published = await client.app(spec, name="job", kind="detached")
        stream = await client.open_map(published["slow"])
        await client.send(stream, 0, list(range(3)))
        await stream.end()

        await until(client, stream.call_id, lambda shown: shown.running)
        shown = await details(client, stream.call_id)
        assert (shown.call.state, shown.call.total, shown.call.waiting, shown.call.running) == ("running", 3, 2, 1)
        assert shown.running[0].position == 0
        assert shown.waiting is not None
        assert shown.waiting.why == "waiting for a container: all 1 of max_containers are busy"
        listed = await client.ask("call.list", CallList(state="running", app="job", function="slow"), CallListed)
        assert [one.call_id for one in listed.calls] == [stream.call_id]
        assert (listed.waiting, listed.running) == (2, 1)
        going.set()
        await client.gather(stream)

        await until(client, stream.call_id, lambda shown: shown.call.state == "done")
        shown = await details(client, stream.call_id)
        assert (shown.call.succeeded, shown.call.failed, shown.waiting, shown.running) == (2, 1, None, ())
        assert shown.failed == ((1, "ValueError: bad row"),)
        graph = await client.ask("call.graph", CallGraph(stream.call_id), CallGraph)
        assert [one["status"] for one in graph.inputs] == ["success", "exception", "success"]
        assert all(one["container"] for one in graph.inputs)

    world(work)


def test_a_call_for_what_nobody_returns_says_never(world):
    async def work(world):
        await world.serve()
        node = await world.node({"keeps": lambda: None, "wants": lambda: None}, memory=1000)
        client = await world.client()
        keeper = FunctionSpec(name="keeps", resources=Resources(memory=900), autoscaling=Autoscaling(min_containers=1))
        _, kept = await client.app(keeper, name="keeper", kind="detached")
        await client.remote(kept["keeps"])
        _, wanted = await client.app(FunctionSpec(name="wants", resources=Resources(memory=900)), kind="detached")
        stream = await client.start(wanted["wants"])
        said = []

        async def waits():
            async for head, _ in stream:
                said.append(head)
                return

        await asyncio.wait_for(waits(), 5)
        shown = await details(client, stream.call_id)
        assert shown.waiting is not None
        assert shown.waiting.never
        assert "keeps() of app keeper (ap-" in shown.waiting.holders[0]
        assert b"keeper (ap-" in said[0]
        assert b"it needs" in said[0]
        assert list(node.containers)
        await client.ask("call.cancel", CallCancel(stream.call_id), dict)
        assert (await details(client, stream.call_id)).call.cancelled

    world(work)


def test_a_call_that_nobody_made(world):
    async def work(world):
        await world.serve()
        client = await world.client()
        with pytest.raises(errors.NotFoundError, match="there is no call"):
            await details(client, ids.new_id(ids.CALL))

    world(work)
