"""Scheduled functions: which run, when, and that each run happens once whatever happens to the server."""

from __future__ import annotations

import asyncio
import time

import pytest

from alight.scheduler import events
from alight.server import faults
from alight.wire import errors
from alight.wire.calling import CallList, CallListed
from alight.wire.deploying import DeployBegin, DeployBegun, DeployDone, DeployPublish
from alight.wire.messages import AppStop
from alight.wire.scheduling import ScheduleList, ScheduleListed, ScheduleNamed, ScheduleRan, ScheduleSummary
from tests.unit.server.conftest import spec

SECOND = {"period": {"seconds": 1}}
HOUR = {"period": {"hours": 1}}
NOON = {"cron": "0 12 * * *", "timezone": "Europe/Berlin"}


async def deploy(client, *specs, name="timed"):
    begun = await client.ask("deploy.begin", DeployBegin(name), DeployBegun)
    asked = DeployPublish(begun.app_id, name, begun.version, f"dp-{time.time_ns()}", specs)
    return await client.ask("deploy.publish", asked, DeployDone)


async def listed(client, app=""):
    return (await client.ask("schedule.list", ScheduleList(app=app), ScheduleListed)).schedules


async def calls(client, app=""):
    return (await client.ask("call.list", CallList(app=app), CallListed)).calls


async def become(client, status, app=""):
    """The one schedule, when its last run has ended like this."""
    ends = time.monotonic() + 5
    while True:
        (one,) = await listed(client, app)
        if one.last_status == status:
            return one
        assert time.monotonic() < ends, one


def rewound(world, seconds):
    """As if the server had last looked so long ago."""
    entries = world.server._schedules._entries
    for entry in entries.values():
        entry.since -= seconds
        entry.done -= seconds


def test_a_deployed_function_runs_at_its_period_and_its_result_is_nobodys(world):
    async def work(world):
        await world.serve()
        ran = []
        await world.node({"tick": lambda: ran.append(time.time())})
        client = await world.client()
        before = time.time()
        await deploy(client, spec("tick", schedule=SECOND), spec("plain"))
        (first,) = await listed(client)
        assert (first.app, first.function, first.schedule, first.last_status) == ("timed", "tick", SECOND, "")
        assert 0.9 < first.next_at - before < 1.5
        await world.until(lambda: len(ran) == 2)
        assert ran[0] - first.next_at < 0.5
        assert 0.5 < ran[1] - ran[0] < 1.5
        done = await become(client, "succeeded")
        assert done.last_at >= first.next_at
        assert {(one.verb, one.function) for one in await calls(client)} == {("schedule", "tick")}

    world(work)


def test_a_run_begins_while_earlier_ones_go_on(world):
    async def work(world):
        await world.serve()
        under_way, most = set(), []

        async def slow():
            mine = object()
            under_way.add(mine)
            most.append(len(under_way))
            await asyncio.sleep(2.5)
            under_way.discard(mine)

        await world.node({"tick": slow})
        client = await world.client()
        await deploy(client, spec("tick", schedule=SECOND))
        await world.until(lambda: most and max(most) >= 2)

    world(work)


def test_of_a_schedule_whose_app_is_held_one_run_waits(world, caplog):
    """Else a month of them would run at once when the next one begins."""

    async def work(world):
        await world.serve()
        client = await world.client()
        done = await deploy(client, spec("tick", schedule=SECOND))
        world.server.parts.inbox.put(events.AppsHeld({done.app_id: "held"}))
        with caplog.at_level("INFO", logger="alight.server.services.schedules"):
            await client.ask("schedule.run", ScheduleNamed("timed"), ScheduleRan)
            await world.until(lambda: "another one waits for its app's budget" in caplog.text)
        (one,) = await calls(client)
        assert one.waiting == 1

    world(work)


def test_only_deployed_apps_have_schedules(world):
    async def work(world):
        await world.serve()
        client = await world.client()
        await client.app(spec("tick", schedule=SECOND))
        assert await listed(client) == ()
        with pytest.raises(errors.NotFoundError, match="no running or deployed app"):
            await client.ask("schedule.run", ScheduleNamed("timed"), ScheduleRan)

    world(work)


