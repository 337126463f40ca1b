"""What clients and the server say to each other about measurements. See ``messages`` for the notation. Times are unix
seconds, lengths of time seconds, sizes bytes where nothing else is said."""

from __future__ import annotations

from alight.wire.record import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple
else:
    from typing import Any, Dict, Optional, Tuple  # decoders look the fields' types up

#: Groups of a function's metrics: name → (unit, what it is).
METRICS: Dict[str, Dict[str, Tuple[str, str]]] = {
    "containers": {
        "containers_ready": ("count", "containers that take inputs, at the end of the interval"),
        "containers_starting": ("count", "containers that start, at the end of the interval"),
    },
    "cpu": {
        "cpu_cores": ("cores", "busy cores of all containers together"),
        "cpu_cores_max": ("cores", "the most busy cores of one container"),
    },
    "memory": {
        "memory_bytes": ("bytes", "memory of all containers together"),
        "memory_bytes_max": ("bytes", "the most memory of one container"),
    },
    "network": {
        "net_rx": ("bytes/s", "received by all containers together"),
        "net_tx": ("bytes/s", "sent by all containers together"),
    },
    "disk": {
        "disk_read": ("bytes/s", "read from disks by all containers together"),
        "disk_write": ("bytes/s", "written to disks by all containers together"),
    },
    "gpu": {
        "gpu_utilization": ("ratio", "how busy the GPUs are, from 0 to 1: the mean of the containers"),
        "gpu_memory_bytes": ("bytes", "memory of GPUs that is in use, of all containers together"),
        "gpu_power_watts": ("watts", "power that the GPUs draw, of all containers together"),
    },
    "calls": {
        "inputs_success": ("count", "inputs that returned a value"),
        "inputs_failure": ("count", "inputs that failed"),
        "inputs_timeout": ("count", "inputs that ran out of time"),
        "queue_time_p50": ("seconds", "median time from a call to its beginning, of calls with one input"),
        "queue_time_p95": ("seconds", "95 % of those waited no longer"),
        "run_time_p50": ("seconds", "median time that inputs ran"),
        "run_time_p95": ("seconds", "95 % of inputs ran no longer"),
    },
}


@dataclass(frozen=True)
class SeriesAsked:
    """container.series → SeriesOf. ``object_id`` is a container; for the server's owner a machine or a GPU's uuid,
    too. ``until`` 0 is now, ``since`` 0 an hour before; ``points``: at most so many."""

    object_id: str
    since: float = 0.0
    until: float = 0.0
    points: int = 300


