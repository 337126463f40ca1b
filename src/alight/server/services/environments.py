"""Environments: sets of names. They come into being when something is put in them, or are made by hand."""

from __future__ import annotations

import time

from alight.server.auth import Principal
from alight.server.request import DEFAULT_ENVIRONMENT
from alight.server.services.apps import Apps
from alight.store.base import Store
from alight.wire import errors, ids
from alight.wire.deploying import EnvironmentListed, EnvironmentNamed, EnvironmentSummary


class Environments:
    """Verbs on environments."""

    def __init__(self, store: Store, apps: Apps) -> None:
        self._store = store
        self._apps = apps

    async def list(self) -> EnvironmentListed:
        """All, by name, with how much is in each."""
        rows = await self._store.read("environments_used")
        return EnvironmentListed(
            tuple(
                EnvironmentSummary(
                    row["name"], row["created_at"], row["owner"], row["apps"], row["volumes"], row["secrets"]
                )
                for row in rows
            )
        )

    async def create(self, asked: EnvironmentNamed, who: Principal) -> None:
        """Make one. Raises InvalidError for a name that cannot be, AlreadyExistsError unless that is allowed."""
        ids.check_environment(asked.name)
        made = await self._store.write(
            [("environment_add", {"name": asked.name, "owner": who.owner, "now": time.time()})]
        )
        if not made[0] and not asked.allow_existing:
            raise errors.AlreadyExistsError(f"there is an environment {asked.name!r} already")

    async def delete(self, asked: EnvironmentNamed, who: Principal) -> None:
        """Stop its apps and forget its names. Raises NotFoundError, ConflictError while it has volumes, dicts
        or queues: what they hold would be lost with it."""
        found = next((one for one in (await self.list()).environments if one.name == asked.name), None)
        if found is None:
            raise errors.NotFoundError(
                f"there is no environment {asked.name!r}", hint="`alight environment list` shows those there are"
            )
        if found.volumes:
            raise errors.ConflictError(
                f"the environment {asked.name!r} has {found.volumes} volumes, whose files would be lost with it",
                hint=f"`alight volume list -e {asked.name}` shows them; delete them first",
            )
        shared = [
            await self._store.read("shared_in", kind=k, environment=asked.name, limit=-1) for k in ("dict", "queue")
        ]
        if any(shared):
            held = f"{len(shared[0])} dicts and {len(shared[1])} queues"
            raise errors.ConflictError(
                f"the environment {asked.name!r} has {held}, whose values would be lost with it",
                hint=f"`alight dict list -e {asked.name}` and `alight queue list -e {asked.name}` show them",
            )
        for app in [app for app in self._apps.alive.values() if app.environment == asked.name]:
            await self._apps.stop(app.app_id, f"its environment {asked.name} was deleted", who.owner)
        name = {"name": asked.name}
        forgotten = ["environment_secrets_delete", "environment_images_delete"]
        if asked.name != DEFAULT_ENVIRONMENT:  # the one that commands mean when they name none
            forgotten.append("environment_delete")
        await self._store.write([(query, name) for query in forgotten])
