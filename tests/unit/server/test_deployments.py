"""Protects versions of deployed apps: published whole or not at all, by one at a time, and never lost."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from alight.wire import errors, ids
from alight.wire.deploying import (
    AppDescribed,
    AppFind,
    AppTags,
    DeployBack,
    DeployBegin,
    DeployBegun,
    DeployDone,
    DeployHistory,
    DeployOver,
    DeployPublish,
    DeployVersions,
    EnvironmentListed,
    EnvironmentNamed,
)
from alight.wire.failure import Failure, FailureFrame
from alight.wire.messages import AppCreate, AppCreated, AppStop, FunctionFind, FunctionInfo
from alight.wire.spec import Autoscaling, FunctionSpec
from alight.wire.stored import SecretCreate, SecretInfo, VolumeEnsure, VolumeInfo

F = FunctionSpec(name="f")
G = FunctionSpec(name="g")


class Team:
    """Deploys an app as the SDK does."""

    def __init__(self, client):
        self.client = client
        self.ask = client.ask

    async def begin(self, name="shop", environment=""):
        return await self.ask("deploy.begin", DeployBegin(name, environment), DeployBegun)

    async def deploy(self, *specs, name="shop", begun=None, **fields):
        begun = begun or await self.begin(name)
        fields.setdefault("deploy_id", ids.new_id("x"))
        message = DeployPublish(begun.app_id, name, begun.version, functions=specs, **fields)
        return await self.ask("deploy.publish", message, DeployDone)

    async def history(self, name="shop"):
        return await self.ask("deploy.history", DeployHistory(name), DeployVersions)

    async def find(self, function="f", app="shop"):
        return await self.ask("function.find", FunctionFind(app, function), FunctionInfo)

    async def call(self, function="f", *args):
        return (await self.client.remote(await self.find(function), *args))[1]


def team(world, work, **functions):
    """Run ``work(world, team, node)`` with a server and a fake machine."""

    async def drive(world):
        await world.serve(versions_kept=3)
        node = await world.node({"f": lambda *args: "f", "g": lambda: "g", **functions})
        return await work(world, Team(await world.client()), node)

    world(drive)


def changed(spec, number):
    return FunctionSpec(name=spec.name, timeout=100.0 + number)


def test_versions_are_numbered_and_equal_ones_are_the_same(world):
    async def work(world, team, node):
        done = await team.deploy(F, G, tag="one", commit="abc", dirty=True, client="9")
        assert (done.version, done.changed, [one.name for one in done.functions]) == (1, True, ["f", "g"])
        assert await team.call() == "f"
        again = await team.deploy(F, G)
        assert (again.version, again.changed) == (1, False)
        assert len(node.containers) == 1
        tagged = await team.deploy(F, G, tags={"team": "a"})
        assert (tagged.version, tagged.changed) == (2, True)
        third = await team.deploy(changed(F, 1), tag="two")
        assert (third.version, third.gone) == (3, ("g",))
        said = await team.history()
        assert [(one.version, one.tag, one.commit, one.dirty, one.client) for one in said.versions] == [
            (3, "two", "", False, ""),
            (2, "", "", False, ""),
            (1, "one", "abc", True, "9"),
        ]
        with pytest.raises(errors.NotFoundError, match="no function 'g'"):
            await team.find("g")

    team(world, work)


def test_a_new_app_is_found_by_nobody_before_it_has_a_version(world):
    async def work(world, team, node):
        begun = await team.begin()
        with pytest.raises(errors.NotFoundError, match="no running or deployed app 'shop'"):
            await team.find()
        await team.deploy(F, begun=begun)
        found = await team.find()
        assert found.app_id == begun.app_id

    team(world, work)


def test_of_two_that_deploy_at_once_the_second_hears_of_the_first(world):
    async def work(world, team, node):
        one, other = await team.begin(), await team.begin()
        assert one.app_id != other.app_id
        await team.deploy(F, begun=one)
        with pytest.raises(errors.ConflictError, match="another app 'shop' was deployed meanwhile"):
            await team.deploy(G, begun=other)
        one, other = await team.begin(), await team.begin()
        await team.deploy(changed(F, 1), begun=one)
        with pytest.raises(errors.ConflictError, match="owner published v2 at"):
            await team.deploy(changed(F, 2), begun=other)
        assert [one.version for one in (await team.history()).versions] == [2, 1]
        assert await team.call() == "f"

    team(world, work)


def test_a_version_that_is_under_way_is_not_overtaken(world):
    async def work(world, team, node):
        await team.deploy(F)
        await team.call()
        node.hold = True
        under_way = asyncio.ensure_future(team.deploy(changed(F, 1), G))
        await world.until(lambda: len(node.containers) == 2)
        with pytest.raises(errors.ConflictError, match="is being deployed just now, by owner"):
            await team.ask("deploy.rollover", DeployOver("shop"), DeployDone)
        assert await team.call() == "f", "the old container serves"
        node.hold = False
        for name in list(node.containers):
            node.ready(name)
        assert (await under_way).version == 2

    team(world, work)


def broken(node, container):
    frame = FailureFrame("/root/shop.py", 3, "<module>", "import numpy")
    node.fail_start(container, Failure("builtins.ModuleNotFoundError", "no numpy", (frame,)))


async def failing(world, team, node, *specs, **fields):
    """Deploy what does not come up; what the one who deploys gets."""
    node.hold = True
    known = set(node.containers)
    under_way = asyncio.ensure_future(team.deploy(*specs, **fields))
    await world.until(lambda: set(node.containers) - known)
    for name in set(node.containers) - known:
        broken(node, name)
    with pytest.raises(errors.RemoteError) as caught:
        await under_way
    node.hold = False
    return caught.value


def test_what_does_not_come_up_is_taken_back_whole(world):
    async def work(world, team, node):
        await team.deploy(F, G)
        await team.call()
        old = set(node.containers)
        error = await failing(world, team, node, changed(F, 1), FunctionSpec(name="h"))
        assert "v2 of shop did not come up: f() ended" in str(error)
        assert "ModuleNotFoundError: no numpy" in str(error)
        assert "/root/shop.py:3 in <module>: import numpy" in str(error)
        assert error.hint == "v1 serves on"
        assert await team.call() == "f"
        assert old <= set(node.containers), "by the container that was there"
        assert await team.call("g") == "g", "what it would have taken away is there again"
        with pytest.raises(errors.NotFoundError):
            await team.find("h")
        [second, first] = (await team.history()).versions
        assert "did not come up" in second.failed
        assert (second.kept, first.kept) == (False, True)
        done = await team.deploy(F, G)
        assert (done.version, done.changed) == (1, False), "as if it had never been"
        assert (await team.deploy(changed(F, 3))).version == 3
        with pytest.raises(errors.ConflictError, match="v2 of shop did not come up"):
            await team.ask("deploy.rollback", DeployBack("shop", version=2), DeployDone)

    team(world, work)


def test_a_first_version_that_does_not_come_up_leaves_no_app(world):
    async def work(world, team, node):
        kept = FunctionSpec(name="f", autoscaling=Autoscaling(min_containers=1))
        error = await failing(world, team, node, kept)
        assert error.hint == "nothing was deployed"
        with pytest.raises(errors.NotFoundError):
            await team.find()
        assert (await team.deploy(F)).version == 1

    team(world, work)


def test_going_back_makes_a_new_version_of_what_is_kept(world):
    async def work(world, team, node):
        for number in range(5):
            await team.deploy(changed(F, number), tag=str(number))
        with pytest.raises(errors.NotFoundError, match="v2 of shop is too old to go back to: the last 3"):
            await team.ask("deploy.rollback", DeployBack("shop", version=2), DeployDone)
        done = await team.ask("deploy.rollback", DeployBack("shop"), DeployDone)
        assert done.version == 6
        said = await team.history()
        assert (said.current, said.versions[0].origin, said.versions[0].tag) == (6, 4, "3")
        function = world.server.parts.functions.by_id[(await team.find()).function_id]
        assert function.spec == changed(F, 3)
        with pytest.raises(errors.NotFoundError, match="no version v99"):
            await team.ask("deploy.rollback", DeployBack("shop", version=99), DeployDone)
        needed = [row["specs"] for row in await world.server.parts.store.read("deployment_specs_kept")]
        assert len(needed) == 3, "images of what can be gone back to are kept"

    team(world, work)


def test_a_client_that_asks_again_after_a_lost_connection_gets_the_same_version(world):
    async def work(world, team, node):
        await team.deploy(F)
        await team.call()
        begun = await team.begin()
        node.hold = True
        asked = {"begun": begun, "deploy_id": "once"}
        lost = asyncio.ensure_future(team.deploy(changed(F, 1), **asked))
        await world.until(lambda: len(node.containers) == 2)
        lost.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await lost
        again = asyncio.ensure_future(team.deploy(changed(F, 1), **asked))
        await asyncio.sleep(0)
        node.hold = False
        for name in list(node.containers):
            node.ready(name)
        assert (await again).version == 2
        assert (await team.deploy(changed(F, 1), **asked)).version == 2
        assert len((await team.history()).versions) == 2

    team(world, work)


def test_a_server_that_starts_again_has_them_all(world):
    async def work(world, team, node):
        kept = FunctionSpec(name="f", autoscaling=Autoscaling(min_containers=1))
        await team.deploy(kept, G, tags={"team": "a"})
        await team.call()
        await team.deploy(kept)
        await team.call()
        await world.until(lambda: len(node.containers) == 1)
        await node.disconnect()
        await world.crash()
        node.containers.clear()
        await world.serve()
        await node.connect(world.socket)
        later = Team(await world.client())
        await world.until(lambda: node.containers)  # without a call
        assert await later.call() == "f"
        with pytest.raises(errors.NotFoundError):
            await later.find("g")
        said = await later.history()
        assert (said.current, [one.version for one in said.versions]) == (2, [2, 1])
        assert (await later.deploy(kept)).changed is False
        shown = await later.ask("app.find", AppFind("shop"), AppDescribed)
        assert (shown.state, shown.version, shown.tags) == ("deployed", 2, {"team": "a"})
        assert [(one.name, one.containers) for one in shown.functions] == [("f", 1)]

    team(world, work)


def test_a_server_that_is_killed_in_a_trial_goes_on_with_the_new_version(world):
    async def work(world, team, node):
        await team.deploy(F)
        await team.call()
        (old,) = node.containers
        node.hold = True
        under_way = asyncio.ensure_future(team.deploy(changed(F, 1)))
        await world.until(lambda: len(node.containers) == 2)
        (new,) = set(node.containers) - {old}
        await node.disconnect()
        await world.crash()
        with contextlib.suppress(errors.Error):
            await under_way
        node.hold = False
        await world.serve()
        await node.connect(world.socket)
        later = Team(await world.client())
        node.ready(new)
        await world.until(lambda: old not in node.containers)
        update, _ = await later.client.remote(await later.find())
        assert update.container == new
        assert (await later.history()).current == 2

    team(world, work)


@pytest.mark.parametrize("again", [False, True])
def test_a_version_that_does_not_come_up_after_its_server_was_killed_is_taken_back(world, again):
    async def work(world, team, node):
        await team.deploy(F, G)
        await team.call()
        (old,) = node.containers
        node.hold = True
        begun = await team.begin()
        asked = {"begun": begun, "deploy_id": "once", "tags": {"team": "b"}}
        under_way = asyncio.ensure_future(team.deploy(changed(F, 1), **asked))
        await world.until(lambda: len(node.containers) == 2)
        await node.disconnect()
        await world.crash()
        with contextlib.suppress(errors.Error):
            await under_way
        if again:  # and once more before any machine is back
            await world.serve()
            await world.crash()
        await world.serve()
        await node.connect(world.socket)
        later = Team(await world.client())
        same = asyncio.ensure_future(later.deploy(changed(F, 1), **asked))  # the client asks again
        update, _ = await later.client.remote(await later.find())
        assert update.container == old, "the version before serves until the trial is over"
        with pytest.raises(errors.ConflictError, match="is being deployed just now"):
            await later.deploy(changed(F, 2))
        (new,) = set(node.containers) - {old}
        broken(node, new)
        with pytest.raises(errors.RemoteError, match="v2 of shop did not come up"):
            await same
        node.hold = False
        update, _ = await later.client.remote(await later.find())
        assert update.container == old
        assert await later.call("g") == "g", "what it would have taken away is there again"
        said = await later.history()
        assert (said.current, [bool(one.failed) for one in said.versions]) == (1, [True, False])
        shown = await later.ask("app.find", AppFind("shop"), AppDescribed)
        assert (shown.version, shown.tags) == (1, {})
        await node.disconnect()
        await world.crash()
        await world.serve()
        await node.connect(world.socket)
        last = Team(await world.client())
        update, _ = await last.client.remote(await last.find())
        assert update.container == old, "it is of the version that serves, for later processes, too"
        assert (await last.deploy(changed(F, 3))).version == 3

    team(world, work)


def test_what_nobody_uses_is_tried_too_once_for_each_thing_that_is_imported(world):
    async def work(world, team, node):
        await team.deploy(F, G)
        assert len(node.containers) == 1, "they import the same"
        error = await failing(world, team, node, F, G, FunctionSpec(name="h", module="other"))
        assert "h() ended before it could take an input" in str(error)
        assert (await team.history()).current == 1

    team(world, work)


def test_bad_input_gets_a_sentence(world):
    async def work(world, team, node):
        for name, environment, words in (("", "", "needs a name"), ("a/b", "", "'a/b'"), ("shop", "no such", "cannot")):
            with pytest.raises(errors.InvalidError, match=words):
                await team.begin(name, environment)
        begun = await team.begin()
        for fields, words in (
            ({}, "has no functions to deploy"),
            ({"specs": (F,), "tag": "x" * 51}, "at most 50"),
            ({"specs": (F,), "strategy": "quick"}, "no strategy"),
            ({"specs": (F,), "tags": {"a b": "c"}}, "'a b' cannot be in the tags"),
        ):
            specs = fields.pop("specs", ())
            with pytest.raises(errors.InvalidError, match=words):
                await team.deploy(*specs, begun=begun, **fields)
        run = await team.ask("app.create", AppCreate(name="run", kind="detached"), AppCreated)
        with pytest.raises(errors.ConflictError, match="run is not deployed"):
            await team.ask("deploy.rollback", DeployBack("run"), DeployDone)
        await team.deploy(F, begun=begun)
        with pytest.raises(errors.NotFoundError, match="one version only"):
            await team.ask("deploy.rollback", DeployBack("shop"), DeployDone)
        with pytest.raises(errors.InvalidError):
            await team.ask("app.tags", AppTags(run.app_id, {"": "x"}), dict)

    team(world, work)


def test_what_is_said_of_an_app_names_where_its_web_functions_answer(world):
    async def work(world, team, node):
        await team.deploy(F, FunctionSpec(name="page", web={"kind": "asgi_app"}))
        shown = await team.ask("app.find", AppFind("shop"), AppDescribed)
        assert [(one.name, [url.inside for url in one.web]) for one in shown.functions] == [
            ("f", []),
            ("page", ["http://shop-page.alight.internal:9080"]),
        ]

    team(world, work)


def test_a_stopped_app_gives_its_name_back_and_keeps_its_history(world):
    async def work(world, team, node):
        first = await team.deploy(F)
        await team.ask("app.stop", AppStop(first.app_id), dict)
        assert (await team.history()).app_id == first.app_id
        shown = await team.ask("app.find", AppFind("shop"), AppDescribed)
        assert (shown.state, shown.stopped_by) == ("stopped", "owner")
        second = await team.deploy(F)
        assert (second.version, second.app_id == first.app_id) == (1, False)
        found = await team.ask("app.find", AppFind("empty", create_if_missing=True), AppDescribed)
        assert (found.state, found.functions) == ("deployed", ())
        with pytest.raises(errors.NotFoundError):
            await team.ask("app.find", AppFind("none"), AppDescribed)

    team(world, work)


def test_anonymous_secrets_of_an_app_with_the_same_values_are_one(world):
    async def work(world, team, node):
        begun = await team.begin()

        async def secret(**values):
            return (await team.ask("secret.create", SecretCreate(values, app_id=begun.app_id), SecretInfo)).secret_id

        assert await secret(KEY="a") == await secret(KEY="a")
        assert await secret(KEY="a") != await secret(KEY="b")
        assert await secret(KEY="a") != await secret(KEY="a", OTHER="a")

    team(world, work)


def test_environments(world):
    async def work(world, team, node):
        await team.ask("environment.create", EnvironmentNamed("dev"), dict)
        with pytest.raises(errors.AlreadyExistsError):
            await team.ask("environment.create", EnvironmentNamed("dev"), dict)
        await team.ask("environment.create", EnvironmentNamed("dev", allow_existing=True), dict)
        begun = await team.begin("shop", "dev")
        await team.deploy(F, begun=begun)
        await team.ask("volume.ensure", VolumeEnsure("data", "dev", create=True), VolumeInfo)
        with pytest.raises(errors.ConflictError, match="has 1 volumes, whose files"):
            await team.ask("environment.delete", EnvironmentNamed("dev"), dict)
        assert begun.app_id in world.server.parts.apps.alive
        await team.ask("environment.create", EnvironmentNamed("test"), dict)
        other = await team.begin("shop", "test")
        await team.deploy(F, begun=other)
        await team.ask("environment.delete", EnvironmentNamed("test"), dict)
        assert other.app_id not in world.server.parts.apps.alive
        listed = await team.ask("environment.list", EnvironmentListed(), EnvironmentListed)
        assert [(one.name, one.apps, one.volumes) for one in listed.environments] == [("dev", 1, 1)]
        with pytest.raises(errors.NotFoundError):
            await team.ask("environment.delete", EnvironmentNamed("test"), dict)

    team(world, work)
