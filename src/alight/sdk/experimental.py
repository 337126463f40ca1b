"""Names that the API we follow calls experimental. Data classes are real; what needs a server says what it would do."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from alight.sdk import shaping
from alight.sdk.client import Client
from alight.sdk.cluster import here
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_function
from alight.wire import ambient
from alight.wire.errors import DeprecationError, InvalidError

if TYPE_CHECKING:
    from alight.sdk.secret import Secret

_NO_FABRIC = "all containers of a cluster are on one machine, which has no other network than get_cluster_info() names"
_NO_SERVERS = "a class with @app.server(port=…) has its port on the gateway from the start"
_NO_APPS = "`alight app list` shows apps; from Python they cannot be listed yet"


@dataclass(frozen=True)
class AppInfo:
    """A deployed app."""

    app_id: str
    name: str
    containers: int


@dataclass(frozen=True)
class AppLifecycle:
    version: Optional[int]
    created_at: Optional[datetime]
    created_by: Optional[str]
    deployed_at: Optional[datetime]
    deployed_by: Optional[str]
    stopped_at: Optional[datetime]
    stopped_by: Optional[str]


@dataclass(frozen=True)
class ClusterInfo:
    """The containers that work on one input, by rank."""

    rank: int
    cluster_id: str
    container_ips: List[str]
    container_ipv4_ips: List[str]
    fabric_ids: List[str]


@dataclass(frozen=True)
class ClusterReservationTask:
    task_id: str
    cluster_rank: int
    app_id: str
    function_id: str


@dataclass(frozen=True)
class ClusterReservation:
    name: str
    gpu_type: str
    region: str
    min_reserved_workers: int
    reserved_workers: int
    active_workers: int
    idle_workers: int
    unfulfilled_workers: int
    tasks: Sequence[ClusterReservationTask]


@dataclass
class DockerfileSpec:
    """Lines of a Dockerfile and the files that they need."""

    commands: List[str] = field(default_factory=list)
    context_files: Dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OutboundPolicy:
    """What is done to a sandbox's requests on their way out."""

    _replacements: Tuple[Mapping[str, Any], ...] = ()

    def with_header_replacement(
        self, *, domain: str, headers: Mapping[str, str], secret: Optional[Secret] = None
    ) -> OutboundPolicy:
        """The policy that also replaces headers of requests to ``domain``."""
        if not domain or "/" in domain:
            raise InvalidError(f"{domain!r} is not a domain")
        rule: Mapping[str, Any] = {"domain": domain, "headers": dict(headers), "secret": secret}
        return OutboundPolicy((*self._replacements, rule))


class ServerManager:
    """A forwarded port, registered with the gateway."""

    def __init__(self, client: Optional[Client]) -> None:
        self._client = client

    @dual
    @unimplemented(f"ServerManager.stop would take the server off the gateway; {_NO_SERVERS}")
    async def stop(self) -> None:
        """Take the server off the gateway."""

    @dual
    @unimplemented(f"ServerManager.close would let go of the port; {_NO_SERVERS}")
    async def close(self) -> None:
        """Let go of the port."""


def clustered(
    size: int, broadcast: bool = True, rdma: bool = False, fabric_size: Optional[int] = None
) -> Callable[[Any], shaping.Shaped]:
    """Deprecated: ``alight.clustered``."""
    del broadcast, fabric_size
    warnings.warn("experimental.clustered has a new name: alight.clustered", DeprecationError, stacklevel=2)
    return shaping.clustered(size=size, rdma=rdma)


def http_server(
    port: Optional[int] = None,
    *,
    proxy_regions: Sequence[str] = [],
    startup_timeout: int = 30,
    exit_grace_period: Optional[int] = None,
    h2_enabled: bool = False,
) -> Callable[[Any], Any]:
    """Declare that a class starts an HTTP server on ``port``. Kept with the class; it does not serve yet."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise InvalidError("@http_server() needs a port", hint="for example @http_server(8000)")
    if not 1 <= port <= 65535:
        raise InvalidError(f"@http_server(): a port is from 1 to 65535, not {port}")
    values = {
        "kind": "http_server",
        "port": port,
        "proxy_regions": list(proxy_regions),
        "startup_timeout": startup_timeout,
        "exit_grace_period": exit_grace_period,
        "h2_enabled": h2_enabled,
    }
    return lambda thing: shaping.add(thing, "http_server", web=values)


def deprecation_warning(
    deprecated_on: Union[date, Tuple[int, int, int]], msg: str, *, show_source: bool = True
) -> None:
    """Give a warning of this package's own kind."""
    del deprecated_on, show_source
    warnings.warn(msg, DeprecationError, stacklevel=2)


