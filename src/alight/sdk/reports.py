"""Plain data about what runs and what it cost, as `alight.types` shows it.

Apart from `sdk/types.py`, because making this many dataclasses takes time that a declaration of an app, or a cold
start, does not have. Nothing here talks to a server.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, List, Mapping, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True)
class DictInfo:
    name: Optional[str]
    created_at: datetime
    created_by: Optional[str]


@dataclass(frozen=True)
class QueueInfo:
    name: Optional[str]
    created_at: datetime
    created_by: Optional[str]


@dataclass(frozen=True)
class VolumeMountInfo:
    """A volume of a function. ``sub_path`` is None when the whole volume is mounted."""

    name: Optional[str]
    volume_id: str
    read_only: bool
    sub_path: Optional[str]


@dataclass(frozen=True)
class CloudBucketMountInfo:
    bucket_name: str
    bucket_type: str
    read_only: bool
    key_prefix: Optional[str]


class VolumeCreateOptions:
    """Options of a new volume. None are needed here: any are accepted, and kept to show."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


# apps and functions


class AppState(enum.Enum):
    """Where an app is in its life."""

    INITIALIZING = "initializing"
    EPHEMERAL = "ephemeral"
    DETACHED = "detached"
    DEPLOYED = "deployed"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DISABLED = "disabled"


@dataclass(frozen=True)
class AppLifecycle:
    state: AppState
    version: Optional[int]
    created_at: Optional[datetime]
    created_by: Optional[str]
    deployed_at: Optional[datetime]
    deployed_by: Optional[str]
    stopped_at: Optional[datetime]
    stopped_by: Optional[str]


@dataclass(frozen=True)
class AppInfo:
    app_id: str
    description: str
    lifecycle: AppLifecycle
    functions: Mapping[str, Any]
    servers: Mapping[str, Any]


@dataclass(frozen=True)
class AppStats:
    since: datetime
    until: datetime
    functions: Mapping[str, Any]
    servers: Mapping[str, Any]
    sandboxes: Any
    lifecycle: AppLifecycle
    deployment_count: int


@dataclass(frozen=True)
class FunctionAutoscalerSettings:
    """How many containers a function may have; None means Alight's default."""

    min_containers: Optional[int]
    max_containers: Optional[int]
    scaledown_window: Optional[float]
    buffer_containers: Optional[int]


@dataclass(frozen=True)
class FunctionCurrentStats:
    """Counts of this moment: inputs that wait, containers, inputs that run, room for more inputs in those."""

    backlog: int
    num_total_runners: int
    num_running_inputs: int = 0
    input_headroom: int = 0


@dataclass(frozen=True)
class FunctionInfo:
    """What a function was declared with."""

    cpu: Any
    memory_mib: Any
    gpus: Sequence[str]
    ephemeral_disk_mib: Optional[int]
    image_info: Any
    startup_timeout: Optional[float]
    timeout: float
    max_retries: int
    nonpreemptible: bool
    regions: Sequence[str]
    routing_region: Optional[str]
    cloud: Optional[str]
    cluster_info: Any
    batching_info: Any
    concurrency_info: Any
    schedule: Any
    restrict_modal_access: bool
    block_network: bool
    single_use_containers: bool
    volumes: Mapping[str, VolumeMountInfo]
    cloud_bucket_mounts: Mapping[str, CloudBucketMountInfo]
    secrets: Sequence[str]
    web_info: Any
    method_names: Sequence[str]
    method_details: Mapping[str, Any]
    _inner_server_info: Any = None


@dataclass(frozen=True)
class FunctionStats:
    """What happened between two moments."""

    since: datetime
    until: datetime
    input_success_count: int
    input_failure_count: int
    input_timeout_count: int
    input_running_at_end_count: int
    input_percentile_stats: Mapping[str, StatsPercentileDistribution]
    container_started_count: int
    container_error_count: int
    container_creating_at_end_count: int
    container_percentile_stats: Mapping[str, StatsPercentileDistribution]
    container_total_count: int
    variant_count: int
    all_variants: bool


class InputStatus(enum.IntEnum):
    """How an input stands."""

    PENDING = 0
    SUCCESS = 1
    FAILURE = 2
    INIT_FAILURE = 3
    TERMINATED = 4
    TIMEOUT = 5


@dataclass
class InputInfo:
    """One input in a call graph, with the inputs that it made."""

    input_id: str
    function_call_id: str
    task_id: str
    status: InputStatus
    function_name: str
    module_name: str
    children: List[InputInfo]


@dataclass(frozen=True)
class LogEntry:
    """One piece of output. ``source`` is stdout, stderr or system."""

    message: str
    timestamp: datetime
    source: str
    object_id: str
    context_ids: Mapping[str, str]


# measurements


@dataclass(frozen=True)
class StatsPercentile:
    percentile: float
    value: float


@dataclass(frozen=True)
class StatsPercentileDistribution:
    unit: str
    percentiles: Sequence[StatsPercentile]


@dataclass(frozen=True)
class TimeSeriesPoint:
    time: datetime
    value: float


@dataclass(frozen=True)
class MetricDefinition:
    name: str
    unit: str
    description: str


@dataclass(frozen=True)
class MetricsSchema:
    name: str
    definitions: Sequence[MetricDefinition]


@dataclass(frozen=True)
class MetricSeries:
    name: str
    unit: str
    aggregation: str
    points: Sequence[TimeSeriesPoint]
    description: str = ""


@dataclass(frozen=True)
class ObjectMetrics:
    """Series of one object by name: ``metrics["cpu"]``."""

    object_id: str
    since: datetime
    until: datetime
    bucket_size: float
    point_count: int
    series: Mapping[str, MetricSeries]

    def __getitem__(self, name: str) -> MetricSeries:
        return self.series[name]


