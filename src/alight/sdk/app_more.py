"""What an App will do, as names that say so."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence

from alight.sdk.client import Client
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_function
from alight.wire.errors import DeprecationError

if TYPE_CHECKING:
    from datetime import datetime

    from alight.sdk.app import App


class AppLogs:
    """``App.logs``."""

    @unimplemented("App.logs.fetch() would return the app's output; see `alight app logs`")
    def fetch(
        self, *, since: datetime, until: Optional[datetime] = None, source: Any = None, search_text: str = ""
    ) -> Any: ...

    @unimplemented("App.logs.tail() would return the end of the app's output; see `alight app logs`")
    def tail(self, entries: int = 100, *, source: Any = None) -> Any: ...

    @unimplemented("App.logs.stream() would follow the app's output; see `alight app logs -f`")
    def stream(self, timeout: Optional[float] = None) -> Any: ...


class AppSandboxes:
    """``App.sandboxes``."""

    @unimplemented("App.sandboxes.stats() would count the app's sandboxes; there are none yet")
    def stats(
        self, *, since: datetime, until: Optional[datetime] = None, group_by_tags: Any = None, tags: Any = None
    ) -> Any: ...


class LaterApp:
    """Names of App that this version doesn't do yet, and old ones."""

    @property
    def logs(self) -> AppLogs:
        """The app's output."""
        return AppLogs()

    @property
    def sandboxes(self) -> AppSandboxes:
        """The app's sandboxes."""
        return AppSandboxes()

    @dual
    @unimplemented("App.deploy() would keep the app callable after this program; this version runs apps, see App.run()")
    async def deploy(
        self,
        *,
        name: Optional[str] = None,
        environment_name: Optional[str] = None,
        tag: str = "",
        client: Optional[Client] = None,
        strategy: str = "rolling",
    ) -> App: ...

    @staticmethod
    @dual_function
    @unimplemented("App.lookup() would find a deployed app; this version runs apps and doesn't deploy them yet")
    async def lookup(
        name: str,
        *,
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
    ) -> App: ...

    @dual
    @unimplemented("App.set_tags() would change a running app's tags; give them to App(tags=…)")
    async def set_tags(self, tags: Mapping[str, str], *, client: Optional[Client] = None) -> None: ...

    @dual
    @unimplemented("App.get_tags() would return a running app's tags; this version keeps those of App(tags=…)")
    async def get_tags(self, *, client: Optional[Client] = None) -> Dict[str, str]: ...

    @dual
    @unimplemented("App.info() would return what the server knows of the app; see `alight app list`")
    async def info(self, refresh: bool = False) -> Any: ...

    @dual
    @unimplemented("App.stats() would count the app's inputs and containers; see `alight app list`")
    async def stats(self, *, since: Optional[datetime] = None, until: Optional[datetime] = None) -> Any: ...

    @dual
    @unimplemented("get_dashboard_url() would link to the app's page; there is no dashboard yet")
    async def get_dashboard_url(self) -> str: ...

    def server(  # noqa: PLR0913  the public form
        self,
        *,
        image: Any = None,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        gpu: Any = None,
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
    ) -> Callable[[type], type]:
        """Declare a class that serves HTTP itself. This version takes the declaration and doesn't serve it yet."""
        return lambda declared: declared

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
