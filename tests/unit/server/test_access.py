"""Tokens of web functions: kept as hashes, refused when they are gone, and good for their owner's functions alone."""

from __future__ import annotations

import asyncio

import pytest

from alight.server import auth
from alight.server.services.access import ProxyTokens
from alight.store.sqlite import open_store
from alight.wire import errors

OWNER = auth.Principal(auth.OWNER, owner="owner")
ANN = auth.Principal(auth.USER, owner="uid:1000")
BOB = auth.Principal(auth.USER, owner="uid:1001")
OWNERS = {"fu-ann": "uid:1000", "fu-bob": "uid:1001", "fu-owner": "owner"}


def with_store(body, path=":memory:"):
    async def main():
        store = await open_store(path)
        try:
            await body(store, ProxyTokens(store, OWNERS.get))
        finally:
            await store.close()

    asyncio.run(main())


def test_a_token_opens_its_owners_functions_and_no_others():
    async def body(_, tokens):
        made = await tokens.create("ci", ANN)
        assert made.token_id.startswith("wk-")
        assert made.token_secret.startswith("ws-")
        assert tokens.check(made.token_id, made.token_secret, "fu-ann")
        assert not tokens.check(made.token_id, made.token_secret, "fu-bob")
        assert not tokens.check(made.token_id, made.token_secret, "fu-owner")
        assert not tokens.check(made.token_id, made.token_secret, "fu-gone")

    with_store(body)


def test_the_owners_token_opens_everybodys():
    async def body(_, tokens):
        made = await tokens.create("", OWNER)
        assert all(tokens.check(made.token_id, made.token_secret, one) for one in OWNERS)

    with_store(body)


@pytest.mark.parametrize(
    "change",
    [
        lambda key, secret: (key, secret + "x"),
        lambda key, secret: (key, ""),
        lambda key, secret: ("wk-x", secret),
        lambda key, secret: ("", ""),
    ],
)
def test_who_has_not_both_halves_is_refused(change):
    async def body(_, tokens):
        made = await tokens.create("", ANN)
        assert not tokens.check(*change(made.token_id, made.token_secret), "fu-ann")

    with_store(body)


def test_secrets_are_not_kept_and_tokens_outlive_the_process(tmp_path):
    path = tmp_path / "db"
    made = []

    async def first(_, tokens):
        made.append(await tokens.create("ci", ANN))

    async def second(store, tokens):
        assert not tokens.check(
            made[0].token_id, made[0].token_secret, "fu-ann"
        )  # nobody is let in before they are read
        await tokens.load()
        assert tokens.check(made[0].token_id, made[0].token_secret, "fu-ann")
        await store.write([])
        assert made[0].token_secret.encode() not in path.read_bytes()

    with_store(first, path)
    with_store(second, path)


def test_users_see_and_delete_their_own():
    async def body(_, tokens):
        made = await tokens.create("ci", ANN)
        await tokens.create("other", BOB)
        assert [one.name for one in tokens.listed(ANN).tokens] == ["ci"]
        assert [one.name for one in tokens.listed(OWNER).tokens] == ["other", "ci"]
        with pytest.raises(errors.NotFoundError):
            await tokens.delete(made.token_id, BOB)
        await tokens.rename(made.token_id, "cd", ANN)
        assert [one.name for one in tokens.listed(ANN).tokens] == ["cd"]
        await tokens.delete(made.token_id, ANN)
        assert not tokens.check(made.token_id, made.token_secret, "fu-ann")
        with pytest.raises(errors.NotFoundError, match="there is no token wk-"):
            await tokens.delete(made.token_id, ANN)

    with_store(body)


def test_the_last_use_is_noted():
    async def body(_, tokens):
        made = await tokens.create("", ANN)
        assert tokens.listed(ANN).tokens[0].last_used_at is None
        tokens.check(made.token_id, made.token_secret, "fu-ann")
        assert tokens.listed(ANN).tokens[0].last_used_at is not None

    with_store(body)


def test_a_name_that_would_break_a_terminal_is_refused():
    async def body(_, tokens):
        with pytest.raises(errors.InvalidError):
            await tokens.create("a\nb", ANN)

    with_store(body)
