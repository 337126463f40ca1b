"""Protects staged versions: tried without anybody noticing, kept, and serving nothing until somebody promotes them."""

from __future__ import annotations

import asyncio

import pytest

from alight.server.services.staging import unreachable
from alight.wire import errors
from alight.wire.deploying import AppDescribed, AppFind, DeployBack, DeployDone
from alight.wire.messages import AppList, AppListed
from alight.wire.spec import Autoscaling, FunctionSpec
from alight.wire.stored import SecretCreate, SecretInfo
from tests.unit.server.test_deployments import F, G, changed, failing, team


async def promote(team, version, name="shop"):
    return await team.ask("deploy.promote", DeployBack(name, version=version), DeployDone)


async def stage(team, *specs, **fields):
    return await team.deploy(*specs, staged=True, **fields)


async def versions(team):
    return [(one.version, one.staged, bool(one.failed), one.origin) for one in (await team.history()).versions]


def test_a_staged_version_serves_once_it_is_promoted(world):
    async def work(world, team, node):
        await team.deploy(F)
        await team.call()
        old, function = set(node.containers), (await team.find()).function_id
        done = await stage(team, changed(F, 1), G, tag="try")
        assert (done.version, done.changed, done.staged) == (2, True, True)
        assert [(one.name, one.function_id) for one in done.functions] == [("f", ""), ("g", "")]
        assert (await team.history()).current == 1
        assert world.server.parts.functions.by_id[function].spec == F
        with pytest.raises(errors.NotFoundError):
            await team.find("g")
        assert await team.call() == "f"
        await world.until(lambda: old == set(node.containers))  # those of the trial end, and no others
        assert await versions(team) == [(2, True, False, 0), (1, False, False, 0)]

        done = await promote(team, 2)
        assert (done.version, done.staged) == (3, False)
        assert world.server.parts.functions.by_id[function].spec == changed(F, 1), "the same function, a new version"
        assert await team.call("g") == "g"
        assert await versions(team) == [(3, False, False, 2), (2, True, False, 0), (1, False, False, 0)]
        assert (await team.history()).versions[0].tag == "try"

    team(world, work)


def test_one_that_does_not_come_up_is_in_the_history_and_nothing_else(world):
    async def work(world, team, node):
        await team.deploy(F)
        await team.call()
        old = set(node.containers)
        error = await failing(world, team, node, changed(F, 1), staged=True)
        assert "v2 of shop did not come up: f() ended" in str(error)
        assert "ModuleNotFoundError: no numpy" in str(error)
        assert await versions(team) == [(2, True, True, 0), (1, False, False, 0)]
        with pytest.raises(errors.ConflictError, match="did not come up"):
            await promote(team, 2)
        assert await team.call() == "f"
        assert old <= set(node.containers)

    team(world, work)


def test_the_first_version_of_an_app_can_be_staged(world):
    async def work(world, team, node):
        assert (await stage(team, F)).version == 1
        found = await team.ask("app.find", AppFind("shop"), AppDescribed)
        assert (found.state, found.version, found.functions) == ("deployed", 0, ())
        # One that fails takes nothing away: neither the app, nor what is staged.
        await failing(world, team, node, FunctionSpec(name="h", module="other"))
        assert await versions(team) == [(2, False, True, 0), (1, True, False, 0)]
        assert (await promote(team, 1)).version == 3
        assert await team.call() == "f"

    team(world, work)


def test_a_first_one_that_does_not_come_up_leaves_no_app(world):
    async def work(world, team, node):
        await failing(world, team, node, F, staged=True)
        with pytest.raises(errors.NotFoundError):
            await team.history()

    team(world, work)


def test_going_back_knows_what_was_staged(world):
    async def work(world, team, node):
        await team.deploy(F)
        await stage(team, changed(F, 1))
        with pytest.raises(errors.ConflictError, match="was only staged") as caught:
            await team.ask("deploy.rollback", DeployBack("shop", version=2), DeployDone)
        assert caught.value.hint == "alight app promote shop v2"
        with pytest.raises(errors.ConflictError, match="has served already"):
            await promote(team, 1)
        await team.deploy(changed(F, 2))
        done = await team.ask("deploy.rollback", DeployBack("shop"), DeployDone)
        assert (await team.history()).versions[0].origin == 1, "the one before that served"
        assert done.version == 4

    team(world, work)


def test_what_serves_already_is_not_staged(world):
    async def work(world, team, node):
        await team.deploy(F)
        done = await stage(team, F)
        assert (done.version, done.changed) == (1, False)
        assert len(await versions(team)) == 1

    team(world, work)


def test_a_client_that_asks_again_gets_the_same_version(world):
    async def work(world, team, node):
        await team.deploy(F)
        begun = await team.begin()
        for _ in range(2):
            assert (await stage(team, changed(F, 1), begun=begun, deploy_id="once")).version == 2
        assert len(await versions(team)) == 2

    team(world, work)


def test_trials_have_the_secrets_of_the_app_and_leave_nothing(world):
    async def work(world, team, node):
        begun = await team.begin()
        made = await team.ask("secret.create", SecretCreate({"KEY": "a"}, app_id=begun.app_id), SecretInfo)
        node.hold = True
        under_way = asyncio.ensure_future(stage(team, FunctionSpec(name="f", secrets=(made.secret_id,)), begun=begun))
        await world.until(lambda: node.containers)
        [(name, container)] = node.containers.items()
        assert container.start.secrets == {"KEY": "a"}
        node.ready(name)
        await under_way
        assert not world.server.parts.secrets.lent
        listed = (await team.ask("app.list", AppList(), AppListed)).apps
        assert [one.name for one in listed if one.state != "stopped"] == ["shop"]

    team(world, work)


def test_what_is_tried_has_no_names_and_waits_for_nobody():
    web = {"kind": "asgi_app", "label": "shop", "custom_domains": ["shop.example"], "requires_proxy_auth": True}
    scaling = Autoscaling(min_containers=3, buffer_containers=1, max_containers=5)
    spec = unreachable(FunctionSpec(name="f", web=web, autoscaling=scaling, schedule={"cron": "* * * * *"}))
    assert spec.web == {"kind": "asgi_app", "requires_proxy_auth": True}
    assert spec.autoscaling == Autoscaling(max_containers=5)
    assert spec.schedule == {}
    assert unreachable(FunctionSpec(name="M.*", web={"page": web})).web["page"] == spec.web
