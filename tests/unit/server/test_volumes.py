"""Volumes by name: who has one mounted, that nothing is forgotten before its files are gone, and nameless ones."""

from __future__ import annotations

import asyncio
import time

import pytest

from alight.wire import errors
from alight.wire.shared import EphemeralNamed
from alight.wire.spec import FunctionSpec, VolumeMount
from alight.wire.stored import NamedList, VolumeDelete, VolumeEnsure, VolumeInfo, VolumeListed, VolumePath


async def wait_forever():
    await asyncio.Event().wait()


def test_a_mounted_volume_is_listed_with_who_has_it_and_not_deleted(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({"f": wait_forever})
        client = await world.client()
        volume = await client.ask("volume.ensure", VolumeEnsure("v", create=True), VolumeInfo)
        _, functions = await client.app(FunctionSpec(name="f", volumes=(VolumeMount("/v", volume.volume_id),)))
        await client.start(functions["f"])
        await world.until(lambda: node.given)
        (listed,) = (await client.ask("volume.list", NamedList(details=True), VolumeListed)).volumes
        assert [name.rpartition(".")[2] for name in listed.mounted] == ["f"]
        with pytest.raises(errors.ConflictError, match=r"'v' is mounted by .*\.f \(container "):
            await client.ask("volume.delete", VolumeDelete("v"), dict)
        assert (await client.ask("volume.ensure", VolumeEnsure("v"), VolumeInfo)).volume_id == volume.volume_id

    world(work)


def test_without_a_machine_nothing_is_forgotten(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        await client.ask("volume.ensure", VolumeEnsure("v", create=True), VolumeInfo)
        with pytest.raises(errors.ServiceError, match="no machine"):
            await client.ask("volume.delete", VolumeDelete("v"), dict)
        await client.ask("volume.ensure", VolumeEnsure("v"), VolumeInfo)

    world(work)


def test_a_nameless_one_lives_as_long_as_it_is_wanted(world):
    async def work(world):
        server = await world.serve(node_grace=30)
        await world.node({})
        client = await world.client()
        one, two = [
            await client.ask("volume.ensure", VolumeEnsure("", create=True, ephemeral=True), VolumeInfo)
            for _ in range(2)
        ]
        assert one.name == ""
        assert (await client.ask("volume.list", NamedList(), VolumeListed)).volumes == ()
        found = await client.ask("volume.info", VolumePath(one.volume_id), VolumeInfo)
        assert (found.name, found.volume_id) == ("", one.volume_id)
        await client.ask("ephemeral.drop", EphemeralNamed(one.volume_id), dict)
        with pytest.raises(errors.NotFoundError):
            await client.ask("volume.info", VolumePath(one.volume_id), VolumeInfo)
        await server.parts.ephemeral.expire(time.time() + 10_000)
        with pytest.raises(errors.NotFoundError):
            await client.ask("volume.info", VolumePath(two.volume_id), VolumeInfo)

    world(work)
