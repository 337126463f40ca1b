"""Versions of volumes as the server keeps them: one for each change, with whose it was, and not for ever."""

from __future__ import annotations

import asyncio

import pytest

from alight.server.services import volume_versions
from alight.wire import errors
from alight.wire.commands import Report, VolumeWork
from alight.wire.snapshots import SnapshotAsked, VolumeHistory, VolumeVersion
from alight.wire.spec import FunctionSpec, VolumeMount
from alight.wire.stored import VolumeEnsure, VolumeInfo, VolumePath


async def _mounted(world):
    """A client, a node with one container of ``train()``, and the volume that it has mounted."""

    async def wait_forever():
        await asyncio.Event().wait()

    await world.serve(node_grace=30)
    node = await world.node({"train": wait_forever})
    client = await world.client()
    volume = await client.ask("volume.ensure", VolumeEnsure("v", create=True), VolumeInfo)
    spec = FunctionSpec(name="train", volumes=(VolumeMount("/v", volume.volume_id),))
    _, functions = await client.app(spec, name="training")
    await client.start(functions["train"])
    await world.until(lambda: node.given)
    return client, node, volume.volume_id


async def _history(world, volume, limit=0):
    versions = world.server.parts.volumes.versions
    rows = await versions._store.read("volume_versions_of", volume_id=volume, limit=limit or -1)
    return [volume_versions._version(row) for row in rows]


def test_what_a_container_commits_by_running_says_whose_it_is(world):
    async def work(world):
        _, node, volume = await _mounted(world)
        container = next(iter(node.containers))
        for kind in ("background", "exit"):
            said = VolumeVersion(volume, kind, files=3, size=1000, removed=-1, container=container, at=5.0)
            node.report(Report("committed", container, volume=said))
        async with asyncio.timeout(10):
            while len(found := await _history(world, volume)) < 2:  # noqa: ASYNC110  the store tells nobody
                await asyncio.sleep(0.01)
        newest = found[0]
        assert (newest.version, newest.kind, newest.files, newest.size, newest.removed) == (2, "exit", 3, 1000, -1)
        assert (newest.app, newest.function, newest.container) == ("training", "train", container)

    world(work)


def test_a_commit_of_nothing_is_no_version(world, monkeypatch):
    async def work(world):
        client, _, volume = await _mounted(world)
        before = await client.ask("volume.commit", VolumePath(volume), VolumeInfo)

        async def nothing(self, opening):
            opening.close()
            return VolumeVersion(volume, changed=False)

        monkeypatch.setattr(volume_versions.VolumeVersions, "_synced", nothing)
        assert (await client.ask("volume.commit", VolumePath(volume), VolumeInfo)).version == before.version == 1
        assert len(await _history(world, volume)) == 1

    world(work)


def test_an_upload_counts_whose_client_left_with_its_last_answer(world, monkeypatch):
    """The command ends when it has read that all is there, which may be before the machine's stream is over."""

    async def work(world):
        _, node, volume = await _mounted(world)
        others = node._volume

        async def answers_and_stays(stream):
            if stream.arguments(VolumeWork).verb == "upload":
                await stream.send({})
                async for _ in stream:
                    pass
            else:
                await others(stream)

        monkeypatch.setattr(node, "_volume", answers_and_stays)
        leaving = await world.client()
        stream = await leaving.peer.open("volume.upload", VolumePath(volume))
        assert await asyncio.wait_for(stream.recv(), 5)
        leaving.peer.close()
        async with asyncio.timeout(5):
            while not (found := await _history(world, volume)):  # noqa: ASYNC110  the store tells nobody
                await asyncio.sleep(0.01)
        assert [one.kind for one in found] == ["upload"]

    world(work)


def test_old_versions_are_forgotten(world, monkeypatch):
    monkeypatch.setattr(volume_versions, "KEPT", 3)

    async def work(world):
        client, _, volume = await _mounted(world)
        for _ in range(5):
            await client.ask("volume.commit", VolumePath(volume), VolumeInfo)
        assert [one.version for one in await _history(world, volume)] == [5, 4, 3]
        assert [one.version for one in await _history(world, volume, 2)] == [5, 4]

    world(work)


def test_the_history_needs_a_volume(world):
    async def work(world):
        client, _, _ = await _mounted(world)
        with pytest.raises(errors.NotFoundError, match="no volume vo-none"):
            await client.ask("volume.history", SnapshotAsked("vo-none"), VolumeHistory)

    world(work)