def test_a_failure_is_kept_and_said(world, caplog):
    async def work(world):
        await world.serve()

        def bad():
            raise ValueError("the cupboard is bare")

        await world.node({"tick": bad})
        client = await world.client()
        await deploy(client, spec("tick", schedule=HOUR))
        ran = await client.ask("schedule.run", ScheduleNamed("timed", "tick"), ScheduleRan)
        one = await become(client, "failed")
        assert (one.last_call, one.last_error) == (ran.call_id, "ValueError: the cupboard is bare")
        assert "timed/tick failed: ValueError: the cupboard is bare" in caplog.text

    world(work)


def test_of_missed_runs_one_is_made_up_when_a_server_comes_back(world):
    async def work(world):
        await world.serve()
        ran = []
        functions = {"tick": lambda: ran.append(1)}
        await world.node(functions)
        client = await world.client()
        await deploy(client, spec("tick", schedule=HOUR), spec("noon", schedule=NOON))
        before = await listed(client)
        store = world.server.parts.store
        for row in await store.read("schedules_all"):
            moved = {**row, "since": row["since"] - 5.5 * 3600, "done": row["done"] - 5.5 * 3600}
            await store.write([("schedule_put", moved)])
        await world.crash()
        await world.serve()
        await world.node(functions)
        client = await world.client()
        await world.until(lambda: ran == [1])
        tick = next(one for one in await listed(client) if one.function == "tick")
        noon = next(one for one in await listed(client) if one.function == "noon")
        assert abs(tick.next_at - (before[1].next_at - 1800)) < 1, "it goes by the deploy, not by the restart"
        assert noon.next_at == before[0].next_at
        await world.crash()
        await world.serve()
        await world.node(functions)
        client = await world.client()
        assert (await become_of(client, "tick")).last_status == "succeeded"
        assert ran == [1], "a run that was made up is not made up again"

    async def become_of(client, function):
        return next(one for one in await listed(client) if one.function == function)

    world(work)


def test_how_old_a_run_may_be_that_is_made_up_is_a_setting(world):
    async def work(world):
        await world.serve(schedules_late=60.0)
        await world.node({"tick": lambda: None})
        client = await world.client()
        await deploy(client, spec("tick", schedule=HOUR))
        await listed(client)
        rewound(world, 5.5 * 3600)
        row = {"function_id": (await listed(client))[0].function_id}
        entry = world.server._schedules._entries[row["function_id"]]
        await world.server.parts.store.write([("schedule_put", entry.row())])
        world.server._schedules.look()
        await world.until(lambda: entry.done > time.time() - 3600)
        assert (await listed(client))[0].last_status == ""
        assert await calls(client) == ()

    world(work)


def test_a_server_that_dies_between_a_run_and_its_call_leaves_it_to_the_next(world, monkeypatch):
    async def work(world):
        await world.serve()
        ran = []
        functions = {"tick": lambda: ran.append(1)}
        await world.node(functions)
        client = await world.client()
        await deploy(client, spec("tick", schedule=HOUR))

        def die(step):
            if step == "scheduled":
                raise errors.ServiceError("killed")

        monkeypatch.setattr(faults, "at", die)
        with pytest.raises(errors.ServiceError, match="killed"):
            await client.ask("schedule.run", ScheduleNamed("timed"), ScheduleRan)
        monkeypatch.undo()
        await world.crash()
        await world.serve()
        await world.node(functions)
        client = await world.client()
        one = await become(client, "succeeded")
        assert [call.call_id for call in await calls(client)] == [one.last_call]
        assert ran == [1]

    world(work)


def test_a_run_that_was_begun_is_not_begun_by_the_next_server(world):
    """Its call was accepted, and the word of that was lost with the server."""

    async def work(world):
        await world.serve()
        ran = []
        functions = {"tick": lambda: ran.append(1)}
        await world.node(functions)
        client = await world.client()
        await deploy(client, spec("tick", schedule=HOUR))
        await client.ask("schedule.run", ScheduleNamed("timed"), ScheduleRan)
        one = await become(client, "succeeded")
        entry = world.server._schedules._entries[one.function_id]
        row = {"function_id": one.function_id, "call_id": one.last_call, "due": None, "now": one.last_at}
        moved = {**row, "done": entry.done, "was": entry.done, "last": entry.call_id}
        assert await world.server.parts.store.write([("schedule_run", moved)]) == [1]
        await world.crash()
        await world.serve()
        await world.node(functions)
        client = await world.client()
        await world.until(lambda: world.server._schedules._entries[one.function_id].begun)
        assert len(await calls(client)) == 1
        assert ran == [1]

    world(work)


