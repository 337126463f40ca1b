"""The functions of a running app, all at once: what `alight serve` does at each change."""

from __future__ import annotations

import pytest

from alight.wire import errors
from alight.wire.deploying import DeployBegin, DeployBegun, DeployDone, DeployPublish
from alight.wire.messages import AppPublish, AppPublished
from tests.unit.server.conftest import spec


def test_an_app_that_is_published_as_a_whole_has_nothing_else(world):
    """Ids stay, and what is gone says so."""

    async def work(world):
        await world.serve()
        await world.node({"keep": lambda: 1, "drop": lambda: 2})
        client = await world.client()
        app_id, functions = await client.app(spec("keep"), spec("drop"))
        assert (await client.remote(functions["drop"]))[1] == 2
        whole = AppPublish(app_id, (spec("keep", timeout=7.0),), whole=True)
        again = await client.ask("app.publish", whole, AppPublished)
        assert [one.function_id for one in again.functions] == [functions["keep"].function_id]
        assert (await client.remote(functions["keep"]))[1] == 1
        update, _ = await client.remote(functions["drop"])
        assert update.error["message"] == "drop() is not in the script any more"

    world(work)


def test_a_deployed_app_is_not_published_past_its_versions(world):
    async def work(world):
        await world.serve()
        client = await world.client()
        begun = await client.ask("deploy.begin", DeployBegin("shop"), DeployBegun)
        await client.ask("deploy.publish", DeployPublish(begun.app_id, "shop", 0, "dp-1", (spec("keep"),)), DeployDone)
        with pytest.raises(errors.InvalidError, match="alight deploy"):
            await client.ask("app.publish", AppPublish(begun.app_id, (spec("other"),), whole=True), AppPublished)

    world(work)
