"""What the server and a node say to each other, and a node and the runtime inside a container.

A node dials the server, opens one stream with the method ``node.session`` (args: NodeHello), and both sides send
``Command`` or ``Report`` messages on it, one JSON head each with its ``kind``; bodies are user bytes. File work
(build, volumes) comes as streams that the server opens to the node: methods ``node.build`` (args: BuildImage ⇉
AppEvent …, last ImageBuilt) and ``node.volume`` (args: VolumeWork, bodies as in messages.VolumePath).

Nothing is lost between the two: a node keeps each Output until the server acknowledges it (``ack``), and after a
reconnect says what it holds; the server answers from its store.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from alight.wire.failure import Failure
from alight.wire.messages import Payload, VolumePath
from alight.wire.record import dataclass, field
from alight.wire.spec import FunctionSpec, ImageSpec

# --------------------------------------------------------------------------------------------- node → server


@dataclass(frozen=True)
class GpuInfo:
    """One GPU of a node. ``memory`` in MiB. ``uuid`` is what is handed out; a fake one says so in its name."""

    index: int
    name: str
    type: str  # the short name scripts use: "A100-40GB"
    memory: int
    uuid: str
    fake: bool = False


@dataclass(frozen=True)
class HeldContainer:
    """A container that the node still has: running, or ended and not yet reported."""

    container_id: str
    function_id: str
    app_id: str
    ready: bool
    inputs: Tuple[str, ...] = ()  # given and not yet answered


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


@dataclass(frozen=True)
class Output:
    """The end of one attempt. Body: pickled value or exception, unless ``payload.blob``."""

    input_id: str
    attempt: int
    status: str
    container: str = ""
    payload: Payload = field(default_factory=Payload)
    failure: Optional[Failure] = None
    error: Optional[Dict[str, Any]] = None
    log_offset: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0


@dataclass(frozen=True)
class Report:
    """node → server. ``kind``:

    ready: container can take inputs. ended: container is gone (``exit_code``, ``signal``, ``oom_killed``, ``text``,
    and ``error`` when it never became ready). output: ``output`` (+ body). log: body = records of ``container`` from
    ``offset`` (as in the node's output file). waiting: container's CPU is (``on``) free while it waits for a child.
    usage: ``usage``.
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
    on: bool = False
    usage: Dict[str, float] = field(default_factory=dict)
    failure: Optional[Failure] = None  # ended before ready: what importing the user's code raised (body: pickled)


# --------------------------------------------------------------------------------------------- server → node


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


@dataclass(frozen=True)
class GiveInput:
    """Body: pickled (args, kwargs), unless ``payload.blob``."""

    container: str
    input_id: str
    call_id: str
    attempt: int
    payload: Payload = field(default_factory=Payload)
    method: str = ""
    timeout: float = 300.0


@dataclass(frozen=True)
class Command:
    """server → node. ``kind``:

    start: ``start``. give: ``give`` (+ body). cancel: ``input_id`` in ``container``. stop: end ``container`` within
    ``grace`` seconds (0: at once). watch: whether anybody watches ``app_id``'s output (``on``). ack: outputs of
    ``input_ids`` are committed; ``container`` + ``offset``: its log is kept up to there; ``ended``: the end of
    ``container`` is recorded. shutdown: end all containers, the spawner and the agent itself.
    """

    kind: str
    container: str = ""
    start: Optional[StartContainer] = None
    give: Optional[GiveInput] = None
    input_id: str = ""
    input_ids: Tuple[str, ...] = ()
    grace: float = 30.0
    app_id: str = ""
    on: bool = False
    offset: int = 0
    ended: bool = False
    reason: str = ""


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

    ``verb`` is files, read, write, remove, copy, sync (commit), create or delete (the whole volume).
    """

    verb: str
    at: VolumePath


# --------------------------------------------------------------------------------------------- node ↔ runtime (the
# link)


@dataclass(frozen=True)
class LinkHello:
    """runtime → node, the first frame on link.sock (kind HELLO).

    Sent again after the node was restarted: ``running`` inputs go on.
    """

    wire: int
    version: str
    pid: int
    python: str
    running: Tuple[str, ...] = ()
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


@dataclass(frozen=True)
class LinkInput:
    """node → runtime. Body: pickled (args, kwargs), or in the spool file named ``spool``."""

    input_id: str
    call_id: str
    attempt: int
    method: str = ""
    spool: str = ""


@dataclass(frozen=True)
class LinkOutput:
    """runtime → node. Body:

    pickled value or exception, or in the spool file named ``spool`` (``size`` bytes). Kept until LinkAck.
    """

    input_id: str
    attempt: int
    status: str
    failure: Optional[Failure] = None
    error: Optional[Dict[str, Any]] = None
    spool: str = ""
    size: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0


@dataclass(frozen=True)
class LinkReady:
    """runtime → node: ready, or (with ``failure`` or ``error``) importing the user's code failed; body:

    the pickled exception.
    """

    failure: Optional[Failure] = None
    error: Optional[Dict[str, Any]] = None


@dataclass(frozen=True)
class LinkStop:
    """node → runtime (LINK_STOP), and LINK_CANCEL with ``input_id``, LINK_ACK with ``input_id``, LINK_WAITING with
    ``on``.
    """

    input_id: str = ""
    grace: float = 30.0
    on: bool = False
