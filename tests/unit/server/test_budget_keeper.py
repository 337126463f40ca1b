"""Budgets as the server keeps them: what is held and goes on, who may set what, and what stays when one is changed."""

from __future__ import annotations

import time

import pytest

from alight.scheduler import events
from alight.server import metering
from alight.server.auth import OWNER, USER, Principal
from alight.server.services import budgets
from alight.wire import errors
from alight.wire.billing import BudgetList, Budgets, BudgetSet
from alight.wire.calling import CallDetails, CallShow, CallUpdate
from alight.wire.messages import AppStop
from tests.unit.server.conftest import spec


async def spend(world, app_id, owner="owner", gpu_seconds=7200.0):
    """As if a container of an app had run for two hours on an A100."""
    key = metering.Key(int(time.time() // 3600), app_id, "fu-x", owner, "main", "gpu:A100-40GB", "busy")
    world.server._usage.meter.store(key, gpu_seconds)
    await world.server._usage.flush()


@pytest.mark.parametrize(
    ("kind", "limits"),
    [("app", {"cost": 4.99}), ("run", {"cost": 5.0}), ("run", {"gpu_seconds": 7200}), ("user", {"cost": 1})],
)
def test_a_budget_that_is_used_up_holds_new_inputs_until_it_is_raised(world, kind, limits):
    async def work(world):
        await world.serve(node_grace=30)
        await world.node({"double": lambda x: 2 * x})
        client = await world.client()
        app_id, functions = await client.app(spec(), name="doubling")
        name = {"app": "doubling", "run": app_id, "user": "owner"}[kind]
        await client.ask("budget.set", BudgetSet(kind, name, **limits), Budgets)
        assert (await client.remote(functions["double"], 1))[1] == 2
        await spend(world, app_id)
        told = await client.ask("budget.list", BudgetList(), Budgets)
        assert [(one.kind, one.used_up, one.spent > 4.9) for one in told.budgets] == [(kind, True, True)]
        stream = await client.start(functions["double"], 4)
        update = stream.decode(CallUpdate, (await stream.recv())[0])
        while not update.why:
            update = stream.decode(CallUpdate, (await stream.recv())[0])
        assert update.why.startswith("held: the budget of ")
        shown = await client.ask("call.show", CallShow(stream.call_id), CallDetails)
        assert "is used up; raise it with `alight " in shown.waiting.why
        (key,) = limits
        (told,) = (await client.ask("budget.set", BudgetSet(kind, name, **{key: 100_000}), Budgets)).budgets
        assert (told.apps, told.stop) == (1, False)
        assert (await client.result(stream))[1] == 8

    world(work)


def test_an_app_that_comes_while_its_users_budget_is_used_up_is_held_from_its_start_also_after_a_restart(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        await client.ask("budget.set", BudgetSet("user", "owner", cost=1, stop=True), Budgets)
        await spend(world, "ap-before")
        app_id, _ = await client.app(spec(), kind="detached")
        await world.until(lambda: app_id in world.server.parts.loop.state.budgets)
        await world.crash()
        await world.serve(node_grace=30)
        await world.until(lambda: app_id in world.server.parts.loop.state.budgets)
        assert world.server._budgets._held.stop == {app_id}

    world(work)


def test_budgets_that_cannot_be_are_refused(world):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        app_id, _ = await client.app(spec(), name="doubling")
        for asked, words in (
            (BudgetSet("app", "doubling", cost=-1.0), "cannot be"),
            (BudgetSet("month", "doubling", cost=1.0), "no budgets of 'month'"),
            (BudgetSet("run", "ap-nothing", cost=1.0), "no app ap-nothing"),
            (BudgetSet("user", "", cost=1.0), "needs the name"),
        ):
            with pytest.raises(errors.Error, match=words):
                await client.ask("budget.set", asked, Budgets)
        with pytest.raises(errors.InvalidError, match="cannot be"):
            await world.server._budgets.set(
                BudgetSet("app", "doubling", cost=float("nan")), "main", Principal(OWNER, owner=OWNER)
            )
        keeper, ann = world.server._budgets, Principal(USER, owner="ann")
        with pytest.raises(errors.PermissionDeniedError, match="owner of this server"):
            await keeper.set(BudgetSet("user", "ann", cost=1.0), "main", ann)
        with pytest.raises(errors.NotFoundError):
            await keeper.set(BudgetSet("app", "doubling", cost=1.0), "main", ann)
        world.server.parts.apps.alive[app_id].owner = "ann"
        await keeper.set(BudgetSet("app", "doubling", cost=1.0), "main", ann)
        await keeper.set(BudgetSet("app", "doubling", cost=2.0), "main", Principal(OWNER, owner=OWNER))
        with pytest.raises(errors.PermissionDeniedError, match="set by the owner"):
            await keeper.set(BudgetSet("app", "doubling", cost=9.0), "main", ann)
        assert [one.cost for one in (await keeper.listed(ann)).budgets] == [2]
        assert (await keeper.listed(Principal(USER, owner="bob"))).budgets == ()
        await keeper.set(BudgetSet("app", "doubling"), "main", Principal(OWNER, owner=OWNER))
        assert (await keeper.listed(ann)).budgets == ()
        with pytest.raises(errors.InvalidError, match="no budget yet"):
            await keeper.set(BudgetSet("app", "doubling", stop=True), "main", ann)
        with pytest.raises(errors.NotFoundError, match="no app dubling"):
            await keeper.listed(ann, "app", "dubling", "main")

    world(work)


def test_what_is_not_said_of_a_budget_stays_as_it_was(world):
    """Whoever follows the advice to raise one limit loses neither the other nor that what runs is stopped."""

    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        await client.app(spec(), name="doubling")
        keeper, owner = world.server._budgets, Principal(OWNER, owner=OWNER)
        await keeper.set(BudgetSet("app", "doubling", cost=1.0, gpu_seconds=60, stop=True), "main", owner)
        (told,) = (await keeper.set(BudgetSet("app", "doubling", cost=2.0), "main", owner)).budgets
        assert (told.cost, told.gpu_seconds, told.stop, told.apps) == (2.0, 60, True, 1)
        (told,) = (await keeper.set(BudgetSet("app", "doubling", stop=False), "main", owner)).budgets
        assert (told.cost, told.gpu_seconds, told.stop) == (2.0, 60, False)
        assert (await keeper.listed(owner, "app", "doubling", "main")).budgets == (told,)
        await client.app(spec(), name="without")
        assert (await keeper.listed(owner, "app", "without", "")).budgets == ()
        with pytest.raises(errors.NotFoundError, match="no app doubling"):
            await keeper.listed(owner, "app", "doubling", "other")

    world(work)


def test_a_users_budget_of_a_name_is_for_their_own_apps_only(world):
    """Else anybody could hold the apps of others who chose the same name."""

    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        app_id, _ = await client.app(spec(), name="train")
        other_id, _ = await client.app(spec(), name="train", kind="detached")
        keeper, ann = world.server._budgets, Principal(USER, owner="ann")
        world.server.parts.apps.alive[app_id].owner = "ann"
        world.server.parts.apps.alive[other_id].owner = "bob"
        await keeper.set(BudgetSet("app", "train", cost=0.0), "main", ann)
        assert set(keeper._held.why) == {app_id}
        with pytest.raises(errors.PermissionDeniedError, match="was set by ann, who with the owner of this"):
            await keeper.set(BudgetSet("app", "train", cost=1.0), "main", Principal(USER, owner="bob"))
        await keeper.set(BudgetSet("run", other_id, cost=5.0), "", Principal(OWNER, owner=OWNER))
        everything = await keeper.listed(Principal(OWNER, owner=OWNER))
        assert [one.name for one in everything.budgets] == ["train", other_id]
        await client.ask("app.stop", AppStop(other_id), dict)
        everything = await keeper.listed(Principal(OWNER, owner=OWNER))
        assert [one.name for one in everything.budgets] == ["train"], "a run that is over has nothing left to spend"

    world(work)


def test_a_new_month_frees_what_is_held_while_nothing_runs(world, monkeypatch):
    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        app_id, _ = await client.app(spec(), name="doubling")
        await client.ask("budget.set", BudgetSet("app", "doubling", cost=1.0), Budgets)
        await spend(world, app_id)
        state = world.server.parts.loop.state
        await world.until(lambda: app_id in state.budgets)
        begins = budgets.month_of(time.time()) + 35 * 86400
        monkeypatch.setattr(budgets, "month_of", lambda now: begins)
        await world.until(lambda: app_id not in state.budgets)

    world(work)


def test_a_machine_that_joins_ends_what_a_budget_has_stopped(world):
    """The server may have been killed before it said so to the machine."""

    async def work(world):
        await world.serve(node_grace=30)
        client = await world.client()
        app_id, functions = await client.app(spec(), name="doubling", kind="detached")
        node = await world.node({"double": lambda x: 2 * x})
        assert (await client.remote(functions["double"], 1))[1] == 2
        held = events.AppsHeld({app_id: "held"}, frozenset({app_id}))
        world.server._budgets._held = held
        assert any(not one.stopping for one in world.server.parts.loop.state.containers.values())
        world.server._usage.after_step([events.NodeJoined(node.node_id, "", 1.0, 1)], time.time())
        await world.until(lambda: all(one.stopping for one in world.server.parts.loop.state.containers.values()))

    world(work)
