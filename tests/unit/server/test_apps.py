"""Apps, what they write, and who holds them."""

from __future__ import annotations

import asyncio

import pytest

from alight.wire import errors
from alight.wire.messages import (
    AppCreate,
    AppCreated,
    AppDetach,
    AppEvent,
    AppList,
    AppListed,
    AppPublish,
    AppPublished,
    AppStop,
    AppWatch,
    FunctionLookup,
    ImageEnsure,
    ImageReady,
    PublishedFunction,
    ServerInfo,
)
from alight.wire.spec import FunctionSpec, ImageSpec, Resources
from alight.wire.stored import SecretCreate, SecretInfo, VolumeDelete, VolumeEnsure, VolumeFile, VolumeInfo, VolumePath

F = FunctionSpec(name="f")


async def events(stream, until):
    """Events up to the one for which ``until`` holds, with bodies."""
    seen = []

    async def read():
        async for head, body in stream:
            event = stream.decode(AppEvent, head)
            seen.append((event, body))
            if until(event, body):
                return

    await asyncio.wait_for(read(), 5)
    return seen


def output(seen):
    return b"".join(body for event, body in seen if event.kind == "output")


async def running(world, client, **functions):
    node = await world.node({"f": lambda: None, **functions})
    app_id, published = await client.app(F)
    watch = await client.peer.open("app.watch", AppWatch(app_id))
    await client.remote(published["f"])
    return node, app_id, published, watch, next(iter(node.containers))


