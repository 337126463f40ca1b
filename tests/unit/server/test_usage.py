"""Usage as the server keeps it: told by call, app, function and user, never twice, also over a crash; and budgets."""

from __future__ import annotations

import asyncio
import time

import pytest

from alight.server import metering
from alight.server.metering import CPU, WHOLE
from alight.server.services.stored_usage import StoredUsage
from alight.wire import errors
from alight.wire.billing import (
    AppCostAsk,
    CallCostAsk,
    CostTold,
    Rates,
    RatesAsk,
    UsageAsk,
    UsageReported,
)
from alight.wire.commands import GpuInfo, Report
from alight.wire.record import replace
from alight.wire.spec import Resources
from alight.wire.starts import ContainerStop
from alight.wire.stored import VolumeEnsure, VolumeInfo
from tests.unit.server.conftest import spec

TWO_CORES = spec(resources=Resources(cpu=2.0, memory=1024))


async def whole(world):
    """All that containers lived by the store, and what of it is accounted for."""
    await world.server.parts.store.flush()
    rows = await world.server.parts.store.read("containers_recent", **EVERYTHING)
    lived = sum((row["ended_at"] or time.time()) - row["created_at"] for row in rows)
    await world.server._usage.flush()
    counted = await world.server.parts.store.read(
        "usage_between", first=0, stop=1 << 40, environment="", owner="", app=""
    )
    return lived, sum(row["amount"] for row in counted if row["resource"] == WHOLE)


EVERYTHING = {"ended": 1, "environment": "", "owner": "", "app": "", "function": "", "limit": 1000}


async def ends(client, node):
    for container_id in list(node.containers):
        await client.ask("container.stop", ContainerStop(container_id, grace=0.0), dict)


def test_what_a_call_and_an_app_cost_is_told(world):
    async def work(world):
        async def slow(x):
            await asyncio.sleep(0.2)
            return x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow})
        client = await world.client()
        app_id, functions = await client.app(TWO_CORES, name="doubling", tags={"team": "a"})
        stream = await client.start(functions["double"], 1)
        await client.result(stream)
        told = await client.ask("usage.call", CallCostAsk(stream.call_id), CostTold)
        assert 0.1 <= told.amounts[WHOLE] < 2
        assert told.amounts[CPU] == pytest.approx(2 * told.amounts[WHOLE])
        assert told.amounts["memory"] == pytest.approx(told.amounts[WHOLE])
        assert told.cost == pytest.approx(told.amounts[CPU] * 0.05 / 3600 + told.amounts["memory"] * 0.01 / 3600)
        await ends(client, node)
        of_app = await client.ask("usage.app", AppCostAsk(app_id), CostTold)
        assert of_app.amounts[WHOLE] > told.amounts[WHOLE]  # its start, and what it idled
        assert of_app.idle + of_app.starting < of_app.cost
        lived, counted = await whole(world)
        assert counted == pytest.approx(lived, abs=0.01)

        asked = UsageAsk(time.time() - 7200, time.time() + 3600, "d")
        report = await client.ask("usage.report", asked, UsageReported)
        (item,) = report.items
        assert (item.object_id, item.description, item.environment, item.tags) == (
            app_id,
            "doubling",
            "main",
            {"team": "a"},
        )
        assert item.cost == pytest.approx(of_app.cost)
        assert set(item.by_resource) == {"cpu", "memory"}
        for by, name in (("function", ("doubling", "double")), ("user", ("owner", ""))):
            asked = UsageAsk(asked.start, asked.end, "h", by=by)
            report = await client.ask("usage.report", asked, UsageReported)
            assert [(one.description, one.function) for one in report.items] == [name]
            assert report.items[0].at % 3600 == 0
        asked = UsageAsk(asked.start, asked.end, "", by="tag:team")
        report = await client.ask("usage.report", asked, UsageReported)
        assert [(one.description, one.tags) for one in report.items] == [("a", {"team": "a"})]

    world(work)


def test_a_crash_loses_nothing_and_counts_nothing_twice(world):
    async def work(world):
        gate = asyncio.Event()

        async def slow(x):
            await gate.wait()
            return x

        await world.serve(node_grace=30)
        node = await world.node({"double": slow})
        client = await world.client()
        _, functions = await client.app(TWO_CORES, kind="detached")
        stream = await client.start(functions["double"], 1)
        await world.until(lambda: any(one.open for one in world.server.parts.loop.state.containers.values()))
        await world.server._usage.flush()
        await asyncio.sleep(0.1)
        await world.crash()
        await node.disconnect()
        await asyncio.sleep(0.1)
        await world.serve(node_grace=30)
        assert (await whole(world))[1] < (await whole(world))[0]  # nobody knows yet whether it is there
        await node.connect(world.socket)
        await world.until(lambda: any(one.open for one in world.server.parts.loop.state.containers.values()))
        lived, counted = await whole(world)
        assert counted == pytest.approx(lived, abs=0.02)
        gate.set()
        client = await world.client()
        await world.until(lambda: not any(one.open for one in world.server.parts.loop.state.containers.values()))
        told = await client.ask("usage.call", CallCostAsk(stream.call_id), CostTold)
        assert 0.1 < told.amounts[WHOLE] <= counted + 0.1  # it ran while nobody looked, too
        await ends(client, node)
        lived, counted = await whole(world)
        assert counted == pytest.approx(lived, abs=0.02)

    world(work)