@dataclass(frozen=True)
class SeriesOf:
    """Columns of equal length. ``at`` is the end of each step. ``series`` has means, ``most`` the most in each step;
    None where nothing is known. Names: cpu (cores), memory_bytes, pids, net_rx, net_tx, disk_read, disk_write (bytes a
    second), gpu_utilization (0 to 1), gpu_memory_bytes, gpu_power_watts, gpu_temperature."""

    step: float = 0.0
    at: Tuple[float, ...] = ()
    series: Dict[str, Tuple[Optional[float], ...]] = field(default_factory=dict)
    most: Dict[str, Tuple[Optional[float], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class FunctionAsked:
    """function.report → FunctionReport, function.metrics → FunctionMetrics, function.info → FunctionDeclared,
    function.variants → VariantsListed.

    Either ``function_id``, or ``app`` (name or id) and ``name`` in ``environment``. ``since`` 0 is an hour before
    ``until``, which 0 is now; at most 7 days. ``container``: of that one alone. ``all_variants``: of what was changed
    by with_options and of all parameters of a class, too. ``step`` and ``groups`` are of metrics."""

    function_id: str = ""
    app: str = ""
    name: str = ""
    environment: str = ""
    since: float = 0.0
    until: float = 0.0
    container: str = ""
    all_variants: bool = False
    step: float = 60.0
    groups: Tuple[str, ...] = ()
    limit: int = 200


@dataclass(frozen=True)
class FunctionReport:
    """``spreads`` by name (queue_time, run_time, cold_start): percentile → seconds; no entry where nothing is known.
    ``running`` is now. ``errors``: containers that never became ready, or ended with an exit code. Of what serves the
    web: ``statuses`` counts answers by status, and ``request_spreads`` has "latency", from a request's head to the
    beginning of its answer."""

    function_id: str
    name: str
    app_id: str
    since: float
    until: float
    success: int = 0
    failure: int = 0
    timeout: int = 0
    cancelled: int = 0
    running: int = 0
    waiting: int = 0
    input_spreads: Dict[str, Dict[str, float]] = field(default_factory=dict)
    started: int = 0
    errors: int = 0
    creating: int = 0
    containers: int = 0
    container_spreads: Dict[str, Dict[str, float]] = field(default_factory=dict)
    variants: int = 1
    all_variants: bool = False
    statuses: Dict[str, int] = field(default_factory=dict)
    request_spreads: Dict[str, Dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class AppAsked:
    """app.report → AppReport. ``app`` is a name (of the newest app of that name) or an id."""

    app: str
    environment: str = ""
    since: float = 0.0
    until: float = 0.0


@dataclass(frozen=True)
class AppReport:
    """``functions`` with all their variants. ``servers`` are names of those that are server classes."""

    app_id: str
    app: str
    since: float
    until: float
    functions: Tuple[FunctionReport, ...] = ()
    servers: Tuple[str, ...] = ()
    deployments: int = 0


@dataclass(frozen=True)
class FunctionMetrics:
    """Columns as of SeriesOf, by the names of METRICS."""

    function_id: str
    since: float
    until: float
    step: float
    at: Tuple[float, ...] = ()
    series: Dict[str, Tuple[Optional[float], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class FunctionDeclared:
    """``spec`` is its FunctionSpec in JSON, without values of its environment and without code."""

    function_id: str
    name: str
    app_id: str
    app: str
    environment: str
    app_state: str
    spec: Dict[str, Any] = field(default_factory=dict)
    scaling: Dict[str, Any] = field(default_factory=dict)  # in force now
    urls: Tuple[str, ...] = ()
    volumes: Dict[str, str] = field(default_factory=dict)  # names by id, of those that have one


@dataclass(frozen=True)
class Variant:
    """One set of options or of a class's parameters. ``changes`` is what differs from the function."""

    function_id: str
    name: str
    created_at: float
    containers: int = 0
    backlog: int = 0
    running: int = 0
    changes: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class VariantsListed:
    variants: Tuple[Variant, ...] = ()
    more: bool = False


@dataclass(frozen=True)
class NodeList:
    """node.list → NodesListed, gpu.list → GpusListed. ``watch``: measure every second for a while from now."""

    watch: bool = False


@dataclass(frozen=True)
class NodeShown:
    """One machine. ``cpu`` in busy cores and ``memory_used`` in bytes, None while nobody has said."""

    node_id: str
    hostname: str
    state: str  # connected, away
    version: str = ""
    engine: str = ""
    cpus: float = 0.0
    cpu: Optional[float] = None
    memory: int = 0  # bytes that containers may have
    memory_used: Optional[float] = None
    containers: int = 0
    gpus: Tuple[str, ...] = ()
    fake_gpus: bool = False
    last_seen: float = 0.0


@dataclass(frozen=True)
class NodesListed:
    nodes: Tuple[NodeShown, ...] = ()


@dataclass(frozen=True)
class GpuShown:
    """One GPU. ``holders`` are containers; ``holder`` the first of them. Sizes in bytes, ``temperature`` in degrees
    Celsius, ``power`` in watts, ``utilization`` from 0 to 1; None where the driver does not say."""

    uuid: str
    name: str
    index: int
    node_id: str
    machine: str
    memory: float
    type: str = ""
    holder: str = ""
    holders: Tuple[str, ...] = ()
    holder_function: str = ""
    temperature: Optional[float] = None
    power: Optional[float] = None
    utilization: Optional[float] = None
    memory_used: Optional[float] = None
    health: str = ""
    fake: bool = False


@dataclass(frozen=True)
class GpusListed:
    gpus: Tuple[GpuShown, ...] = ()