def get_cluster_info() -> ClusterInfo:
    """The containers that work on this input, by rank. InvalidError outside of ``@clustered`` functions.

    Containers have IPv4 addresses: ``container_ips`` are the same as ``container_ipv4_ips``.
    """
    found = here("get_cluster_info()")
    addresses = list(found["addresses"])
    return ClusterInfo(found["rank"], found["cluster_id"], addresses, list(addresses), [])


@unimplemented(f"get_fabric_peers would return the containers on this one's fast network; {_NO_FABRIC}")
def get_fabric_peers() -> List[int]:
    """The ranks on this container's fast network."""


def get_local_input_concurrency() -> int:
    """How many inputs this container takes at once. InvalidError outside of containers."""
    return _input_concurrency("get_local_input_concurrency")(None)


def set_local_input_concurrency(concurrency: int) -> None:
    """Change how many inputs this container takes at once: from 1 to what ``@concurrent`` declared.

    InvalidError outside of containers.
    """
    shaping.check_concurrent("set_local_input_concurrency", concurrency, None)
    _input_concurrency("set_local_input_concurrency")(concurrency)


@dual_function
async def stop_fetching_inputs() -> None:
    """Let this container end after the inputs that it has begun. InvalidError outside of containers."""
    if ambient.stop_fetching_inputs is None:
        raise _not_here("stop_fetching_inputs")
    ambient.stop_fetching_inputs()


def _input_concurrency(name: str) -> Callable[[Optional[int]], int]:
    if ambient.input_concurrency is None:
        raise _not_here(name)
    return ambient.input_concurrency


def _not_here(name: str) -> InvalidError:
    return InvalidError(f"{name}() is about the container that it is called in, and this is none")


@dual_function
@unimplemented(f"list_deployed_apps would list deployed apps; {_NO_APPS}")
async def list_deployed_apps(environment_name: str = "", client: Optional[Client] = None) -> List[AppInfo]:
    """The deployed apps."""


@dual_function
@unimplemented(f"get_app_objects would return the functions and classes of an app; {_NO_APPS}")
async def get_app_objects(
    app_name: str, *, environment_name: Optional[str] = None, client: Optional[Client] = None
) -> Dict[str, Any]:
    """The functions and classes of a deployed app, by name."""


@dual_function
@unimplemented(f"get_app_lifecycle would say when an app was made, deployed and stopped; {_NO_APPS}")
async def get_app_lifecycle(app_id: str, *, client: Optional[Client] = None) -> AppLifecycle:
    """When an app was made, deployed and stopped."""


@dual_function
@unimplemented("stop_app would stop a deployed app; use `alight app stop`")
async def stop_app(name: str, *, environment_name: Optional[str] = None, client: Optional[Client] = None) -> None:
    """Deprecated: ``App.stop``."""


@dual_function
@unimplemented("image_delete would delete an image; images that nothing uses go by themselves")
async def image_delete(image_id: str, *, client: Optional[Client] = None) -> None:
    """Delete an image."""


@dual_function
@unimplemented("list_cluster_reservations would list reserved machines; the machines here are your own")
async def list_cluster_reservations(*, client: Optional[Client] = None) -> List[ClusterReservation]:
    """Reserved machines."""


@dual_function
@unimplemented(f"flash_forward would put a port on the gateway; {_NO_SERVERS}")
async def flash_forward(
    port: int,
    process: Any = None,
    health_check_url: Optional[str] = None,
    startup_timeout: int = 30,
    exit_grace_period: int = 0,
    h2_enabled: bool = False,
) -> ServerManager:
    """Put a port of this container on the gateway."""


@dual_function
@unimplemented(f"flash_get_containers would list the containers of a server; {_NO_SERVERS}")
async def flash_get_containers(app_name: str, cls_name: str) -> List[Dict[str, Any]]:
    """The containers of a server."""


@dual_function
@unimplemented(f"server_forward would put this server on the gateway; {_NO_SERVERS}")
async def server_forward() -> ServerManager:
    """Put this server on the gateway."""
