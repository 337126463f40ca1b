"""Secrets: named ones of an environment, and anonymous ones that belong to one app. Values go in and never come out
by the API.

Containers get them from their node, which gets them with the command to start the container; nothing here returns a
value but ``values``, which only the dispatch of containers and the building of images call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from typing import Any, AsyncIterator, Dict, Iterable, Mapping, Tuple

from alight.server.auth import OWNER, Principal
from alight.server.services.vault import Vault
from alight.store.base import Store
from alight.wire import errors, ids
from alight.wire.stored import (
    SECRET_BYTES_MOST,
    SECRET_KEY_MOST,
    SECRET_VALUE_MOST,
    KeyRotated,
    SecretCreate,
    SecretInfo,
    SecretListed,
    SecretLookup,
)

log = logging.getLogger(__name__)
_ID = re.compile(rf'"({ids.SECRET}-[0-9A-Za-z]+)"')
_UNUSED_KEPT = 7 * 86400.0  # seconds that an anonymous secret is kept for whoever made it and has not published yet


class Secrets:
    """Verbs on secrets. Time is an argument (unix seconds); ``environment`` is resolved by the caller."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._sealing = asyncio.Lock()  # what is sealed gets into the database before the key changes
        #: Apps that may use the anonymous secrets of another while this process lives: trials of its versions.
        self.lent: dict[str, str] = {}

    async def create(self, asked: SecretCreate, environment: str, who: Principal, now: float) -> SecretInfo:
        """Make, overwrite or merge. Raises AlreadyExistsError when the name is taken and neither was asked for."""
        _check_values(asked.values)
        async with self._sealing:
            return await self._create(asked, environment, who, now)

    async def _create(self, asked: SecretCreate, environment: str, who: Principal, now: float) -> SecretInfo:
        if not asked.name:
            if not asked.app_id:
                raise errors.InvalidError("a secret without a name belongs to an app, and none was named")
            known = await self._same(asked, who)
            if known is not None:
                return known
            return await self._add(asked, environment, who, now)
        ids.check_name(asked.name, "secret")
        found = await self._store.one("secret_by_name", environment=environment, name=asked.name)
        if found is None:
            if asked.merge:
                raise _unknown(asked.name, environment)
            return await self._add(asked, environment, who, now)
        if not (asked.overwrite or asked.merge):
            raise errors.AlreadyExistsError(
                f"there is a secret {asked.name!r} already in environment {environment!r}",
                hint="overwrite it with --force, or choose another name",
            )
        _check_mine(found, who)
        values = dict(asked.values)
        if asked.merge:
            values = {**self._open(found), **values}
            _check_values(values)
        row = {**self._seal(found["secret_id"], values), "keys": json.dumps(sorted(values))}
        await self._store.write([("secret_replace", row)])
        return _info({**found, "keys": json.dumps(sorted(values))})

    async def lookup(self, asked: SecretLookup, environment: str, who: Principal) -> SecretInfo:
        """Raises NotFoundError, PermissionDeniedError, or InvalidError naming the required keys that it lacks."""
        found = await self._store.one("secret_by_name", environment=environment, name=asked.name)
        if found is None:
            raise _unknown(asked.name, environment)
        _check_mine(found, who)
        info = _info(found)
        lacking = [key for key in asked.required_keys if key not in info.keys]
        if lacking:
            raise errors.InvalidError(
                f"the secret {asked.name!r} lacks {', '.join(lacking)}",
                hint=f"add to it: Secret.from_name({asked.name!r}).update({{{lacking[0]!r}: …}}); "
                f"`alight secret create {asked.name} … --force` replaces all of it",
            )
        return info

    async def list(self, environment: str, who: Principal) -> SecretListed:
        """Those that this principal may use."""
        rows = await self._store.read("secrets_named", environment=environment)
        return SecretListed(tuple(_info(row) for row in rows if _is_mine(row, who)))

    async def delete(self, asked: SecretLookup, environment: str, who: Principal) -> None:
        """Raises NotFoundError unless ``allow_missing``."""
        found = await self._store.one("secret_by_name", environment=environment, name=asked.name)
        if found is not None:
            _check_mine(found, who)
            await self._store.write([("secret_delete", {"secret_id": found["secret_id"]})])
        elif not asked.allow_missing:
            raise errors.NotFoundError(
                f"there is no secret {asked.name!r} in environment {environment!r}",
                hint="`alight secret list` shows those there are; --allow-missing does not mind",
            )

    async def check_usable(self, secret_ids: Iterable[str], app_id: str, environment: str) -> None:
        """Raise NotFoundError unless each id is a secret of this environment or an anonymous one of this app."""
        for secret_id in secret_ids:
            found = await self._store.one("secret_by_id", secret_id=secret_id)
            mine = {app_id, self.lent.get(app_id, app_id)}
            if found is None or not any(_belongs(found, one, environment) for one in mine):
                raise errors.NotFoundError(
                    f"there is no secret {secret_id} in environment {environment!r} (any more)",
                    hint="it was deleted after the app was published: make it again, and run or deploy the app again",
                )

    async def values(self, secret_ids: Iterable[str], app_id: str, environment: str, now: float) -> Dict[str, str]:
        """What a container's environment gets:

        later secrets win. Raises NotFoundError for one that is gone or not its own.
        """
        merged: Dict[str, str] = {}
        for secret_id, values in (await self.values_by_id(secret_ids, app_id, environment, now)).items():
            del secret_id
            merged.update(values)
        return merged

    async def values_by_id(
        self, secret_ids: Iterable[str], app_id: str, environment: str, now: float
    ) -> Dict[str, Dict[str, str]]:
        """The values of each secret, for the steps of an image that name them one by one."""
        wanted = tuple(secret_ids)
        await self.check_usable(wanted, app_id, environment)
        result: Dict[str, Dict[str, str]] = {}
        for secret_id in wanted:
            found = await self._store.one("secret_by_id", secret_id=secret_id)
            if found is None:
                raise errors.NotFoundError(f"the secret {secret_id} was deleted meanwhile")
            result[secret_id] = self._open(found)
        if wanted:
            self._store.write_soon([("secret_used", {"secret_id": one, "now": now}) for one in wanted])
        return result

    async def load(self) -> None:
        """Finish, or take back, a change of keys that an earlier process died in."""
        new = self._vault.new_id()
        if not new:
            return
        row = await self._store.one("secrets_sealed_by", key_id=new)
        if row is not None and row["number"]:
            self._vault.take_new()
        else:
            self._vault.drop_new()

    async def forget_unused(self, now: float) -> None:
        """Delete anonymous secrets that no function and no version to go back to names: those of older versions."""
        before = now - _UNUSED_KEPT
        old = {str(row["secret_id"]) for row in await self._store.read("secrets_of_apps", before=before)}
        if not old:
            return
        texts = [str(row["spec"]) for row in await self._store.read("function_specs_alive")]
        texts += [str(row["specs"]) for row in await self._store.read("deployment_specs_kept")]
        unused = old.difference(*[_ID.findall(text) for text in texts])
        if unused:
            await self._store.write([("secret_delete", [{"secret_id": one} for one in sorted(unused)])], urgent=False)

    @contextlib.asynccontextmanager
    async def steady(self) -> AsyncIterator[None]:
        """While this lasts no secret is made and the key stays: somebody copies both."""
        async with self._sealing:
            await self.load()
            yield

    async def sealed_by(self) -> Dict[str, int]:
        """How many secrets each key has sealed, by its id ("": before keys had ids)."""
        return {str(row["sealed_by"]): row["number"] for row in await self._store.read("secrets_of_keys")}

    async def unreadable(self) -> Tuple[str, ...]:
        """Secrets that the key does not open: names, and ids of those without."""
        found = []
        for row in await self._store.read("secrets_sealed"):
            try:
                self._open(row)
            except errors.DataLossError:
                found.append(str(row["name"] or row["secret_id"]))
        return tuple(sorted(found))

    async def rotate(self) -> KeyRotated:
        """Make a new key, seal every secret with it, all in one transaction, and forget the old one.

        Until the transaction is on disk the old key is there and counts, and so it is after every failure. Raises
        DataLossError for a secret that the present key does not open, ResourceExhaustedError when the disk is full.
        """
        return await asyncio.shield(asyncio.ensure_future(self._rotate()))  # whoever asked may go away

    async def _rotate(self) -> KeyRotated:
        async with self._sealing:
            await self.load()
            rows = await self._store.read("secrets_sealed")
            opened = {str(row["secret_id"]): self._open(row) for row in rows}
            new = self._vault.make_new()
            resealed = [self._seal(secret_id, values, new=True) for secret_id, values in opened.items()]
            try:
                if resealed:
                    await self._store.write([("secret_reseal", resealed)])
            except errors.Error:
                await self.load()  # the database knows which key counts
                raise
            self._vault.take_new()
        log.info("%d secrets are sealed with a new key, %s", len(resealed), new)
        return KeyRotated(len(resealed), new)

    def _seal(self, secret_id: str, values: Dict[str, str], *, new: bool = False) -> Dict[str, Any]:
        sealed = self._vault.seal(secret_id, values, new=new)
        return {"secret_id": secret_id, "sealed": sealed.content, "sealed_by": sealed.key_id}

    def _open(self, row: Mapping[str, Any]) -> Dict[str, str]:
        return self._vault.open(row["secret_id"], bytes(row["sealed"]), row["sealed_by"])

    async def _same(self, asked: SecretCreate, who: Principal) -> SecretInfo | None:
        """The anonymous secret of the app that holds these values already: what is deployed twice is the same twice."""
        keys = json.dumps(sorted(asked.values))
        for row in await self._store.read("secrets_of_app", app_id=asked.app_id, keys=keys):
            values = self._open(row)
            if row["owner"] == who.owner and values == dict(asked.values):
                names = tuple(sorted(asked.values))
                return SecretInfo(row["secret_id"], "", "", row["created_at"], row["created_by"], None, names)
        return None

    async def _add(self, asked: SecretCreate, environment: str, who: Principal, now: float) -> SecretInfo:
        secret_id = ids.new_id(ids.SECRET)
        row: Dict[str, Any] = {
            **self._seal(secret_id, dict(asked.values)),
            "name": asked.name,
            "environment": environment,
            "owner": who.owner,
            "app_id": "" if asked.name else asked.app_id,
            "keys": json.dumps(sorted(asked.values)),
            "now": now,
            "created_by": who.owner,
        }
        await self._store.write([("secret_add", row)])
        return SecretInfo(secret_id, asked.name, environment, now, who.owner, None, tuple(sorted(asked.values)))


