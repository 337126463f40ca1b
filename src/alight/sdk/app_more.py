"""What an App does beside running: it is deployed, looked up, described; and what it will do, as names that say so."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from alight.sdk.client import Client, default_client
from alight.sdk.logs import Logs
from alight.sdk.object import environment_or_default, page_of
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual
from alight.wire.errors import DeprecationError

if TYPE_CHECKING:
    from datetime import datetime

    from alight.sdk.app import App


class AppSandboxes:
    """``App.sandboxes``."""

    @unimplemented("App.sandboxes.stats() would count the app's sandboxes; there are none yet")
    def stats(
        self, *, since: datetime, until: Optional[datetime] = None, group_by_tags: Any = None, tags: Any = None
    ) -> Any: ...


class LaterApp:
    """Deploying and looking; names that this version doesn't do yet, and old ones."""

    @property
    def logs(self) -> Logs:
        """The app's output."""
        return Logs(self._about_logs)

    async def _about_logs(self) -> Tuple[Client, str, Any]:
        from alight.sdk import deploying  # noqa: PLC0415  only who asks
        from alight.sdk.client import default_client  # noqa: PLC0415
        from alight.wire.logs import LogQuery  # noqa: PLC0415

        app: Any = self
        app_id = deploying.app_id_of(app)
        return default_client(), app_id, LogQuery(app_id)

    @property
    def sandboxes(self) -> AppSandboxes:
        """The app's sandboxes."""
        return AppSandboxes()

    @dual
    async def deploy(
        self,
        *,
        name: Optional[str] = None,
        environment_name: Optional[str] = None,
        tag: str = "",
        client: Optional[Client] = None,
        strategy: str = "rolling",
        staged: bool = False,
    ) -> App:
        """Publish the app as its next version: callable from anywhere by its name, without this program, until it is
        stopped. Returns when that version serves; a version that does not come up leaves the one before serving.

        ``strategy``: "rolling" lets old containers finish what they have begun, "recreate" ends them at once. ``tag``
        is a note of at most 50 characters for `alight app history`. ``staged``: it only has to come up, and serves
        nothing until `alight app promote`. Raises InvalidError without a name or functions,
        ConflictError when somebody else deployed the app meanwhile, and what keeps it from being built or started.
        """
        from alight.sdk import deploying  # noqa: PLC0415  only who deploys

        app: App = self  # type: ignore[assignment]  # it is one
        environment = environment_or_default(environment_name)
        wish = deploying.Wish(name or app.name or "", environment, tag, strategy, staged)
        await deploying.deploy(app, wish, client)
        return app

    @dual
    async def set_tags(self, tags: Mapping[str, str], *, client: Optional[Client] = None) -> None:
        """Give the app these tags in place of those it has."""
        from alight.sdk import deploying  # noqa: PLC0415  only who asks

        app: Any = self
        await deploying.set_tags(app, tags, client)

    @dual
    async def get_tags(self, *, client: Optional[Client] = None) -> Dict[str, str]:
        """The tags that the app has on the server."""
        from alight.sdk import deploying  # noqa: PLC0415  only who asks

        app: Any = self
        return dict((await deploying.describe(app, client)).tags)

    @dual
    async def info(self, refresh: bool = False) -> Any:
        """What the server knows of the app: ``alight.types.AppInfo``, with the ids of its functions by name."""
        from alight.sdk import deploying  # noqa: PLC0415  only who asks

        del refresh  # it is always asked for
        app: Any = self
        return deploying.info(await deploying.describe(app))

    @dual
    async def stats(self, *, since: Optional[datetime] = None, until: Optional[datetime] = None) -> Any:
        """What became of its inputs and containers, function by function: ``alight.types.AppStats``.

        ``since`` is an hour before ``until``, which is now; at most 7 days.
        """
        from alight.sdk import deploying, measuring  # noqa: PLC0415  only who asks

        app: Any = self
        told = await deploying.describe(app)
        return await measuring.app_stats(told.app_id, since, until, deploying.info(told).lifecycle)

    @dual
    async def get_dashboard_url(self) -> str:
        """The address of the app's page at the dashboard. Raises ConflictError where the server has none."""
        from alight.sdk import deploying  # noqa: PLC0415  only who asks

        app: Any = self
        return await page_of(default_client(), (await deploying.describe(app)).app_id)

    def server(  # noqa: PLR0913  the public form
        self,
        *,
        image: Any = None,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        gpu: Any = None,
        gpu_memory: Any = None,
        serialized: bool = False,
        volumes: Mapping[Any, Any] = {},
        cpu: Any = None,
        memory: Any = None,
        ephemeral_disk: Optional[int] = None,
        target_concurrency: Optional[int] = None,
        max_concurrency: Optional[int] = None,
        min_containers: Optional[int] = None,
        max_containers: Optional[int] = None,
        buffer_containers: Optional[int] = None,
        scaleup_window: Optional[int] = None,
        scaledown_window: Optional[int] = None,
        startup_timeout: int = 30,
        name: Optional[str] = None,
        port: int = 8000,
        unauthenticated: bool = False,
        h2_enabled: bool = False,
        exit_grace_period: int = 0,
        routing_region: str = "us-east",
        compute_region: Any = None,
        cloud: Optional[str] = None,
        nonpreemptible: bool = False,
        proxy: Any = None,
        i6pn: Optional[bool] = None,
        enable_memory_snapshot: bool = False,
        include_source: Optional[bool] = None,
        experimental_options: Optional[Mapping[str, Any]] = None,
    ) -> Callable[[Any], Any]:
        """Make a class one that serves HTTP itself: an ``@enter`` hook starts a server on ``port``, within
        ``startup_timeout`` seconds of its end.

        A container has up to ``max_concurrency`` requests at a time (default: ``target_concurrency``, else 100); more
        wait for another container. Requests need a proxy token unless ``unauthenticated``. Raises InvalidError for what
        cannot be, UnimplementedError for HTTP/2.
        """
        given = {key: value for key, value in locals().items() if key != "self"}
        from alight.sdk import server_class  # noqa: PLC0415  few apps have one

        return lambda declared: server_class.made_from(self, declared, given)

    @property
    def registered_functions(self) -> Dict[str, Any]:
        """[Deprecated] The app's functions by name."""
        return dict(self._old("registered_functions", "_functions"))

    @property
    def registered_classes(self) -> Dict[str, Any]:
        """[Deprecated] The app's classes by name."""
        return dict(self._old("registered_classes", "_classes"))

    @property
    def registered_entrypoints(self) -> Dict[str, Any]:
        """[Deprecated] The app's local entrypoints by name."""
        return dict(self._old("registered_entrypoints", "_entrypoints"))

    @property
    def registered_web_endpoints(self) -> List[str]:
        """[Deprecated] The names of the app's web functions."""
        functions = self._old("registered_web_endpoints", "_functions")
        return [name for name, function in functions.items() if function._web is not None]  # noqa: SLF001

    def _old(self, name: str, attribute: str) -> Dict[str, Any]:
        warnings.warn(f"App.{name} is old and will go", DeprecationError, stacklevel=3)
        found: Dict[str, Any] = getattr(self, attribute)
        return found
