"""A class that serves HTTP on a port, as a handle: `@app.server()`, or found by name."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Sequence

from alight.sdk.client import Client
from alight.sdk.logs import Logs
from alight.sdk.methods import Service
from alight.sdk.object import Object
from alight.sdk.options import Options
from alight.sdk.sync import dual
from alight.wire import errors
from alight.wire.ids import check_name
from alight.wire.messages import FunctionScale, FunctionScaling
from alight.wire.urls import SessionEnd, SessionStart, SessionStarted

if TYPE_CHECKING:
    from alight.sdk.reports import (
        MetricsSchema,
        ObjectMetrics,
        ServerAutoscalerSettings,
        ServerInfo,
        ServerSessionCredentials,
        ServerStats,
    )


class ServerAutoscaler:
    """``server.autoscaler``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @dual
    async def settings(self) -> ServerAutoscalerSettings:
        """The settings in force."""
        from alight.sdk.reports import ServerAutoscalerSettings  # noqa: PLC0415  declaring needs none of it

        found = await self._ask({})
        target = found.target_concurrent_inputs
        return ServerAutoscalerSettings(
            target_concurrency=None if target is None else float(target),
            min_containers=found.min_containers,
            max_containers=found.max_containers,
            buffer_containers=found.buffer_containers,
            scaledown_window=found.scaledown_window,
            scaleup_window=found.scaleup_window,
        )

    @dual
    async def update(
        self,
        *,
        target_concurrency: Optional[float] = -1,
        min_containers: Optional[int] = -1,
        max_containers: Optional[int] = -1,
        buffer_containers: Optional[int] = -1,
        scaledown_window: Optional[int] = -1,
        scaleup_window: Optional[int] = -1,
    ) -> None:
        """Change settings until the next deployment: -1 keeps one, None goes back to what was declared. Raises
        InvalidError for what cannot be.
        """
        given = {
            "target_concurrent_inputs": target_concurrency if target_concurrency is None else int(target_concurrency),
            "min_containers": min_containers,
            "max_containers": max_containers,
            "buffer_containers": buffer_containers,
            "scaleup_window": scaleup_window,
            "scaledown_window": scaledown_window,
        }
        changes = {name: value for name, value in given.items() if value != -1}
        if changes:
            await self._ask(changes)

    async def _ask(self, changes: Dict[str, Any]) -> FunctionScaling:
        callee = await self._service._callee()  # noqa: SLF001  of this package
        return await callee.client.call("function.scale", FunctionScale(callee.function_id, changes), FunctionScaling)


class ServerSessions:
    """``server.sessions``, of a class with ``@sessioned()``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @dual
    async def start(self, idle_timeout: int = 600) -> ServerSessionCredentials:
        """Begin a session. Requests with the header ``Alight-Authorization: Bearer <token>`` go to one container for as
        long as that lives. It is over after ``idle_timeout`` seconds without a request. InvalidError for a server whose
        class is not ``@sessioned()``.
        """
        from alight.sdk.reports import ServerSessionCredentials  # noqa: PLC0415  declaring needs none of it

        callee = await self._service._callee()  # noqa: SLF001  of this package
        asked = SessionStart(callee.function_id, float(idle_timeout))
        begun = await callee.client.call("web.session_start", asked, SessionStarted)
        return ServerSessionCredentials(begun.session_id, begun.token)

    @dual
    async def terminate(self, token: str) -> None:
        """End a session: what is under way goes on, later requests are refused. NotFoundError for one that is over."""
        callee = await self._service._callee()  # noqa: SLF001  of this package
        await callee.client.do("web.session_end", SessionEnd(callee.function_id, token))


class ServerMetrics:
    """``server.metrics``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @dual
    async def export(
        self,
        *,
        since: Optional[datetime] = None,
        until: Optional[datetime] = None,
        bucket_size: Optional[float] = None,
        groups: Optional[Sequence[str]] = None,
    ) -> ObjectMetrics:
        """What its containers used between two moments: see ``Function.metrics.export``."""
        from alight.sdk import measuring  # noqa: PLC0415  only who asks

        callee = await self._service._callee()  # noqa: SLF001  of this package
        return await measuring.export(callee, since, until, bucket_size, groups, all_variants=True, server=True)

    @dual
    async def schema(self, groups: Optional[Sequence[str]] = None) -> Dict[str, MetricsSchema]:
        """What is measured, by group."""
        from alight.sdk import measuring  # noqa: PLC0415  only who asks

        return measuring.schema(groups, server=True)


