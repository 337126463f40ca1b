"""A class that serves HTTP on a port, as a handle: `@app.server()`. Not there yet."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, AsyncIterator, Dict, Optional, Sequence

from alight.sdk.client import Client
from alight.sdk.object import Object
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_gen
from alight.wire.errors import UnimplementedError
from alight.wire.ids import check_name

if TYPE_CHECKING:
    from alight.sdk.reports import (
        LogEntry,
        MetricsSchema,
        ObjectMetrics,
        ServerAutoscalerSettings,
        ServerInfo,
        ServerSessionCredentials,
        ServerStats,
    )

_NOT_YET = "server classes are not there yet"


class ServerAutoscaler:
    """``server.autoscaler``."""

    @dual
    @unimplemented(f"Server.autoscaler.settings would return what scales it; {_NOT_YET}")
    async def settings(self) -> ServerAutoscalerSettings:
        """The settings in force."""

    @dual
    @unimplemented(f"Server.autoscaler.update would change what scales it; {_NOT_YET}")
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
        """Change settings until the next deployment: -1 keeps one, None clears it."""


class ServerSessions:
    """``server.sessions``."""

    @dual
    @unimplemented(f"Server.sessions.start would begin a session; {_NOT_YET}")
    async def start(self, idle_timeout: int = 600) -> ServerSessionCredentials:
        """Begin a session that ends after ``idle_timeout`` seconds without a request."""

    @dual
    @unimplemented(f"Server.sessions.terminate would end a session; {_NOT_YET}")
    async def terminate(self, token: str) -> None:
        """End a session."""


class ServerLogs:
    """``server.logs``."""

    @dual_gen
    @unimplemented(f"Server.logs.fetch would return output of the past; {_NOT_YET}")
    async def fetch(
        self,
        *,
        since: datetime,
        until: Optional[datetime] = None,
        source: Optional[str] = None,
        search_text: str = "",
    ) -> AsyncIterator[LogEntry]:
        """Output between two moments."""
        yield  # type: ignore[misc]

    @dual_gen
    @unimplemented(f"Server.logs.tail would return the last output; {_NOT_YET}")
    async def tail(self, entries: int = 100, *, source: Optional[str] = None) -> AsyncIterator[LogEntry]:
        """The last entries."""
        yield  # type: ignore[misc]

    @dual_gen
    @unimplemented(f"Server.logs.stream would return output as it comes; {_NOT_YET}")
    async def stream(self, timeout: Optional[float] = None) -> AsyncIterator[LogEntry]:
        """Output as it comes."""
        yield  # type: ignore[misc]


class ServerMetrics:
    """``server.metrics``."""

    @dual
    @unimplemented(f"Server.metrics.export would return measurements; {_NOT_YET}")
    async def export(
        self,
        *,
        since: Optional[datetime] = None,
        until: Optional[datetime] = None,
        bucket_size: Optional[float] = None,
        groups: Optional[Sequence[str]] = None,
    ) -> ObjectMetrics:
        """Measurements between two moments."""

    @dual
    @unimplemented(f"Server.metrics.schema would say what is measured; {_NOT_YET}")
    async def schema(self, groups: Optional[Sequence[str]] = None) -> Dict[str, MetricsSchema]:
        """What is measured."""


class Server(Object):
    """A server class of a deployed app."""

    def __init__(self) -> None:
        super().__init__()
        self._app_name = ""
        self._name = ""
        self._environment: Optional[str] = None

    @classmethod
    def from_name(
        cls, app_name: str, name: str, *, environment_name: Optional[str] = None, client: Optional[Client] = None
    ) -> Server:
        """The server of this name in a deployed app; looked up at its first use."""
        made = cls()
        made._app_name, made._name = check_name(app_name, "app"), name
        made._environment, made._client = environment_name, client
        return made

    @classmethod
    def from_id(cls, server_id: str, *, client: Optional[Client] = None) -> Server:
        """The server with this id."""
        made = cls()
        made._object_id, made._client = server_id, client
        return made

    @property
    def autoscaler(self) -> ServerAutoscaler:
        """What scales it."""
        return ServerAutoscaler()

    @property
    def sessions(self) -> ServerSessions:
        """Requests that stay on one container."""
        return ServerSessions()

    @property
    def logs(self) -> ServerLogs:
        """Its output."""
        return ServerLogs()

    @property
    def metrics(self) -> ServerMetrics:
        """Its measurements."""
        return ServerMetrics()

    @dual
    @unimplemented(f"Server.get_url would return its address; {_NOT_YET}")
    async def get_url(self) -> Optional[str]:
        """Its address."""

    @dual
    @unimplemented(f"Server.info would return what it was declared with; {_NOT_YET}")
    async def info(self, *, refresh: bool = False) -> ServerInfo:
        """What it was declared with."""

    @dual
    @unimplemented(f"Server.stats would return what happened; {_NOT_YET}")
    async def stats(
        self,
        *,
        since: Optional[datetime] = None,
        until: Optional[datetime] = None,
        container: Optional[str] = None,
    ) -> ServerStats:
        """What happened between two moments."""

    @dual
    @unimplemented(f"Server.update_autoscaler is an old name of Server.autoscaler.update; {_NOT_YET}")
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
        """Deprecated: ``server.autoscaler.update``."""

    async def _load(self, client: Client) -> str:
        raise UnimplementedError(f"the Server {self._name!r} cannot be looked up: {_NOT_YET}")
