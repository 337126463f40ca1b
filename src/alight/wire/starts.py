"""What clients and the server say to each other about containers and where their starts went. See ``messages``."""

from __future__ import annotations

from alight.wire.record import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional, Tuple
else:
    from typing import Dict, Optional, Tuple  # decoders look the fields' types up

#: The stages of a start in the order in which they pass. A plain start has "exec", one from a template "fork".
STAGES = (
    "wait",  # from the arrival of the oldest input that waited to the decision to start a container
    "place",  # from the decision to the word to the machine
    "image",  # looked up, or built
    "mounts",  # code, volumes, root file system, sockets
    "network",
    "exec",
    "fork",
    "runtime",  # Python and Alight's runtime come up
    "import",
    "enter",
    "first_input",  # from there to the first line of the function
    "other",  # between these
)


@dataclass(frozen=True)
class ContainerList:
    """container.list → ContainerListed, the newest first. ``ended`` shows those that have ended, too."""

    environment: str = ""
    app: str = ""  # name or id
    ended: bool = False
    limit: int = 100


@dataclass(frozen=True)
class ContainerSummary:
    """One container. ``how`` it came to be ("plain", "forked", "parked"; "" while nobody knows); ``total`` is what its
    start took, in seconds. ``usage`` is what its machine said last, while somebody watched its app."""

    container_id: str
    app_id: str
    app: str
    function_id: str
    function: str
    node_id: str
    machine: str
    state: str  # starting, ready, ended
    created_at: float
    ended_at: Optional[float] = None
    why: str = ""
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    how: str = ""
    level: int = 0
    total: Optional[float] = None
    memory: int = 0  # MiB reserved
    gpus: Tuple[str, ...] = ()
    usage: Dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ContainerListed:
    containers: Tuple[ContainerSummary, ...] = ()
    more: bool = False


@dataclass(frozen=True)
class ContainerShow:
    """container.show → ContainerDetails."""

    container_id: str


@dataclass(frozen=True)
class Stage:
    """A part of a start, in seconds."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Start:
    """Where a start went. ``reached`` is the stage that the container did not get out of, "ready" when it had no input
    yet, "" when its first input began."""

    stages: Tuple[Stage, ...] = ()
    reached: str = ""
    imports: Tuple[Tuple[str, float], ...] = ()  # modules that took long, inclusive, slowest first
    refused: Tuple[str, ...] = ()  # why it was not forked from a template
    built: bool = False  # its image was built for it
    waited: str = ""  # what it waited for
    remedies: Tuple[str, ...] = ()  # what would make it shorter
    gpus: Tuple[str, ...] = ()  # how those that it has not for itself are shared


@dataclass(frozen=True)
class ContainerDetails:
    """``start`` is None for a container of which nothing was kept."""

    container: ContainerSummary
    start: Optional[Start] = None


@dataclass(frozen=True)
class ContainerStop:
    """container.stop: end a container within ``grace`` seconds (0: at once). What it runs is tried again elsewhere."""

    container_id: str
    grace: float = 30.0


@dataclass(frozen=True)
class AppStats:
    """app.stats → AppStarts: how the containers of an app started, by function. ``app`` is an id, or a name: then of
    all apps that have it, for each run of a script is an app. ``since`` (unix time) leaves out what was before."""

    app: str
    environment: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class StageStats:
    """Percentiles of a stage over the starts that had it, in seconds. "total" is all of them together."""

    name: str
    count: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class FunctionStarts:
    """The last starts of a function. ``how`` counts them by how they came to be; ``failed`` never became ready.

    ``slowest`` is the longest of them, in seconds, of the container ``slowest_id``, and ``remedies`` what would have
    made it shorter.
    """

    function: str
    function_id: str
    starts: int = 0
    failed: int = 0
    how: Dict[str, int] = field(default_factory=dict)
    stages: Tuple[StageStats, ...] = ()
    slowest: float = 0.0
    slowest_id: str = ""
    remedies: Tuple[str, ...] = ()


@dataclass(frozen=True)
class AppStarts:
    """``app_id`` is that of the newest of ``apps`` apps."""

    app_id: str
    app: str
    apps: int = 1
    functions: Tuple[FunctionStarts, ...] = ()