def test_two_servers_on_one_state_begin_a_run_once(world):
    async def work(world):
        await world.serve()
        client = await world.client()
        await deploy(client, spec("tick", schedule=HOUR))
        (one,) = await listed(client)
        entry = world.server._schedules._entries[one.function_id]
        other = {"function_id": one.function_id, "call_id": "fc-other", "due": None, "now": 1.0}
        taken = {**other, "done": entry.done, "was": entry.done, "last": ""}
        assert await world.server.parts.store.write([("schedule_run", taken)]) == [1]
        with pytest.raises(errors.ConflictError, match="another server"):
            await client.ask("schedule.run", ScheduleNamed("timed"), ScheduleRan)
        assert await calls(client) == ()

    world(work)


def test_a_paused_schedule_makes_nothing_up_and_stays_paused_over_deploys_and_restarts(world):
    async def work(world):
        await world.serve()
        ran = []
        functions = {"tick": lambda: ran.append(1)}
        await world.node(functions)
        client = await world.client()
        await deploy(client, spec("tick", schedule=HOUR))
        paused = await client.ask("schedule.pause", ScheduleNamed("timed"), ScheduleSummary)
        assert (paused.paused, paused.next_at) == (True, None)
        await deploy(client, spec("tick", schedule=HOUR, timeout=7.0))
        await world.crash()
        await world.serve()
        await world.node(functions)
        client = await world.client()
        assert (await listed(client))[0].paused
        await client.ask("schedule.run", ScheduleNamed("timed"), ScheduleRan)
        await world.until(lambda: ran == [1])
        rewound(world, 10 * 3600)
        resumed = await client.ask("schedule.resume", ScheduleNamed("timed"), ScheduleSummary)
        assert resumed.next_at > time.time()
        await become(client, "succeeded")
        assert ran == [1], "what was due while it was paused is not made up"

    world(work)


def test_a_period_restarts_with_each_deploy_and_cron_does_not(world):
    async def work(world):
        await world.serve()
        client = await world.client()
        await deploy(client, spec("tick", schedule=HOUR), spec("noon", schedule=NOON))
        await listed(client)
        rewound(world, 600)
        noon, tick = await listed(client)
        again = await deploy(client, spec("tick", schedule=HOUR), spec("noon", schedule=NOON))
        assert not again.changed
        assert [one.next_at for one in await listed(client)] == [noon.next_at, tick.next_at], "no new version"
        await deploy(client, spec("tick", schedule=HOUR), spec("noon", schedule=NOON, timeout=7.0))
        new_noon, new_tick = await listed(client)
        assert (new_noon.next_at, round(new_tick.next_at - tick.next_at, -1)) == (noon.next_at, 600)

    world(work)


def test_a_schedule_ends_with_its_function_and_with_its_app(world):
    async def work(world):
        await world.serve()
        client = await world.client()
        done = await deploy(client, spec("tick", schedule=HOUR), spec("noon", schedule=NOON))
        assert [one.function for one in await listed(client, "timed")] == ["noon", "tick"]
        await deploy(client, spec("tick"), spec("noon", schedule=NOON))
        assert [one.function for one in await listed(client)] == ["noon"]
        await client.ask("app.stop", AppStop(done.app_id), dict)
        assert await listed(client) == ()
        assert await world.server.parts.store.read("schedules_all") == []

    world(work)


def test_a_wrong_schedule_and_a_wrong_name_are_said(world):
    async def work(world):
        await world.serve()
        client = await world.client()
        with pytest.raises(
            errors.InvalidError, match=r"tick\(\): the schedule '0 25 \* \* \*' cannot be: look at the hour"
        ):
            await deploy(client, spec("tick", schedule={"cron": "0 25 * * *"}))
        await deploy(client, spec("tick", schedule=HOUR), spec("noon", schedule=NOON), spec("plain"))
        with pytest.raises(errors.InvalidError, match="2 schedules, and none was named"):
            await client.ask("schedule.run", ScheduleNamed("timed"), ScheduleRan)
        with pytest.raises(errors.NotFoundError, match="the function 'plain' of 'timed' has no schedule") as caught:
            await client.ask("schedule.pause", ScheduleNamed("timed", "plain"), ScheduleSummary)
        assert caught.value.hint == "there is: timed/noon, timed/tick"

    world(work)
