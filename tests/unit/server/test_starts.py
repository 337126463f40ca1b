"""The ledger of cold starts in the server: its own stages and the machine's in one row, kept over restarts, bounded,
and shown to whom it belongs."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from alight.scheduler.state import Call, Container, Function, Need, State
from alight.server.auth import NODE, OWNER
from alight.server.services.starts import waited_since
from alight.store import open_store
from alight.wire import errors
from alight.wire.commands import Report
from alight.wire.spec import Autoscaling, Resources
from alight.wire.starts import (
    AppStarts,
    AppStats,
    ContainerDetails,
    ContainerList,
    ContainerListed,
    ContainerShow,
    ContainerStop,
)
from tests.unit.server.conftest import spec

SAID = {
    "how": "plain",
    "level": 0,
    "ready": True,
    "reached": "",
    "stages": {"mounts": 0.01, "image": 0.002, "exec": 0.06, "import": 3.1, "first_input": 0.001},
    "imports": [["torch", 3.0]],
}


async def started(world, **fields):
    """A server, a machine, a client, and a container that has answered and said where its start went."""
    await world.serve(node_grace=30)
    node = await world.node({"double": lambda x: 2 * x})
    client = await world.client()
    app_id, functions = await client.app(spec(**fields), name="doubling", environment="main")
    await client.remote(functions["double"], 4)
    (container_id,) = node.containers
    node.report(Report("started", container=container_id, start=SAID))
    return node, client, app_id, container_id


async def show(client, container_id):
    return await client.ask("container.show", ContainerShow(container_id), ContainerDetails)


async def until_said(client, container_id):
    while True:
        details = await show(client, container_id)
        if details.container.how:
            return details
        await asyncio.sleep(0.005)


def test_stages_of_server_and_machine_are_one_start(world):
    async def work(place):
        _, client, app_id, container_id = await started(place)
        details = await asyncio.wait_for(until_said(client, container_id), 5)
        one, start = details.container, details.start
        stages = {stage.name: stage.seconds for stage in start.stages}
        assert list(stages) == ["wait", "place", "image", "mounts", "exec", "import", "first_input"]
        assert stages["import"] == 3.1
        assert 0 < stages["place"] < 2
        assert one.total == pytest.approx(sum(stages.values()))
        assert start.imports == (("torch", 3.0),)
        assert start.remedies == ("import torch 3.0 s: enable_memory_snapshot=True would save it",)
        assert (one.state, one.how, one.app, one.app_id, one.machine) == (
            "ready", "plain", "doubling", app_id, "fake-host",
        )  # fmt: skip
        listed = await client.ask("container.list", ContainerList(), ContainerListed)
        assert listed.containers == (one,)

    world(work)


def test_the_function_of_a_template_is_told_nothing_it_did(world):
    async def work(place):
        _, client, _, container_id = await started(place, enable_memory_snapshot=True)
        details = await asyncio.wait_for(until_said(client, container_id), 5)
        assert "no template yet" in details.start.remedies[0]

    world(work)


def test_it_is_there_after_a_restart_and_after_the_end(world):
    async def work(place):
        node, client, _, container_id = await started(place)
        await asyncio.wait_for(until_said(client, container_id), 5)
        node.kill_container(container_id)
        await place.until(lambda: container_id not in place.server.parts.containers.alive)
        before = await show(client, container_id)
        assert before.container.signal == 9
        await place.crash()
        await place.serve(node_grace=30)
        after = await show(await place.client(), container_id)
        assert after == before

    world(work)


def test_a_start_that_a_restart_fell_into_keeps_the_servers_part(world):
    async def work(place):
        await place.serve(node_grace=30, holder_grace=30)
        node = await place.node({"double": lambda x: 2 * x})
        node.hold = True
        client = await place.client()
        _, functions = await client.app(spec())
        await client.start(functions["double"], 4)
        await place.until(lambda: node.containers)
        (container_id,) = node.containers
        first = await show(client, container_id)
        assert (first.container.total, first.start.reached) == (None, "mounts")
        await node.disconnect()
        await place.crash()
        await place.serve(node_grace=30)
        await node.connect(place.socket)
        client = await place.client()
        node.report(Report("started", container=container_id, start=SAID))
        details = await asyncio.wait_for(until_said(client, container_id), 5)
        stages = {stage.name: stage.seconds for stage in details.start.stages}
        was = {stage.name: stage.seconds for stage in first.start.stages}
        assert stages["place"] == was["place"]
        assert stages["wait"] == was["wait"]
        assert stages["exec"] == 0.06

    world(work)


def test_one_whose_agent_was_restarted_is_not_said_to_have_stopped_before_it_was_ready(world):
    async def work(place):
        await place.serve(node_grace=30)
        node = await place.node({"double": lambda x: 2 * x})
        client = await place.client()
        _, functions = await client.app(spec())
        await client.remote(functions["double"], 4)
        (container_id,) = node.containers
        node.kill_container(container_id)
        await place.until(lambda: container_id not in place.server.parts.containers.alive)
        details = await show(client, container_id)
        assert details.start.reached == "ready"
        assert details.container.total is None

    world(work)


def test_an_image_that_was_built_is_part_of_the_start(world):
    async def work(place):
        node, client, _, _ = await started(place)
        node.build_error = errors.ImageBuildError("no such package")
        node.cached.clear()
        _, functions = await client.app(spec("other"))
        place.server.parts.images._built.clear()
        await client.remote(functions["other"], 1)
        listed = await client.ask("container.list", ContainerList(ended=True), ContainerListed)
        failed = next(one for one in listed.containers if one.function == "other")
        details = await show(client, failed.container_id)
        assert details.start.reached == "image"
        assert details.start.remedies == ()
        assert failed.total is None
        assert "no such package" in failed.why

    world(work)


def test_statistics_by_function_and_stage(world):
    async def work(place):
        _, client, app_id, container_id = await started(place)
        await asyncio.wait_for(until_said(client, container_id), 5)
        store = place.server.parts.store
        (row,) = await store.read("starts_open")
        for number in range(1, 100):
            more = {**row, "container_id": f"ta-{number}", "total": float(number), "how": "forked"}
            await store.write([("start_put", {**more, "stages": json.dumps({"fork": float(number)})})])
        await store.write([("start_put", {**row, "container_id": "ta-failed", "total": None})])
        for asked in ("doubling", app_id):
            found = await client.ask("app.stats", AppStats(asked, "main"), AppStarts)
            (one,) = found.functions
            assert (one.function, one.starts, one.failed) == ("double", 101, 1)
            assert one.how == {"plain": 1, "forked": 99}
            stages = {stage.name: stage for stage in one.stages}
            assert (stages["fork"].count, stages["fork"].p50, stages["fork"].p95) == (99, 50.0, 95.0)
            assert stages["total"].count == 100
            assert (one.slowest, one.slowest_id) == (99.0, "ta-99")
        later = await client.ask("app.stats", AppStats(app_id, since=time.time() + 60), AppStarts)
        assert later.functions == ()
        with pytest.raises(errors.NotFoundError, match="no app 'nothing'"):
            await client.ask("app.stats", AppStats("nothing"), AppStarts)

    world(work)


def test_the_janitor_keeps_the_newest_of_each_function(tmp_path):
    async def main():
        store = await open_store(tmp_path / "db")
        row = {"how": "", "level": 0, "reached": "", "total": 1.0, "stages": "{}", "facts": "{}"}
        for function in "ab":
            for age in range(5):
                one = {**row, "container_id": f"{function}{age}", "function_id": function, "created_at": 100.0 - age}
                await store.write([("start_put", one)])
        await store.write([("starts_too_many", {"most": 3})])
        left = [one["container_id"] for one in await store.read("starts_of_all")]
        assert left == ["a0", "a1", "a2", "b0", "b1", "b2"]
        await store.write([("starts_forget", {"before": 98.5})])
        assert [one["container_id"] for one in await store.read("starts_of_all")] == ["a0", "a1", "b0", "b1"]
        await store.close()

    asyncio.run(main())


def test_over_http_everybody_reads_their_own(world):
    async def work(place):
        _, client, app_id, container_id = await started(place)
        await asyncio.wait_for(until_said(client, container_id), 5)
        tokens = place.server.parts.tokens
        eve = await tokens.create("eve", 1.0, owner="eve")
        ours = await tokens.create("ours", 1.0, kind=OWNER)
        machine = await tokens.create("a machine", 1.0, kind=NODE)

        async def get(path, token=None, secret=""):
            headers = {}
            if token is not None:
                headers["authorization"] = f"Bearer {token.token_id}:{secret or token.token_secret}"
            status, _, body = await place.server.dashboard.rest("GET", f"/api/v1/{path}", headers, b"", None)
            return status, json.loads(body)

        status, found = await get(f"containers/{container_id}", ours)
        assert status == 200
        assert found["container"]["how"] == "plain"
        assert {"name": "exec", "seconds": 0.06} in found["start"]["stages"]
        status, found = await get("apps/doubling/stats?environment=main", ours)
        assert (status, found["functions"][0]["starts"]) == (200, 1)
        status, found = await get("containers?all=1&limit=5", ours)
        assert [one["container_id"] for one in found["containers"]] == [container_id]
        assert (await get(f"containers/{container_id}", eve))[0] == 403
        assert (await get("containers", eve)) == (200, {"containers": [], "more": False})
        assert (await get(f"apps/{app_id}/stats", eve))[0] == 404
        assert (await get("containers", machine))[0] == 403
        assert (await get("containers"))[0] == 401
        assert (await get("containers", ours, "wrong"))[0] == 401
        assert (await get("containers?limit=x", ours))[0] == 400
        assert (await get("else", ours))[0] == 404
        of_uid = await place.server.dashboard.rest("GET", "/api/v1/containers", {}, b"", 12345)
        assert json.loads(of_uid[2]) == {"containers": [], "more": False}

    world(work)


def test_the_local_socket_answers_http_without_a_token(world):
    async def work(place):
        _, client, _, container_id = await started(place)
        await asyncio.wait_for(until_said(client, container_id), 5)

        async def get(path):
            reader, writer = await asyncio.open_unix_connection(place.socket)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            whole = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            head, _, body = whole.partition(b"\r\n\r\n")
            return head.split(b"\r\n")[0], body

        status, body = await get(f"/api/v1/containers/{container_id}")
        assert status == b"HTTP/1.1 200 OK"
        assert json.loads(body)["container"]["container_id"] == container_id
        assert (await get("/api/v1/containers/ta-none"))[0] == b"HTTP/1.1 404 Not Found"
        assert (await get("/health"))[0] == b"HTTP/1.1 200 OK"

    world(work)


def test_a_stopped_container_is_gone_and_its_input_runs_elsewhere(world):
    async def work(place):
        release = asyncio.Event()

        async def wait(x):
            await release.wait()
            return x

        await place.serve(node_grace=30)
        node = await place.node({"wait": wait})
        client = await place.client()
        _, functions = await client.app(spec("wait"))
        stream = await client.start(functions["wait"], 5)
        await place.until(lambda: node.given)
        (first,) = node.containers
        await client.ask("container.stop", ContainerStop(first), dict)
        details = await show(client, first)
        assert details.container.state == "ended"
        assert "container stop" in details.container.why
        release.set()
        update, value = await client.result(stream)
        assert value == 5
        assert update.container != first
        await client.ask("container.stop", ContainerStop(first), dict)  # again: nothing happens
        with pytest.raises(errors.NotFoundError):
            await client.ask("container.stop", ContainerStop("ta-none"), dict)

    world(work)


def test_a_line_that_moves_is_not_a_wait():
    need = Need(memory=1)
    state = State(make_id=lambda: "x")
    function = state.functions["f"] = Function("f", "app", "f", need, 1)
    assert waited_since(state, "f", 50.0, 0.0) == 50.0  # nobody waits: it is kept ready
    state.calls["c"] = Call("c", "f", 1, None, 10.0)
    function.line["c"] = None
    assert waited_since(state, "f", 50.0, 0.0) == 10.0
    assert waited_since(state, "f", 50.0, 30.0) == 30.0  # until then a container of it was there
    state.containers["t"] = Container("t", "f", "n", 1, 1.0, (), 1, moved=45.0)
    function.serving.add("t")
    assert waited_since(state, "f", 50.0, 30.0) == 45.0
    assert waited_since(state, "gone", 50.0, 0.0) == 50.0


def test_what_it_waited_for_is_part_of_the_start(world):
    async def work(place):
        await place.serve(node_grace=30)
        node = await place.node({"big": lambda x: x, "late": lambda x: x}, memory=1000)
        client = await place.client()
        _, functions = await client.app(
            spec("big", resources=Resources(memory=900), autoscaling=Autoscaling(scaledown_window=0.1)),
            spec("late", resources=Resources(memory=900)),
        )
        node.hold = True
        first = await client.start(functions["big"], 1)
        await place.until(lambda: node.containers)
        (container_id,) = node.containers
        second = await client.start(functions["late"], 2)
        starts = place.server.parts.containers.starts
        await place.until(lambda: starts._waits)
        node.hold = False
        node.ready(container_id)
        await client.result(first)
        update, _ = await client.result(second)
        details = await show(client, update.container)
        assert details.start.waited.startswith("waiting for memory (900 MiB)")
        assert details.start.stages[0].name == "wait"
        assert details.start.stages[0].seconds > 0
        assert starts._waits == {}

    world(work)
