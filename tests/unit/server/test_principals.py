"""A container is a principal: what it may ask, row by row, and what it may not even when it lies."""

from __future__ import annotations

import asyncio

import pytest

from alight.server import permissions
from alight.server.auth import CONTAINER, NODE, OWNER, STRANGER, USER, Principal
from alight.wire import errors, ids, payload
from alight.wire.calling import CallCancel, CallStart
from alight.wire.commands import Output, Report
from alight.wire.messages import FunctionFind, FunctionInfo, FunctionLookup, PublishedFunction
from alight.wire.spec import FunctionSpec, VolumeMount
from alight.wire.stored import (
    NamedList,
    SecretCreate,
    SecretInfo,
    SecretLookup,
    VolumeEnsure,
    VolumeFiles,
    VolumeInfo,
    VolumeListed,
    VolumePath,
)

KINDS = (OWNER, USER, NODE, CONTAINER, STRANGER)
OPEN_TO = {
    CONTAINER: {
        "app.find",
        "function.lookup",
        "blob.missing",
        "blob.put",
        "blob.get",
        "blob.put_many",
        "blob.get_many",
        "blob.place",
        "call.start",
        "call.result",
        "call.cancel",
        "call.graph",
        "logs.query",
        "function.find",
        "function.bind",
        "function.scale",
        "function.stats",
        "function.urls",
        "dashboard.link",
        "web.session_start",
        "web.session_end",
        "volume.ensure",
        "volume.list",
        "volume.delete",
        "volume.files",
        "volume.read",
        "volume.write",
        "volume.upload",
        "volume.fetch",
        "volume.info",
        "volume.remove",
        "volume.copy",
        "volume.commit",
        "volume.reload",
        "secret.lookup",
        "terminal.open",
        "ephemeral.keep",
        "ephemeral.drop",
        "dict.ensure",
        "dict.list",
        "dict.find",
        "dict.delete",
        "dict.get",
        "dict.contains",
        "dict.put",
        "dict.pop",
        "dict.len",
        "dict.clear",
        "dict.scan",
        "queue.ensure",
        "queue.list",
        "queue.find",
        "queue.delete",
        "queue.put",
        "queue.get",
        "queue.back",
        "queue.peek",
        "queue.len",
        "queue.clear",
    },
    NODE: {
        "node.session",
        "web.enter",
        "blob.missing",
        "blob.put",
        "blob.get",
        "blob.put_many",
        "blob.get_many",
        "blob.place",
    },
    STRANGER: {"setup.begin", "setup.poll"},
}
NO_PERSONS = {"node.session", "web.enter", "terminal.open"}
OWNERS_ALONE = {
    "server.stop",
    "server.backup",
    "secret.rotate",
    "environment.delete",
    "image.work",
    "token.create",
    "token.list",
    "token.delete",
    "setup.pending",
    "gpu.restore",
    "setup.approve",
}


@pytest.mark.parametrize("method", sorted(permissions.ALLOWED))
@pytest.mark.parametrize("kind", KINDS)
def test_each_row(kind, method):
    if kind == OWNER:
        may = method not in NO_PERSONS
    elif kind == USER:
        may = method not in NO_PERSONS | OWNERS_ALONE
    else:
        may = method in OPEN_TO[kind]
    if may:
        permissions.check(Principal(kind), method)
    else:
        with pytest.raises((errors.PermissionDeniedError, errors.AuthError)):
            permissions.check(Principal(kind), method)


def test_every_route_has_a_row_and_every_row_a_route(world):
    async def work(world):
        server = await world.serve(node_grace=30)
        assert set(server.routes()) == set(permissions.ALLOWED)

    world(work)


def test_a_method_that_nobody_has_is_said_in_one_sentence():
    with pytest.raises(errors.UnimplementedError, match=r"no app\.fly"):
        permissions.check(Principal(OWNER), "app.fly")


def inside(work, **spec):
    """Run ``work(world, client, node, container id)`` with one container of function f in app one, environment main."""

    async def main(world):
        async def wait_forever():
            await asyncio.Event().wait()

        await world.serve(node_grace=30)
        node = await world.node({"f": wait_forever, "g": lambda: "from g", "h": lambda: "from h"})
        client = await world.client()
        _, functions = await client.app(FunctionSpec(name="f", **spec), FunctionSpec(name="g"))
        await client.start(functions["f"])
        await world.until(lambda: node.given)
        await work(world, client, node, functions)

    return main


async def refused(stream):
    with pytest.raises(errors.PermissionDeniedError) as caught:
        await asyncio.wait_for(stream.recv(), 5)
    return str(caught.value)


def container_of(node):
    return next(iter(node.containers))


def test_a_container_reads_no_tokens_and_stops_nothing(world):
    async def work(world, client, node, functions):
        for method in ("token.list", "server.stop", "secret.list", "app.list", "setup.approve", "node.session"):
            said = await refused(await node.ask(container_of(node), method, {}))
            assert said == f"code in a container may not use {method}"

    world(inside(work))