def _check_values(values: Mapping[str, str]) -> None:
    """Raises InvalidError, which never holds a value."""
    for key, value in values.items():
        if not key or "=" in key or "\0" in key:
            raise errors.InvalidError(f"{key[:64]!r} cannot be the name of an environment variable")
        if "\0" in value:
            raise errors.InvalidError(f"the value of {key[:64]!r} holds a NUL character, which no variable can")
        size = len(key.encode()) + len(value.encode())
        if len(key) > SECRET_KEY_MOST or len(value) > SECRET_VALUE_MOST or size > SECRET_BYTES_MOST:
            raise errors.InvalidError(
                f"{key[:64]!r} or its value is too long: a key has at most {SECRET_KEY_MOST:,} characters, a value "
                f"{SECRET_VALUE_MOST:,}, both together {SECRET_BYTES_MOST:,} bytes",
                hint="put a file into the image or a volume",
            )


def _is_mine(row: Mapping[str, Any], who: Principal) -> bool:
    """An environment may have users who don't trust each other with their keys; the server's owner sees all."""
    return who.kind == OWNER or bool(row["owner"] == who.owner)


def _check_mine(row: Mapping[str, Any], who: Principal) -> None:
    if not _is_mine(row, who):
        raise errors.PermissionDeniedError(
            f"the secret {row['name']!r} belongs to another user of this server",
            hint="make one of your own, under another name",
        )


def _belongs(row: Mapping[str, Any], app_id: str, environment: str) -> bool:
    return bool(row["app_id"] == app_id if row["app_id"] else row["environment"] == environment)


def _unknown(name: str, environment: str) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"there is no secret {name!r} in environment {environment!r}",
        hint=f"make it: `alight secret create {name} KEY=VALUE`; `alight secret list` shows those there are",
    )


def _info(row: Mapping[str, Any]) -> SecretInfo:
    return SecretInfo(
        row["secret_id"],
        row["name"],
        row["environment"],
        row["created_at"],
        row["created_by"],
        row["last_used_at"],
        tuple(json.loads(row["keys"])),
    )
