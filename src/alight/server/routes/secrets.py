"""Requests about secrets. None of them answers with a value."""

from __future__ import annotations

import time

from alight.server.auth import OWNER
from alight.server.request import Request, Routes
from alight.server.services.secrets import Secrets
from alight.store.base import Store
from alight.wire import errors
from alight.wire.stored import NamedList, SecretCreate, SecretLookup


def routes(secrets: Secrets, store: Store) -> Routes:
    async def create(request: Request) -> None:
        asked = request.arguments(SecretCreate)
        environment = request.environment(asked.environment)
        if asked.app_id:
            environment = await _environment_of_app(store, request, asked.app_id)
        now = time.time()
        await store.write([("environment_add", {"name": environment, "owner": request.who.owner, "now": now})])
        await request.stream.send(await secrets.create(asked, environment, request.who, now))

    async def lookup(request: Request) -> None:
        asked = request.arguments(SecretLookup)
        await request.stream.send(await secrets.lookup(asked, request.environment(asked.environment), request.who))

    async def listed(request: Request) -> None:
        asked = request.arguments(NamedList)
        await request.stream.send(await secrets.list(request.environment(asked.environment), request.who))

    async def delete(request: Request) -> None:
        asked = request.arguments(SecretLookup)
        await secrets.delete(asked, request.environment(asked.environment), request.who)
        await request.stream.send({})

    async def rotate(request: Request) -> None:
        await request.stream.send(await secrets.rotate())

    return {
        "secret.create": create,
        "secret.lookup": lookup,
        "secret.list": listed,
        "secret.delete": delete,
        "secret.rotate": rotate,
    }


async def _environment_of_app(store: Store, request: Request, app_id: str) -> str:
    """Where an app's anonymous secrets live. Raises NotFoundError for an app that is not the asker's."""
    row = await store.one("app_by_id", app_id=app_id)
    if row is None or (request.who.kind != OWNER and row["owner"] != request.who.owner):
        raise errors.NotFoundError(f"there is no app {app_id}")
    return str(row["environment"])