# sandboxes


class FileType(enum.Enum):
    """What a path in a sandbox is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


@dataclass(frozen=True)
class FileInfo:
    """One path in a sandbox. ``mode`` in octal as a number, ``permissions`` as `ls` writes them."""

    name: str
    path: str
    type: FileType
    size: int
    mode: int
    permissions: str
    owner: str
    group: str
    modified_time: datetime
    symlink_target: Optional[str]

    def is_file(self) -> bool:
        return self.type is FileType.FILE

    def is_dir(self) -> bool:
        return self.type is FileType.DIRECTORY

    def is_symlink(self) -> bool:
        return self.type is FileType.SYMLINK


class FileWatchEventType(enum.Enum):
    Unknown = "Unknown"
    Access = "Access"
    Create = "Create"
    Modify = "Modify"
    Remove = "Remove"


@dataclass(frozen=True)
class FileWatchEvent:
    paths: Sequence[str]
    type: FileWatchEventType


@dataclass(frozen=True)
class SandboxConnectCredentials:
    url: str
    token: str


@dataclass(frozen=True)
class SandboxGroupStats:
    tags: Mapping[str, str]
    cost: float
    cost_by_resource: Mapping[str, float]


@dataclass(frozen=True)
class SandboxStats:
    since: datetime
    until: datetime
    duration: float
    percentile_stats: Mapping[str, StatsPercentileDistribution]
    cost: float
    cost_by_resource: Mapping[str, float]
    billed_cpu_core_seconds: float
    billed_memory_gib_seconds: float


# servers


@dataclass(frozen=True)
class ServerAutoscalerSettings:
    target_concurrency: Optional[float]
    min_containers: Optional[int]
    max_containers: Optional[int]
    buffer_containers: Optional[int]
    scaleup_window: Optional[float]
    scaledown_window: Optional[float]


@dataclass(frozen=True)
class ServerContainerInfo:
    container_id: str
    host: str
    port: int


@dataclass(frozen=True)
class ServerInfo:
    """What a server class was declared with."""

    server_url: Optional[str]
    port: int
    unauthenticated: bool
    h2_enabled: bool
    routing_region: Optional[str]
    sessioned: bool
    startup_timeout: float
    exit_grace_period: float
    image_info: Any
    cpu: Any
    memory_mib: Any
    gpus: Sequence[str]
    ephemeral_disk_mib: Optional[int]
    nonpreemptible: bool
    compute_regions: Sequence[str]
    cloud: Optional[str]
    cluster_info: Any
    volumes: Mapping[str, VolumeMountInfo]
    cloud_bucket_mounts: Mapping[str, CloudBucketMountInfo]
    secrets: Sequence[str]


@dataclass(frozen=True)
class ServerSessionCredentials:
    session_id: str
    token: str


@dataclass(frozen=True)
class ServerStats:
    """What happened between two moments."""

    since: datetime
    until: datetime
    request_count: int
    request_count_by_status_code: Mapping[int, int]
    request_rate_per_second: float
    request_percentile_stats: Mapping[str, StatsPercentileDistribution]
    container_started_count: int
    container_error_count: int
    container_creating_at_end_count: int
    container_total_count: int
    container_percentile_stats: Mapping[str, StatsPercentileDistribution]
    inference: Any


# people, tokens, money


@dataclass(frozen=True)
class TokenData:
    token_id: str
    token_secret: str


@dataclass(frozen=True)
class MemberTokenInfo:
    name: str
    token_id: str
    user_id: str
    username: str
    created_at: datetime
    last_used_at: Optional[datetime]
    expires_at: Optional[datetime]
    disabled: bool


@dataclass(frozen=True)
class ProxyTokenInfo:
    token_id: str
    created_at: datetime
    scoped: bool
    name: str = ""
    created_by: str = ""


@dataclass(frozen=True)
class ServiceUserInfo:
    service_user_id: str
    name: str
    token_id: Optional[str]
    created_by: Optional[str]
    created_at: datetime
    last_used_at: Optional[datetime]
    expires_at: Optional[datetime]
    environment_roles: Mapping[str, str]


@dataclass(frozen=True)
class WorkspaceMemberInfo:
    name: str
    email: Optional[str]
    user_id: str
    role: str
    joined_at: Optional[datetime]
    last_active_at: Optional[datetime]


@dataclass(frozen=True)
class WorkspaceSettings:
    default_environment: Optional[str]
    image_builder_version: Optional[str]


@dataclass(frozen=True)
class EnvironmentBillingSummary:
    start: datetime
    end: datetime
    metered_cost: Decimal
    metered_cost_breakdown: Mapping[str, Decimal]


@dataclass(frozen=True)
class WorkspaceBillingSummary:
    start: datetime
    end: datetime
    metered_cost: Decimal
    metered_cost_breakdown: Mapping[str, Decimal]
    adjustments: Mapping[str, Decimal]
    billed_cost: Decimal


@dataclass(frozen=True)
class BillingReportItem:
    """One row of a report; older scripts read it as a dict, which still works."""

    object_id: str
    description: str
    environment_name: str
    interval_start: datetime
    cost: Decimal
    cost_by_resource: Mapping[str, Decimal]
    tags: Mapping[str, str]

    def __getitem__(self, key: str) -> Any:
        if key not in self.keys():
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, _: Any) -> None:
        raise TypeError(f"a row of a report cannot be changed: {key!r}")

    def keys(self) -> List[str]:
        return list(self.__dataclass_fields__)

    def values(self) -> List[Any]:
        return [getattr(self, key) for key in self.keys()]

    def items(self) -> List[Tuple[str, Any]]:
        return [(key, getattr(self, key)) for key in self.keys()]