class Server(Object):
    """A server class of an app: its containers serve a port, and nothing of it is called."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._app: Any = None
        self._raw: Optional[type] = None  # its code, where that is
        self._methods: Dict[str, Any] = {}  # none: what looks at all classes of an app looks at these
        self._service = Service(None, "", None, Options())

    def declare(self, app: Any, name: str, raw: type, options: Options, said: Mapping[str, Any]) -> None:
        """It is that class of an app. ``said`` is its ``FunctionSpec.web``."""
        self._app, self._name, self._raw = app, name, raw
        self.__name__, self.__qualname__, self.__module__ = raw.__name__, raw.__qualname__, raw.__module__
        self.__doc__ = raw.__doc__
        self._service = Service(app, f"{name}.*", raw, options)
        self._service.describe_server(raw.__qualname__, said)

    @classmethod
    def from_name(
        cls, app_name: str, name: str, *, environment_name: Optional[str] = None, client: Optional[Client] = None
    ) -> Server:
        """The server of this name in a deployed app; looked up at its first use."""
        made = cls()
        made._name, made._client = name, client
        made._service = Service(None, f"{name}.*", None, Options())
        made._service.look_in(check_name(app_name, "app"), environment_name, client)
        return made

    @classmethod
    def from_id(cls, server_id: str, *, client: Optional[Client] = None) -> Server:
        """The server with this id."""
        made = cls()
        made._object_id, made._client = server_id, client
        made._service.known_as(server_id)
        return made

    @property
    def object_id(self) -> str:
        """The id: while its app runs, or once it was looked up. AttributeError before."""
        return self._service.object_id

    @property
    def options(self) -> Options:
        """What it was declared with."""
        return self._service.options

    @property
    def autoscaler(self) -> ServerAutoscaler:
        """What scales it."""
        return ServerAutoscaler(self._service)

    @property
    def sessions(self) -> ServerSessions:
        """Requests that stay on one container."""
        return ServerSessions(self._service)

    @property
    def logs(self) -> Logs:
        """Its output."""
        return Logs(self._service._about_logs)  # noqa: SLF001  of this package

    @property
    def metrics(self) -> ServerMetrics:
        """Its measurements."""
        return ServerMetrics(self._service)

    @dual
    async def get_url(self) -> Optional[str]:
        """Its URL, as it works where this is called."""
        from alight.sdk import web_urls  # noqa: PLC0415  few programs ask

        return await web_urls.url_of(await self._service._callee())  # noqa: SLF001  of this package

    @dual
    async def info(self, *, refresh: bool = False) -> ServerInfo:
        """What it was declared with, as the server has it."""
        from alight.sdk import measuring  # noqa: PLC0415  only who asks

        del refresh  # it is always asked for
        return await measuring.server_info(await self._service._callee())  # noqa: SLF001  of this package

    @dual
    async def stats(
        self,
        *,
        since: Optional[datetime] = None,
        until: Optional[datetime] = None,
        container: Optional[str] = None,
    ) -> ServerStats:
        """What it was asked and how its containers fared: ``alight.types.ServerStats``.

        ``since`` is an hour before ``until``, which is now; at most 7 days. ``container`` narrows what is counted of
        containers; requests are counted of all. "latency" is the time until an answer began.
        """
        from alight.sdk import measuring  # noqa: PLC0415  only who asks

        callee = await self._service._callee()  # noqa: SLF001  of this package
        return await measuring.server_stats(callee, since, until, container)

    @dual
    async def update_autoscaler(
        self,
        *,
        target_concurrency: Optional[float] = None,
        min_containers: Optional[int] = None,
        max_containers: Optional[int] = None,
        buffer_containers: Optional[int] = None,
        scaleup_window: Optional[int] = None,
        scaledown_window: Optional[int] = None,
    ) -> None:
        """Deprecated: ``server.autoscaler.update``, for which -1 keeps a setting as None does here."""
        warnings.warn(
            "Server.update_autoscaler() is now Server.autoscaler.update()", errors.DeprecationError, stacklevel=4
        )
        given = {key: value for key, value in locals().items() if key != "self" and value is not None}
        await self.autoscaler.update.raw(**given)

    async def _load(self, client: Client) -> str:
        await self._service.hydrate.raw(client)
        return self._service.object_id

    def __getstate__(self) -> Dict[str, Any]:
        state = {**super().__getstate__(), "_app": None, "_raw": None}
        return {key: value for key, value in state.items() if not key.startswith("__")}

    def __repr__(self) -> str:
        return f"Server({self._name!r})"
