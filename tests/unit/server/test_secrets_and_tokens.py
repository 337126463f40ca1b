"""Values go in and never come out by the API; tokens are hashes; every error names the object and the way out."""

from __future__ import annotations

import asyncio

import pytest

from alight.server import auth
from alight.server.services.secrets import Secrets
from alight.server.services.tokens import Tokens
from alight.server.services.vault import Vault
from alight.store.sqlite import open_store
from alight.wire import errors
from alight.wire.stored import SecretCreate, SecretLookup

OWNER = auth.Principal(auth.OWNER, owner="owner")


def with_store(body):
    async def main():
        store = await open_store(":memory:")
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


def test_a_secret_is_made_overwritten_merged_and_deleted(tmp_path):
    async def body(store):
        secrets = Secrets(store, Vault(tmp_path / "key"))
        made = await secrets.create(SecretCreate({"A": "1"}, name="s"), "main", OWNER, 5.0)
        with pytest.raises(errors.AlreadyExistsError, match="'s'"):
            await secrets.create(SecretCreate({"A": "2"}, name="s"), "main", OWNER, 6.0)
        await secrets.create(SecretCreate({"B": "2"}, name="s", merge=True), "main", OWNER, 6.0)
        assert await secrets.values([made.secret_id], "", "main", 7.0) == {"A": "1", "B": "2"}
        again = await secrets.create(SecretCreate({"C": "3"}, name="s", overwrite=True), "main", OWNER, 8.0)
        assert (again.secret_id, again.keys) == (made.secret_id, ("C",))
        assert [info.name for info in (await secrets.list("main", OWNER)).secrets] == ["s"]
        await secrets.delete(SecretLookup("s"), "main", OWNER)
        with pytest.raises(errors.NotFoundError, match="'s'"):
            await secrets.delete(SecretLookup("s"), "main", OWNER)
        await secrets.delete(SecretLookup("s", allow_missing=True), "main", OWNER)

    with_store(body)


def test_missing_keys_and_names_are_named(tmp_path):
    async def body(store):
        secrets = Secrets(store, Vault(tmp_path / "key"))
        await secrets.create(SecretCreate({"A": "1"}, name="s"), "main", OWNER, 5.0)
        with pytest.raises(errors.InvalidError, match="lacks B, C"):
            await secrets.lookup(SecretLookup("s", required_keys=("A", "B", "C")), "main", OWNER)
        with pytest.raises(errors.NotFoundError, match="'t'"):
            await secrets.lookup(SecretLookup("t"), "main", OWNER)
        with pytest.raises(errors.InvalidError, match="'A=B'"):
            await secrets.create(SecretCreate({"A=B": "1"}, name="u"), "main", OWNER, 5.0)

    with_store(body)


def test_another_environment_or_app_cannot_use_it(tmp_path):
    async def body(store):
        secrets = Secrets(store, Vault(tmp_path / "key"))
        named = await secrets.create(SecretCreate({"A": "1"}, name="s"), "main", OWNER, 5.0)
        anonymous = await secrets.create(SecretCreate({"A": "1"}, app_id="ap-1"), "main", OWNER, 5.0)
        await secrets.check_usable([named.secret_id, anonymous.secret_id], "ap-1", "main")
        for secret_id, app_id, environment in (
            (named.secret_id, "ap-1", "other"),
            (anonymous.secret_id, "ap-2", "main"),
            ("st-none", "ap-1", "main"),
        ):
            with pytest.raises(errors.NotFoundError):
                await secrets.values([secret_id], app_id, environment, 6.0)

    with_store(body)


def test_anonymous_secrets_go_with_the_last_version_that_names_them(tmp_path):
    async def body(store):
        secrets = Secrets(store, Vault(tmp_path / "key"))
        names = ("current", "kept version", "older version", "being published")
        made = {
            name: (await secrets.create(SecretCreate({"A": name}, app_id="ap-1"), "main", OWNER, 5.0)).secret_id
            for name in names[:3]
        }
        now = 30 * 86400.0
        asked = SecretCreate({"A": names[3]}, app_id="ap-1")
        made[names[3]] = (await secrets.create(asked, "main", OWNER, now - 60)).secret_id
        await secrets.create(SecretCreate({"A": "1"}, name="named"), "main", OWNER, 5.0)
        app = {"app_id": "ap-1", "name": "a", "description": "a", "environment": "main", "state": "deployed"}
        function = {"function_id": "fu-1", "app_id": "ap-1", "name": "f", "version": 1, "now": 5.0, "gone": ""}
        unsaid = dict.fromkeys(("deploy_id", "who", "tag", "git_commit", "client", "strategy"), "")
        version = {"app_id": "ap-1", "version": 1, "tags": "{}", "now": 5.0, "dirty": 0, "origin": 0, "staged": 0}
        await store.write(
            [
                ("app_add", {**app, "owner": "owner", "tags": "{}", "now": 5.0}),
                ("function_put", {**function, "spec": f'{{"secrets": ["{made["current"]}"]}}'}),
                ("deployment_add", {**version, **unsaid, "specs": f'[{{"secrets": ["{made["kept version"]}"]}}]'}),
            ]
        )
        await secrets.forget_unused(now)
        left = {name for name, one in made.items() if await store.one("secret_by_id", secret_id=one)}
        assert left == {"current", "kept version", "being published"}
        assert len((await secrets.list("main", OWNER)).secrets) == 1

    with_store(body)


def test_values_are_not_in_the_database(tmp_path):
    async def body(store):
        secrets = Secrets(store, Vault(tmp_path / "key"))
        await secrets.create(SecretCreate({"A": "hunter2-hunter2"}, name="s"), "main", OWNER, 5.0)
        token = await Tokens(store).create("laptop", 5.0)
        rows = await store.read("secrets_named", environment="main")
        rows += await store.read("secret_by_name", environment="main", name="s")
        rows += await store.read("tokens") + await store.read("token", token_id=token.token_id)
        assert "hunter2" not in repr(rows)
        assert token.token_secret not in repr(rows)

    with_store(body)


def test_a_deleted_token_is_a_stranger():
    async def body(store):
        tokens = Tokens(store)
        made = await tokens.create("laptop", 5.0)
        found = await tokens.find(made.token_id, 6.0)
        assert found is not None
        assert found.secret_hash == auth.hash_secret(made.token_secret)
        await tokens.delete(made.token_id)
        assert await tokens.find(made.token_id, 7.0) is None
        with pytest.raises(errors.NotFoundError):
            await tokens.delete(made.token_id)

    with_store(body)
