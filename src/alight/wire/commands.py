"""What the server and a node say to each other, and a node and the runtime inside a container.

A node dials the server, opens one stream with the method ``node.session`` (args: NodeHello), and both sides send
``Command`` or ``Report`` messages on it, one JSON head each with its ``kind``; bodies are user bytes. Inputs on their
way to a container and values on their way back come as ``chunk.Inputs`` and ``chunk.Outputs`` instead. File work
(build, volumes) comes as streams that the server opens to the node: methods ``node.build`` (args: BuildImage ⇉
AppEvent …, last ImageBuilt) and ``node.volume`` (args: VolumeWork, bodies as in stored.VolumePath).

Nothing is lost between the two: a node keeps each frame of outputs (named by container and ``serial``) until the server
acknowledges it (``ack``), and after a reconnect says what it holds; the server answers from its store.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from alight.wire.calling import Payload
from alight.wire.failure import Failure
from alight.wire.record import dataclass, field
from alight.wire.snapshots import SnapshotAsked, VolumeVersion
from alight.wire.spec import FunctionSpec, ImageSpec
from alight.wire.stored import VolumePath

# --------------------------------------------------------------------------------------------- node → server


@dataclass(frozen=True)
class GpuInfo:
    """One GPU of a node, or one MIG instance. ``memory`` in MiB. ``uuid`` is what is handed out; a fake one says so in
    its name."""

    index: int
    name: str
    type: str  # the short name scripts use: "A100-40GB"
    memory: int
    uuid: str
    fake: bool = False
    fault: str = ""  # why it is out of service; "" while it is not
    mig: str = ""  # profile of a MIG instance ("3g.20gb"), whose GPU is ``parent``, with ``parent_memory``
    parent: str = ""
    parent_memory: int = 0
    links: Dict[str, int] = field(default_factory=dict)  # by uuid: how well it is linked; numbers that only compare
    driver: str = ""  # its version


@dataclass(frozen=True)
class GpuUse:
    """What one GPU does at this moment. None: its driver does not say. ``utilization`` from 0 to 1, ``memory`` in
    bytes, ``power`` in watts, ``temperature`` in degrees Celsius, ``joules`` since the driver was loaded. ``health``
    is "" for one that is well."""

    uuid: str
    utilization: Optional[float] = None
    memory: Optional[float] = None
    power: Optional[float] = None
    temperature: Optional[float] = None
    joules: Optional[float] = None
    health: str = ""


@dataclass(frozen=True)
class Run:
    """Inputs ``start`` to ``stop`` (exclusive) of a call, given to a container at one attempt."""

    call_id: str
    start: int
    stop: int
    attempt: int = 1


@dataclass(frozen=True)
class HeldContainer:
    """A container that the node still has: running, or ended and not yet reported."""

    container_id: str
    function_id: str
    app_id: str
    ready: bool
    runs: Tuple[Run, ...] = ()  # given and not yet answered
    answered: Tuple[Run, ...] = ()  # the answers have not been acknowledged: they follow
    gpus: Tuple[str, ...] = ()  # as it was started with
    memory: int = 0


@dataclass(frozen=True)
class NodeHello:
    """Who the node is and what it holds.

    Sent at each (re)connect; unacknowledged outputs and ends follow as reports.
    """

    node_id: str
    hostname: str
    version: str
    engine: str
    cpus: float
    memory: int  # MiB that containers may have together
    gpus: Tuple[GpuInfo, ...] = ()
    containers: Tuple[HeldContainer, ...] = ()
    architecture: str = ""
    gateway: bool = False  # whether its containers reach the web gateway by the name ``urls.INSIDE``


@dataclass(frozen=True)
class Output:
    """The end of one attempt that is no plain value (those come as ``chunk.Outputs``). Body: the pickled exception.

    ``serial`` counts with the chunks of its container; 0: the node answered for the runtime. A generator that ended
    well has status success and the number of its ``items``.
    """

    call_id: str
    position: int
    attempt: int
    status: str
    container: str = ""
    serial: int = 0
    payload: Payload = field(default_factory=Payload)
    failure: Optional[Failure] = None
    error: Optional[Dict[str, Any]] = None
    log_offset: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0
    items: int = 0


@dataclass(frozen=True)
class Report:
    """node → server. ``kind``:

    ready: container can take inputs. ended: container is gone (``exit_code``, ``signal``, ``oom_killed``, ``text``,
    and ``error`` when it never became ready). output: ``output`` (+ body). log: body = records of ``container`` from
    ``offset`` (as in the node's output file). waiting: so many inputs of ``container`` (``count``) wait for other
    calls; while all of its inputs do, its CPU is free. started: ``start``, once its first input came or it ended.
    returned: ``runs`` were given to ``container`` and will not run
    there (a recall, or a container that stops). usage: ``usage`` of ``container``, with ``final`` before its end.
    machine: ``usage`` of the machine itself, and ``gpus``. committed: ``volume`` has a new version.
    gpus: ``found`` are all of the machine's, one of which went out of service or is back. note: ``text`` for whoever
    looks after ``container``.
    """

    kind: str
    container: str = ""
    output: Optional[Output] = None
    offset: int = 0
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    oom_killed: bool = False
    text: str = ""
    error: Optional[Dict[str, Any]] = None
    count: int = 0
    runs: Tuple[Run, ...] = ()
    usage: Dict[str, float] = field(default_factory=dict)
    failure: Optional[Failure] = None  # ended before ready: what importing the user's code raised (body: pickled)
    interrupted: bool = False  # by a process of the machine that ended; matters before it was ready
    # started: where the start of ``container`` went. ``how`` ("plain", "forked", "parked"), ``level`` of the
    # template (0: none), ``stages`` (name to seconds), ``imports`` (slow modules, [name, seconds]), ``refused`` (why
    # no template, sentences).
    start: Dict[str, Any] = field(default_factory=dict)
    volume: Optional[VolumeVersion] = None
    gpus: Tuple[GpuUse, ...] = ()
    found: Tuple[GpuInfo, ...] = ()


# --------------------------------------------------------------------------------------------- server → node


@dataclass(frozen=True)
class Cluster:
    """Which of the containers that work on inputs together one is. ``container_ids`` and ``addresses`` (IPv4) are by
    rank; the addresses are the node's to fill in, and ``device`` is the network device that they belong to inside."""

    cluster_id: str
    rank: int
    container_ids: Tuple[str, ...] = ()
    addresses: Tuple[str, ...] = ()
    device: str = ""


@dataclass(frozen=True)
class StartContainer:
    """Everything a container needs. Secrets are values here, over the node's authenticated connection, and go no
    further than the container's link."""

    container_id: str
    app_id: str
    app_name: str
    environment: str
    function_id: str
    function: FunctionSpec
    image_id: str
    gpus: Tuple[str, ...] = ()  # uuids
    memory: int = 0  # MiB reserved
    secrets: Dict[str, str] = field(default_factory=dict)
    owner: str = ""
    bucket_secrets: Dict[str, Dict[str, str]] = field(default_factory=dict)  # by id; never seen in the container
    cluster: Optional[Cluster] = None


@dataclass(frozen=True)
class Command:
    """server → node. ``kind``:

    start: ``start``. cancel: input ``position`` of ``call_id`` in ``container``, -1 = all of that call. recall: have
    ``container`` return what it has not begun. stop: end ``container`` within ``grace`` seconds (0: at once); what it
    has not begun is returned first. template: containers like ``start``, whose id is empty, may come: have a
    template of it, when there is time. watch: whether anybody watches ``app_id``'s output (``on``). ack: the output
    frames ``serials`` of ``container`` are committed, and the node's own answers ``answered``; ``container`` +
    ``offset``: its log is kept up to there; ``ended``: the end of ``container`` is recorded. unkept:
    its log found no room: send again what is not acknowledged. measure: somebody looks:
    say every second, for ``grace`` seconds from now, what everything uses. gpu: ``gpu`` was looked at and is in service
    again. shutdown: end all
    containers, the spawner and the agent itself.
    """

    kind: str
    container: str = ""
    start: Optional[StartContainer] = None
    call_id: str = ""
    position: int = -1
    serials: Tuple[int, ...] = ()
    answered: Tuple[Run, ...] = ()
    grace: float = 30.0
    app_id: str = ""
    on: bool = False
    offset: int = 0
    ended: bool = False
    reason: str = ""
    gpu: str = ""


@dataclass(frozen=True)
class BuildImage:
    """args of ``node.build``. The stream brings AppEvent(kind="build") messages, then one ImageBuilt, or an ERROR."""

    image_id: str
    image: ImageSpec
    python_version: str = ""
    secrets: Dict[str, Dict[str, str]] = field(default_factory=dict)
    force: bool = False
    only_cached: bool = False  # answer ImageBuilt(image_id="") at once when something would have to be built


@dataclass(frozen=True)
class ImageBuilt:
    image_id: str
    built: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class VolumeWork:
    """args of ``node.volume``:

    ``verb`` is files, read, write, remove, copy, sync (commit) → VolumeVersion, create (``size``: its limit in bytes)
    or delete (the whole volume), measure; snapshot, snapshots, diff, restore and unsnapshot, with ``snapshot``.
    """

    verb: str
    at: VolumePath
    snapshot: Optional[SnapshotAsked] = None
    size: int = 0


@dataclass(frozen=True)
class Dial:
    """args of ``node.dial``, and the one JSON line that is said on ``run/dial.sock``: a connection to a container.

    ``port`` is one of the container's loopback; 0: the socket on which its runtime takes web requests. On the stream
    the node says one empty message when it is connected; raw bytes follow as bodies both ways, each until its END. The
    socket answers with one byte and the connected descriptor, or with a line of JSON that says what went wrong
    (``errors.to_wire``).
    """

    container: str
    port: int = 0


# --------------------------------------------------------------------------------------------- node ↔ runtime (the
# link)


@dataclass(frozen=True)
class LinkHello:
    """runtime → node, the first frame on link.sock (kind HELLO).

    Sent again after the node was restarted: ``running`` (given, begun or not, and not answered) goes on; output frames
    that were not acknowledged follow.
    """

    wire: int
    version: str
    pid: int
    python: str
    running: Tuple[Run, ...] = ()
    ready: bool = False


@dataclass(frozen=True)
class LinkStart:
    """node → runtime: what this container is for.

    ``env`` holds env and secrets already merged, in the order that wins. Body: for a serialized function, the bytes of
    the blob ``function.serialized`` (payload.dumps of the function); else empty.
    """

    container_id: str
    app_id: str
    app_name: str
    environment: str
    function_id: str
    image_id: str
    function: FunctionSpec
    env: Dict[str, str] = field(default_factory=dict)
    spool: str = ""  # directory shared with the node for payloads over MAX_INLINE
    # To a template: what it is to bring up before it is forked (1: the runtime, 2: the user's module and snap hooks,
    # too). To a fork: what its template has brought up.
    template: int = 0
    cluster: Optional[Cluster] = None


# LINK_INPUT: ``chunk.Inputs``; a reference names a file in the spool directory. LINK_OUTPUT: ``chunk.Outputs`` (a
# reference as well), or an ``Output`` in JSON; kept by the runtime until LINK_ACK names its serial.


@dataclass(frozen=True)
class LinkReady:
    """runtime → node: ready, or (with ``failure`` or ``error``) importing the user's code failed; body:

    the pickled exception.
    """

    failure: Optional[Failure] = None
    error: Optional[Dict[str, Any]] = None
    stages: Dict[str, float] = field(default_factory=dict)  # seconds: "import", "enter"
    imports: Tuple[Tuple[str, float], ...] = ()  # modules that took long, inclusive, slowest first
    refused: Tuple[str, ...] = ()  # a template: what was found that must not be forked, as sentences


@dataclass(frozen=True)
class LinkStop:
    """node → runtime: LINK_STOP with ``grace``; LINK_CANCEL with ``call_id`` and ``position`` (-1 = all of the call).

    runtime → node: LINK_WAITING with the ``count`` of inputs whose code waits for other calls.
    """

    grace: float = 30.0
    call_id: str = ""
    position: int = -1
    count: int = 0


@dataclass(frozen=True)
class LinkReturned:
    """runtime → node (LINK_RETURNED): after LINK_RECALL or LINK_STOP, what was given and will not run here."""

    runs: Tuple[Run, ...] = ()