def test_the_last_seconds_of_a_container_whose_end_is_known_are_made_up_after_a_crash(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, functions = await client.app(TWO_CORES, kind="detached")
        await client.remote(functions["double"], 1)
        await world.server._usage.flush()
        world.server._usage.stop()
        await ends(client, node)
        world.server._usage._ended.clear()  # as if killed before it was written
        await node.disconnect()
        await world.crash()
        await world.serve(node_grace=30)
        lived, counted = await whole(world)
        assert counted == pytest.approx(lived, abs=0.01)
        await world.crash()
        await world.serve(node_grace=30)
        assert (await whole(world))[1] == pytest.approx(counted, abs=0.001)

    world(work)


def test_a_container_whose_machine_never_comes_back_counts_until_it_was_heard_of_last(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        _, functions = await client.app(TWO_CORES, kind="detached")
        await client.remote(functions["double"], 1)
        _, counted = await whole(world)
        world.server._usage.stop()
        await node.disconnect()
        await world.crash()
        await asyncio.sleep(0.2)
        for _ in range(2):  # it counts as lost in the first, and no later process counts it again
            await world.serve(node_grace=0.05)
            await world.until(lambda: not world.server.parts.containers.alive)
            assert (await whole(world))[1] == pytest.approx(counted, abs=0.001)
            await world.crash()

    world(work)


def test_the_gpus_of_a_container_cost_by_their_type_and_parts_of_them_by_part(world):
    async def work(world):
        await world.serve(node_grace=30)
        await world.node(
            {"double": lambda x: 2 * x},
            gpus=(GpuInfo(0, "NVIDIA A100", "A100-40GB", 40_000, "GPU-1"), GpuInfo(1, "Odd", "ODD-1", 8_000, "GPU-2")),
        )
        client = await world.client()
        app_id, functions = await client.app(spec(resources=Resources(gpus=("A100",))))
        await client.remote(functions["double"], 1)
        told = await client.ask("usage.app", AppCostAsk(app_id), CostTold)
        assert told.amounts["gpu:A100-40GB"] == pytest.approx(told.amounts[WHOLE])
        assert told.by_resource["gpu:A100-40GB"] == pytest.approx(told.amounts[WHOLE] * 2.5 / 3600)
        assert told.peaks == {"A100-40GB": 1}
        (record,) = (one for one in world.server.parts.containers.alive.values() if one.app_id == app_id)
        usage = world.server._usage
        for granted in (record.gpus, tuple(f"{uuid}@20000/50" for uuid in record.gpus)):
            usage.began(replace(record, container_id="ta-next", gpus=granted), time.time())  # and that one's end untold
            assert (await client.ask("usage.app", AppCostAsk(app_id), CostTold)).peaks == {"A100-40GB": 1}
            usage.ended("ta-next", time.time(), seen=True)
        app_id, functions = await client.app(spec(resources=Resources(gpus=("ODD-1",))))
        await client.remote(functions["double"], 1)
        told = await client.ask("usage.app", AppCostAsk(app_id), CostTold)
        assert told.unpriced == ("gpu:ODD-1",)
        (world.settings.home / "prices.toml").write_text('currency = "EUR"\n[gpu_hour]\nODD-1 = 36\n')
        world.server._usage.prices.checked()
        told = await client.ask("usage.app", AppCostAsk(app_id), CostTold)
        assert told.unpriced == ()
        assert told.currency == "EUR"
        assert told.by_resource["gpu:ODD-1"] == pytest.approx(told.amounts[WHOLE] * 0.01)
        record = next(iter(world.server.parts.containers.alive.values()))
        record.gpus = ("GPU-1@10000/25", "GPU-1@10000")
        assert world.server._usage._gpus(record) == ("A100-40GB", 0.5)

    world(work)


def test_what_a_machine_measures_counts_beyond_what_is_held(world):
    async def work(world):
        await world.serve(node_grace=30)
        node = await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        app_id, functions = await client.app(spec())
        await client.remote(functions["double"], 1)
        (container_id,) = node.containers
        node.report(Report("usage", container_id, usage={"cpu_seconds": 120.0, "gpu_joules": 3600.0}))
        await world.until(lambda: world.server._usage.meter.alive[container_id].seen.get("cpu_seconds"))
        told = await client.ask("usage.app", AppCostAsk(app_id), CostTold)
        assert told.amounts[metering.CPU_USED] == pytest.approx(120)
        assert told.amounts[CPU] == pytest.approx(120, abs=1)
        assert told.amounts[metering.ENERGY] == pytest.approx(3600)

    world(work)


def test_volumes_cost_what_they_hold_once_an_hour(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        volume = await client.ask("volume.ensure", VolumeEnsure(name="weights", create=True), VolumeInfo)

        class Sized:
            list = world.server.parts.volumes.list

            async def measured(self, info):
                return replace(info, size=3 << 30)

        stored = StoredUsage(world.server.parts.store, Sized(), world.server._usage)
        now = (time.time() - 5 * 3600) // 3600 * 3600 + 60  # of one hour, whatever the clock says
        assert [await stored.count(now + 3600 * later) for later in (0, 0.01, 1, 4)] == [1, 0, 1, 1]
        report = await client.ask(
            "usage.report", UsageAsk(now - 3600, time.time() + 3600, "", environment="main"), UsageReported
        )
        (item,) = report.items
        assert (item.object_id, item.description, item.owner) == (volume.volume_id, "weights", "owner")
        assert item.amounts == {"storage": 3.0 * 5}  # the hours between, too
        assert item.cost == pytest.approx(15 * 0.20 / 730)
        assert (item.idle, item.starting) == (0, 0)

    world(work)


def test_volumes_are_rows_of_their_own_in_a_report_by_function(world):
    async def work(world):
        await world.serve(node_grace=30)
        for volume in ("vo-1", "vo-2"):
            key = metering.Key(int(time.time() // 3600), volume, "", "owner", "main", metering.STORAGE, "")
            world.server._usage.meter.store(key, 1.0)
        asked = UsageAsk(time.time() - 3600, time.time() + 3600, "", by="function")
        report = await world.server._billing.report(asked, "")
        assert [(one.object_id, one.amounts) for one in report.items] == [
            (volume, {"storage": 1.0}) for volume in ("vo-1", "vo-2")
        ]

    world(work)


def test_users_see_what_they_used_and_the_owner_everything(world):
    async def work(world):
        await world.serve(node_grace=30)
        billing = world.server._billing
        key = metering.Key(int(time.time() // 3600), "ap-1", "fu-1", "ann", "main", WHOLE, "busy")
        usage = world.server._usage
        usage.meter.store(key, 5.0)
        usage.meter.store(key._replace(owner="bob", app_id="ap-2"), 7.0)
        asked = UsageAsk(0, 0, "", by="user")
        with pytest.raises(errors.InvalidError, match="800 days"):
            await billing.report(asked, "")
        asked = UsageAsk(time.time() - 7200, time.time() + 3600, "", by="user")
        both = await billing.report(asked, "")
        assert {one.owner: one.amounts for one in both.items} == {"ann": {WHOLE: 5}, "bob": {WHOLE: 7}}
        assert [one.owner for one in (await billing.report(asked, "ann")).items] == ["ann"]

    world(work)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (UsageAsk(time.time(), time.time() - 10), "end comes before its start"),
        (UsageAsk(time.time() - 10, tz="Mars/Base"), "no time zone 'Mars/Base'"),
        (UsageAsk(time.time() - 10, resolution="w"), "by d (day) or h (hour)"),
        (UsageAsk(time.time() - 10, by="moon"), "by app, function, user"),
    ],
)
def test_a_report_that_cannot_be_is_refused(world, asked, words):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        with pytest.raises(errors.InvalidError) as caught:
            await client.ask("usage.report", asked, UsageReported)
        assert words in str(caught.value)

    world(work)


def test_a_price_file_that_cannot_be_read_is_an_error_where_prices_matter_and_changes_nothing(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        rates = await client.ask("usage.rates", RatesAsk(), Rates)
        assert rates.defaults
        assert {one.resource: one.price for one in rates.rates}["gpu:H100"] == 4.0
        (world.settings.home / "prices.toml").write_text("cpu_core_hour = 1\nkwh = '0.3/Wh'\n")
        for method, asked, kind in (
            ("usage.rates", RatesAsk(), Rates),
            ("usage.report", UsageAsk(time.time()), UsageReported),
        ):
            with pytest.raises(errors.InvalidError, match=r"prices.toml, line 2: kwh has the unit '/Wh'"):
                await client.ask(method, asked, kind)
        assert world.server._usage.prices().core_hour == 0.05

    world(work)