def test_a_container_sees_its_own_environment_only(world):
    async def work(world, client, node, functions):
        theirs = await client.ask("volume.ensure", VolumeEnsure("theirs", "other", create=True), VolumeInfo)
        mine = await client.ask("volume.ensure", VolumeEnsure("mine", create=True), VolumeInfo)
        await client.ask("secret.create", SecretCreate({"A": "b"}, "theirs", "other"), SecretInfo)
        me = container_of(node)
        stream = await node.ask(me, "volume.list", NamedList())
        assert [one.name for one in (await stream.expect(VolumeListed)).volumes] == ["mine"]
        for method, args in (
            ("volume.list", NamedList("other")),
            ("volume.ensure", VolumeEnsure("theirs", "other")),
            ("volume.files", VolumePath(theirs.volume_id)),
            ("volume.read", VolumePath(theirs.volume_id, "/x")),
            ("volume.upload", VolumePath(theirs.volume_id)),
            ("volume.fetch", VolumePath(theirs.volume_id)),
            ("volume.info", VolumePath(theirs.volume_id)),
            ("volume.commit", VolumePath(theirs.volume_id)),
            ("secret.lookup", SecretLookup("theirs", "other")),
        ):
            assert "environment" in await refused(await node.ask(me, method, args))
        files = await node.ask(me, "volume.files", VolumePath(mine.volume_id))
        assert (await files.expect(VolumeFiles)).files == ()

    world(inside(work))


def test_only_a_mounted_volume_is_committed(world):
    async def work(world, client, node, functions):
        stranger = await client.ask("volume.ensure", VolumeEnsure("s", create=True), VolumeInfo)
        said = await refused(await node.ask(container_of(node), "volume.commit", VolumePath(stranger.volume_id)))
        assert said == "the volume 's' cannot be committed here: this function does not mount it"

    world(inside(work))


def test_a_mounted_volume_counts_its_commits(world):
    async def work(world):
        async def wait_forever():
            await asyncio.Event().wait()

        await world.serve(node_grace=30)
        node = await world.node({"f": wait_forever})
        client = await world.client()
        volume = await client.ask("volume.ensure", VolumeEnsure("v", create=True), VolumeInfo)
        other = await client.ask("volume.ensure", VolumeEnsure("w", create=True), VolumeInfo)
        mounts = (VolumeMount("/v", volume.volume_id), VolumeMount("/w", other.volume_id, read_only=True))
        _, functions = await client.app(FunctionSpec(name="f", volumes=mounts))
        await client.start(functions["f"])
        await world.until(lambda: node.given)
        for version in (1, 2):
            stream = await node.ask(container_of(node), "volume.commit", VolumePath(volume.volume_id))
            assert (await stream.expect(VolumeInfo)).version == version
        assert "read-only" in await refused(
            await node.ask(container_of(node), "volume.commit", VolumePath(other.volume_id))
        )

    world(work)


def test_a_container_calls_what_is_its_owners_in_its_environment(world):
    async def work(world, client, node, functions):
        me = container_of(node)
        stream = await node.ask(me, "function.lookup", FunctionLookup("g"))
        found = await stream.expect(PublishedFunction)
        call = CallStart(ids.new_id(ids.CALL), found.function_id)
        _, value = await client.result(await node.ask(me, "call.start", call, payload.dumps_bytes(((), {}))))
        assert value == "from g"
        other_app, _ = await client.app(FunctionSpec(name="h"), name="another")
        assert "own app" in await refused(await node.ask(me, "function.lookup", FunctionLookup("h", other_app)))
        stream = await node.ask(me, "function.find", FunctionFind("another", "h"))
        call = CallStart(ids.new_id(ids.CALL), (await stream.expect(FunctionInfo)).function_id)
        _, value = await client.result(await node.ask(me, "call.start", call, payload.dumps_bytes(((), {}))))
        assert value == "from h"
        _, others = await client.app(FunctionSpec(name="h"), environment="elsewhere")
        call = CallStart(ids.new_id(ids.CALL), others["h"].function_id)
        assert "somebody else" in await refused(await node.ask(me, "call.start", call))

    world(inside(work))


def test_a_restricted_container_says_nothing(world):
    async def work(world, client, node, functions):
        said = await refused(await node.ask(container_of(node), "volume.list", NamedList()))
        assert "restrict_modal_access" in said

    world(inside(work, restrict_access=True))


def test_a_node_speaks_for_its_own_containers_alone(world):
    async def work(world, client, node, functions):
        other = await world.node({})
        said = await refused(await other.ask(container_of(node), "volume.list", NamedList()))
        assert said == "this container is not known to the server"
        assert "only a node" in await refused(
            await client.peer.open("volume.list", NamedList(), container=container_of(node), end=True)
        )

    world(inside(work))


def test_an_output_is_taken_from_its_own_container_only(world):
    async def work(world, client, node, functions):
        me = container_of(node)
        victim = await client.start(functions["f"])
        await world.until(lambda: len(node.given) == 2)
        forged = payload.dumps_bytes("forged")
        other = await world.node({})
        for liar, name in ((node, me), (other, list(node.containers)[1]), (other, ids.new_id(ids.CONTAINER))):
            output = Output(victim.call_id, 0, 1, "success", name)
            liar.report(Report("output", container=name, output=output), forged)
        await other.peer.ping(5)
        await node.peer.ping(5)
        assert victim.call_id in world.server.parts.calls.live
        await client.ask("call.cancel", CallCancel(victim.call_id), dict)

    world(inside(work))


def test_users_see_their_own_apps(world):
    async def work(world):
        from alight.server.services.apps import App, may_touch

        app = App("ap-1", "a", "a", "main", "running", "ada", 0.0)
        assert may_touch(Principal(OWNER), app)
        assert may_touch(Principal(USER, owner="ada"), app)
        assert not may_touch(Principal(USER, owner="eve"), app)
        assert not may_touch(Principal(CONTAINER, owner="ada", app_id="ap-2"), app)

    world(work)
