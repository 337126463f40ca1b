"""Protects logins: a link opens one session within a minute, a session ends when it should, and no secret is kept."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from alight.dashboard.sessions import LINK_SECONDS, SESSION_SECONDS, Sessions
from alight.wire import errors

OWNER = SimpleNamespace(kind="owner", owner="owner", token_id="")
EVE = SimpleNamespace(kind="user", owner="eve", token_id="ak-eve")


class Kept:
    """Rows in memory."""

    def __init__(self):
        self.rows = {}

    async def add(self, row):
        self.rows[row["session"]] = dict(row)

    async def find(self, session):
        return self.rows.get(session)

    async def delete(self, session):
        self.rows.pop(session, None)


def run(work):
    async def main():
        kept, tokens = Kept(), {"ak-eve"}

        async def lives(token_id):
            return token_id in tokens

        await work(Sessions(kept, lives), kept, tokens, lambda: Sessions(kept, lives))

    asyncio.run(main())


def test_a_link_opens_one_session():
    async def work(sessions, kept, tokens, again):
        code = sessions.link(OWNER, 100.0)
        secret = await sessions.open_link(code, 101.0)
        assert (await sessions.find(secret, 102.0)).kind == "owner"
        with pytest.raises(errors.AuthError):
            await sessions.open_link(code, 102.0)

    run(work)


def test_a_link_is_good_for_a_minute_and_a_wrong_code_for_nothing():
    async def work(sessions, kept, tokens, again):
        code = sessions.link(OWNER, 100.0)
        for said, when in (("", 101.0), (code[:-1], 101.0), (code, 100.0 + LINK_SECONDS)):
            with pytest.raises(errors.AuthError):
                await sessions.open_link(said, when)
        assert not kept.rows

    run(work)


def test_sessions_outlive_the_server_and_end_after_their_time():
    async def work(sessions, kept, tokens, again):
        secret = await sessions.begin("user", "eve", "ak-eve", 100.0)
        assert secret.encode() not in repr(kept.rows).encode(), "only a hash is kept"
        later = again()
        assert (await later.find(secret, 101.0)).owner == "eve"
        assert await later.find(secret, 100.0 + SESSION_SECONDS) is None
        assert not kept.rows

    run(work)


def test_a_session_ends_with_the_token_that_opened_it():
    async def work(sessions, kept, tokens, again):
        secret = await sessions.begin("user", "eve", "ak-eve", 100.0)
        tokens.clear()
        assert await sessions.find(secret, 100.0 + 10) is None
        assert await sessions.find(secret, 100.0 + 11) is None

    run(work)


def test_logging_out_ends_it_and_what_is_no_secret_is_nobody():
    async def work(sessions, kept, tokens, again):
        secret = await sessions.begin("owner", "owner", "", 100.0)
        await sessions.end(await sessions.find(secret, 101.0))
        for said in (secret, "", "x" * 1000, "ü"):
            assert await sessions.find(said, 102.0) is None

    run(work)


def test_links_that_nobody_opens_do_not_pile_up():
    async def work(sessions, kept, tokens, again):
        for _ in range(2000):
            sessions.link(OWNER, 100.0)
        assert len(sessions._links) <= 1000
        sessions.link(OWNER, 200.0)
        assert len(sessions._links) == 1

    run(work)
