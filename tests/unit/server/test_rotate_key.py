"""A new key takes over as a whole or not at all, whenever the server dies, and nobody who reads meanwhile sees it."""

from __future__ import annotations

import asyncio
import os

import pytest

from alight.server import auth
from alight.server.services.secrets import Secrets
from alight.server.services.vault import Vault
from alight.store.sqlite import open_store
from alight.wire import errors
from alight.wire.stored import SecretCreate

OWNER = auth.Principal(auth.OWNER, owner="owner")


class Killed(Exception):
    """The server dies here."""


def with_secrets(tmp_path, body):
    """``body(store, open_secrets)``; each ``open_secrets()`` is a server's next life."""

    async def main():
        store = await open_store(tmp_path / "alight.db")

        async def begin():
            secrets = Secrets(store, Vault(tmp_path / "key"))
            await secrets.load()
            return secrets

        try:
            await body(store, begin)
        finally:
            await store.close()

    asyncio.run(main())


async def two(secrets):
    made = [
        await secrets.create(SecretCreate({"A": "hunter2\n'\""}, name=name), "main", OWNER, 1.0) for name in ("s", "t")
    ]
    return [one.secret_id for one in made]


async def read(secrets, ids):
    return [await secrets.values([one], "", "main", 2.0) for one in ids]


def test_everything_is_sealed_anew_and_the_old_key_is_gone(tmp_path):
    async def body(store, begin):
        secrets = await begin()
        ids = await two(secrets)
        old = (tmp_path / "key").read_bytes()
        before = {row["secret_id"]: bytes(row["sealed"]) for row in await store.read("secrets_sealed")}
        done = await secrets.rotate()
        assert done.secrets == 2
        assert (tmp_path / "key").read_bytes() != old
        assert sorted(os.listdir(tmp_path)) == ["alight.db", "alight.db-shm", "alight.db-wal", "key"]
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
        rows = await store.read("secrets_sealed")
        assert {row["sealed_by"] for row in rows} == {done.key_id}
        assert all(bytes(row["sealed"]) != before[row["secret_id"]] for row in rows)
        assert await read(await begin(), ids) == [{"A": "hunter2\n'\""}] * 2
        old_vault = Vault(tmp_path / "old")
        (tmp_path / "old").write_bytes(old)
        with pytest.raises(errors.DataLossError):
            old_vault.open(ids[0], bytes(rows[0]["sealed"]))

    with_secrets(tmp_path, body)


@pytest.mark.parametrize("step", ["make_new", "seal", "write", "take_new"])
def test_a_server_that_dies_at_any_step_comes_back_with_one_key_that_opens_all(tmp_path, monkeypatch, step):
    async def body(store, begin):
        secrets = await begin()
        ids = await two(secrets)

        def die(*_args, **_more):
            raise Killed

        with monkeypatch.context() as patched:
            if step == "write":
                patched.setattr(store, "write", die)
            else:
                patched.setattr(secrets._vault, step, die)
            with pytest.raises(Killed):
                await secrets.rotate()
        after = await begin()
        assert not (tmp_path / "key.new").exists()
        assert await read(after, ids) == [{"A": "hunter2\n'\""}] * 2
        await after.rotate()
        assert await read(after, ids) == [{"A": "hunter2\n'\""}] * 2

    with_secrets(tmp_path, body)


def test_a_full_disk_leaves_the_old_key(tmp_path, monkeypatch):
    async def body(store, begin):
        secrets = await begin()
        ids = await two(secrets)
        key = (tmp_path / "key").read_bytes()

        async def full(*_args, **_more):
            raise errors.ResourceExhaustedError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(store, "write", full)
            with pytest.raises(errors.ResourceExhaustedError):
                await secrets.rotate()
        assert (tmp_path / "key").read_bytes() == key
        assert not (tmp_path / "key.new").exists()
        assert await read(secrets, ids) == [{"A": "hunter2\n'\""}] * 2

    with_secrets(tmp_path, body)


def test_secrets_are_made_and_read_while_keys_change(tmp_path):
    async def body(store, begin):
        secrets = await begin()
        ids = await two(secrets)
        row = await store.one("secret_by_id", secret_id=ids[0])

        async def make(number):
            asked = SecretCreate({f"K{number}": "v"}, name="s", merge=True)
            await secrets.create(asked, "main", OWNER, 3.0)

        async def look():
            for _ in range(20):
                assert (await read(secrets, ids))[1] == {"A": "hunter2\n'\""}

        await asyncio.gather(*[make(number) for number in range(20)], secrets.rotate(), look(), secrets.rotate())
        values = await secrets.values([ids[0]], "", "main", 4.0)
        assert set(values) == {"A", *(f"K{number}" for number in range(20))}, "an update was lost"
        assert secrets._open(row) == {"A": "hunter2\n'\""}, "what was read before a change opens after it"
        assert (await read(await begin(), ids))[1] == {"A": "hunter2\n'\""}

    with_secrets(tmp_path, body)


def test_a_secret_of_another_key_stops_the_change_and_is_named(tmp_path):
    async def body(_store, begin):
        secrets = await begin()
        ids = await two(secrets)
        (tmp_path / "key").write_bytes(os.urandom(32))
        with pytest.raises(errors.DataLossError, match="|".join(ids)):  # whichever it meets first
            await (await begin()).rotate()
        (tmp_path / "key").write_bytes(b"short")
        with pytest.raises(errors.DataLossError, match="is no key: it has 5 bytes"):
            await secrets.rotate()

    with_secrets(tmp_path, body)