def test_a_watcher_sees_containers_and_output_in_order(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        node, app_id, _, watch, container = await running(world, client)
        await world.until(lambda: app_id in node.watched)
        node.write(container, "one\n")
        node.write(container, "two\r", fd=2)
        end = node.write(container, "three\n")
        seen = await events(watch, lambda event, body: body == b"three\n")
        said = [(event.fd, body) for event, body in seen if event.kind == "output"]
        assert said == [(1, b"one\n"), (2, b"two\r"), (1, b"three\n")]
        assert seen[-1][0].offset == end
        states = [event.state for event, _ in seen if event.kind == "container"]
        assert states == ["starting", "ready"]
        await client.ask("app.stop", AppStop(app_id), dict)
        seen = await events(watch, lambda event, body: event.kind == "stopped")
        assert seen[-1][0].text == "its client ended"

    world(work)


def test_kept_output_is_replayed_merged_by_time_and_cut_to_a_tail(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        node, app_id, _, watch, container = await running(world, client)
        for number in range(5):
            node.write(container, f"{number}\n")
        await events(watch, lambda event, body: body == b"4\n")
        await client.ask("app.stop", AppStop(app_id, wait=5), dict)
        for asked, expected in (
            (AppWatch(app_id, hold=False, follow=False), b"0\n1\n2\n3\n4\n"),
            (AppWatch(app_id, hold=False, follow=False, tail=2), b"3\n4\n"),
            (AppWatch(app_id, hold=False, follow=False, tail=0), b""),
            (AppWatch(app_id, hold=False, follow=False, since=9e9), b""),
        ):
            again = await client.peer.open("app.watch", asked)
            seen = await events(again, lambda event, body: event.kind == "stopped")
            assert output(seen) == expected

    world(work)


def test_a_watcher_that_reads_nothing_blocks_nobody_and_misses_nothing(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        node, app_id, published, watch, container = await running(world, client)
        slow = await world.client()
        lagging = await slow.peer.open("app.watch", AppWatch(app_id, hold=False))
        line = "x" * 100_000
        for _ in range(150):  # more than a stream's window and the sockets' buffers together
            node.write(container, line)
        node.write(container, "the end")
        await client.remote(published["f"])
        assert len(output(await events(watch, lambda event, body: body == b"the end"))) == 150 * len(line) + 7
        assert len(output(await events(lagging, lambda event, body: body == b"the end"))) == 150 * len(line) + 7

    world(work)


def test_an_app_ends_when_its_holder_stays_away(world):
    async def work(world):
        await world.serve(holder_grace=0.1)
        holder, other = await world.client(), await world.client()
        node, app_id, *_ = await running(world, holder)
        listening = await other.peer.open("app.watch", AppWatch(app_id, hold=False))
        await asyncio.sleep(0.15)
        assert app_id in world.server.parts.apps.alive
        holder.peer.close()
        seen = await events(listening, lambda event, body: event.kind == "stopped")
        assert seen[-1][0].text == "its client was gone for 0.1 s"
        await world.until(lambda: not node.containers)

    world(work)


def test_a_holder_that_comes_back_in_time_keeps_its_app(world):
    async def work(world):
        await world.serve(holder_grace=0.2)
        holder = await world.client()
        _, app_id, *_ = await running(world, holder)
        holder.peer.close()
        again = await world.client()
        await again.peer.open("app.watch", AppWatch(app_id))
        await asyncio.sleep(0.3)
        assert app_id in world.server.parts.apps.alive

    world(work)


def test_a_detached_app_needs_no_holder(world):
    async def work(world):
        await world.serve(holder_grace=0.05)
        client = await world.client()
        app_id, _ = await client.app(F)
        await client.ask("app.detach", AppDetach(app_id), dict)
        await asyncio.sleep(0.15)
        listed = await client.ask("app.list", AppList(), AppListed)
        assert [(one.app_id, one.state, one.functions) for one in listed.apps] == [(app_id, "detached", ("f",))]

    world(work)


def test_after_a_restart_holders_have_their_time(world):
    async def work(world):
        await world.serve(holder_grace=0.3)
        client = await world.client()
        app_id, _ = await client.app(F)
        await world.crash()
        await world.serve(holder_grace=0.3)
        assert app_id in world.server.parts.apps.alive
        await world.until(lambda: app_id not in world.server.parts.apps.alive)

    world(work)


def test_names_that_cannot_be_are_refused(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        for create in (AppCreate(name="a b"), AppCreate(environment="!"), AppCreate(kind="flying")):
            with pytest.raises(errors.InvalidError):
                await client.ask("app.create", create, AppCreated)
        with pytest.raises(errors.NotFoundError):
            await client.ask("app.publish", AppPublish("ap-none", (F,)), AppPublished)

    world(work)


def test_publishing_again_keeps_ids_and_takes_changes(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        app_id, first = await client.app(F)
        for spec, version in ((F, 1), (FunctionSpec(name="f", resources=Resources(memory=256)), 2)):
            answer = await client.ask("app.publish", AppPublish(app_id, (spec,)), AppPublished)
            assert answer.functions[0].function_id == first["f"].function_id
            assert world.server.parts.functions.by_id[first["f"].function_id].version == version
        with pytest.raises(errors.NotFoundError) as caught:
            await client.ask("function.lookup", FunctionLookup("g", app_id), PublishedFunction)
        assert caught.value.hint == "it has: f"

    world(work)


def test_an_image_is_built_once_and_told_about(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({})
        client = await world.client()
        app_id, _ = await client.app(F)
        image = ImageSpec(({"op": "debian_slim", "python": "3.12"},))
        built = []
        for _ in range(2):
            stream = await client.peer.open("image.ensure", ImageEnsure(app_id, image), end=True)
            heads = [head async for head, _ in stream]
            built.append(stream.decode(ImageReady, heads[-1]))
        assert (built[0].built, built[1].built) == (True, False)
        assert built[0].image_id == built[1].image_id == node.builds[0]
        assert len(node.builds) == 1

    world(work)


def test_files_of_a_volume_pass_through_whole(world):
    async def work(world):
        await world.serve(node_grace=30)
        await world.node({})
        client = await world.client()
        volume = await client.ask("volume.ensure", VolumeEnsure("data", create=True), VolumeInfo)
        with pytest.raises(errors.AlreadyExistsError):
            await client.ask("volume.ensure", VolumeEnsure("data", create=True, exclusive=True), VolumeInfo)
        with pytest.raises(errors.NotFoundError):
            await client.ask("volume.ensure", VolumeEnsure("none"), VolumeInfo)
        pieces = [bytes([number]) * (1 << 20) for number in range(12)]
        write = await client.peer.open("volume.write", VolumePath(volume.volume_id, "/a"))
        for piece in pieces:
            await write.send(None, piece)
        await write.end()
        assert (await write.expect(VolumeFile)).size == 12 << 20
        read = await client.peer.open("volume.read", VolumePath(volume.volume_id, "/a"), end=True)
        assert b"".join([body async for _, body in read]) == b"".join(pieces)
        renamed = VolumeDelete(name="data", new_name="kept")
        await client.ask("volume.rename", renamed, dict)
        await client.ask("volume.delete", VolumeDelete(name="kept"), dict)
        with pytest.raises(errors.NotFoundError):
            await client.ask("volume.files", VolumePath(volume.volume_id), VolumeFile)
        await client.ask("volume.delete", VolumeDelete(name="kept", allow_missing=True), dict)

    world(work)


def test_a_function_gets_its_secrets_and_anonymous_ones_end_with_their_app(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({"f": lambda: None})
        client = await world.client()
        app = await client.ask("app.create", AppCreate(), AppCreated)
        asked = SecretCreate({"TOKEN": "hunter2"}, app_id=app.app_id)
        secret = await client.ask("secret.create", asked, SecretInfo)
        spec = FunctionSpec(name="f", secrets=(secret.secret_id,))
        published = await client.ask("app.publish", AppPublish(app.app_id, (spec,)), AppPublished)
        await client.remote(published.functions[0])
        assert next(iter(node.containers.values())).start.secrets == {"TOKEN": "hunter2"}
        await client.ask("app.stop", AppStop(app.app_id), dict)
        assert await world.server.parts.store.one("secret_by_id", secret_id=secret.secret_id) is None

    world(work)


def test_a_secret_that_is_gone_fails_the_call_and_names_it(world):
    async def work(world):
        await world.serve(node_grace=30)
        await world.node({"f": lambda: None})
        client = await world.client()
        _, published = await client.app(FunctionSpec(name="f", secrets=("st-0000000000000000000000",)))
        update, _ = await client.remote(published["f"])
        assert update.error["code"] == "not_found"

    world(work)


def test_status_names_machines_and_stop_ends_them(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        node, *_ = await running(world, client)
        info = await client.ask("server.info", {}, ServerInfo)
        assert [(one.engine, one.containers) for one in info.nodes] == [("fake", 1)]
        await client.ask("server.stop", {}, dict)
        assert not node.containers
        await asyncio.wait_for(world.server.stop_asked.wait(), 5)

    world(work)
