"""Requests about deployed apps, their versions and tags, and about environments."""

from __future__ import annotations

import json
import re

from alight.server.request import Request, Routes
from alight.server.services.apps import App, Apps
from alight.server.services.containers import Containers
from alight.server.services.deployments import Deployments
from alight.server.services.environments import Environments
from alight.server.services.functions import Functions
from alight.server.services.published import is_server
from alight.store.base import Store
from alight.wire import errors
from alight.wire.deploying import (
    AppDescribed,
    AppFind,
    AppTags,
    DeployBack,
    DeployBegin,
    DeployHistory,
    DeployOver,
    DeployPublish,
    EnvironmentNamed,
    FunctionLine,
)
from alight.wire.messages import AppCreate
from alight.wire.states import AppState

_TAG = re.compile(r"[A-Za-z0-9._-]{1,63}")


def routes(deployments: Deployments, environments: Environments, describer: Describer) -> Routes:
    async def begin(request: Request) -> None:
        asked = request.arguments(DeployBegin)
        await request.stream.send(await deployments.begin(asked, request.environment(asked.environment), request.who))

    async def publish(request: Request) -> None:
        asked = request.arguments(DeployPublish)
        check_tags(asked.tags or {})
        await request.stream.send(await deployments.publish(asked, request.who))

    async def rollback(request: Request) -> None:
        asked = request.arguments(DeployBack)
        app = describer.deployed(request, asked.app, asked.environment)
        await request.stream.send(await deployments.rollback(asked, app, request.who))

    async def promote(request: Request) -> None:
        asked = request.arguments(DeployBack)
        app = describer.deployed(request, asked.app, asked.environment)
        await request.stream.send(await deployments.promote(asked, app, request.who))

    async def rollover(request: Request) -> None:
        asked = request.arguments(DeployOver)
        app = describer.deployed(request, asked.app, asked.environment)
        await request.stream.send(await deployments.rollover(asked, app, request.who))

    async def history(request: Request) -> None:
        asked = request.arguments(DeployHistory)
        await request.stream.send(await deployments.history(asked, request.environment(asked.environment), request.who))

    async def find(request: Request) -> None:
        await request.stream.send(await describer.find(request, request.arguments(AppFind)))

    async def tags(request: Request) -> None:
        await describer.set_tags(request, request.arguments(AppTags))
        await request.stream.send({})

    async def list_environments(request: Request) -> None:
        await request.stream.send(await environments.list())

    async def create_environment(request: Request) -> None:
        await environments.create(request.arguments(EnvironmentNamed), request.who)
        await request.stream.send({})

    async def delete_environment(request: Request) -> None:
        await environments.delete(request.arguments(EnvironmentNamed), request.who)
        await request.stream.send({})

    return {
        "deploy.begin": begin,
        "deploy.publish": publish,
        "deploy.rollback": rollback,
        "deploy.promote": promote,
        "deploy.rollover": rollover,
        "deploy.history": history,
        "app.find": find,
        "app.tags": tags,
        "environment.list": list_environments,
        "environment.create": create_environment,
        "environment.delete": delete_environment,
    }


class Describer:
    """One app as people see it."""

    def __init__(self, store: Store, apps: Apps, functions: Functions, containers: Containers) -> None:
        self._store = store
        self._apps = apps
        self._functions = functions
        self._containers = containers

    def deployed(self, request: Request, name: str, environment: str) -> App:
        """The deployed app of this name or id. Raises NotFoundError."""
        found = self._apps.named(name, request.environment(environment), request.who)[0]
        if found.state != AppState.DEPLOYED:
            raise errors.ConflictError(
                f"{name} is not deployed: it is {found.state}", hint="`alight deploy` gives it versions"
            )
        return found

    async def find(self, request: Request, asked: AppFind) -> AppDescribed:
        """An app by name or id: one that lives, else the newest that has stopped."""
        environment = request.environment(asked.environment)
        try:
            app_id = self._apps.named(asked.app, environment, request.who)[0].app_id
        except errors.NotFoundError:
            if asked.create_if_missing:
                create = AppCreate(name=asked.app, environment=environment, kind=AppState.DEPLOYED)
                app_id = (await self._apps.create(create, environment, request.who)).app_id
            else:
                row = await self._stopped(request, asked.app, environment)
                if row is None:
                    raise
                app_id = row
        return await self._describe(app_id)

    async def set_tags(self, request: Request, asked: AppTags) -> None:
        """Other tags for an app that lives. Raises NotFoundError, InvalidError."""
        app = self._apps.get(asked.app_id, request.who)
        check_tags(asked.tags)
        await self._store.write([("app_tags", {"app_id": app.app_id, "tags": json.dumps(asked.tags)})])
        app.tags = dict(asked.tags)

    async def _stopped(self, request: Request, name: str, environment: str) -> str | None:
        if not request.who.is_person:
            return None
        owner = "" if request.who.kind == "owner" else request.who.owner
        rows = await self._store.read("apps_recent", environment=environment, owner=owner, name_or_id=name, limit=1)
        return str(rows[0]["app_id"]) if rows else None

    def _base(self, function_id: str) -> str:
        function = self._functions.by_id.get(function_id)
        return function.base if function is not None else ""

    async def _describe(self, app_id: str) -> AppDescribed:
        row = await self._store.one("app_by_id", app_id=app_id)
        if row is None:
            raise errors.NotFoundError(f"there is no app {app_id}")
        app = self._apps.alive.get(app_id)
        lines = []
        for one in self._functions.of_app(app_id):
            count = sum(
                1
                for record in self._containers.alive.values()
                if one.function_id in {record.function_id, self._base(record.function_id)}
            )
            methods = tuple(method.name for method in one.spec.methods)
            timed, urls = dict(one.spec.schedule), self._functions.urls(one)
            is_web, serves = one.spec.is_web, is_server(one.spec)
            lines.append(FunctionLine(one.spec.name, one.function_id, methods, is_web, count, timed, urls, serves))
        return AppDescribed(
            app_id,
            row["name"],
            row["description"],
            row["environment"],
            app.state if app is not None else row["state"],
            row["version"],
            row["created_at"],
            row["owner"],
            row["deployed_at"],
            row["deployed_by"],
            row["stopped_at"],
            row["stopped_by"],
            row["stop_reason"],
            json.loads(row["tags"]),
            tuple(sorted(lines, key=lambda line: line.name)),
        )


def check_tags(tags: dict[str, str]) -> None:
    """Raise InvalidError for tags that cannot be."""
    for key, value in tags.items():
        for text in (key, value):
            if not _TAG.fullmatch(text):
                raise errors.InvalidError(
                    f"{text!r} cannot be in the tags of an app",
                    hint="keys and values have 1 to 63 characters: letters, digits, '.', '_' and '-'",
                )
