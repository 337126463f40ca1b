"""What clients and the server say to each other, save of calls (``calling``): one dataclass a message, by method.

A method is named in the head of an OPEN frame (``Open``). "request → response" below is one message each way;
"request ⇉ X" is a stream of X until the server ends it. Bodies, where a method has one, are named in its comment.
Containers speak the same methods through their node, which stamps ``Open.container``; the server authorises each one.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from alight.wire.record import dataclass, field
from alight.wire.spec import FunctionSpec, ImageSpec, MethodSpec, ParameterSpec
from alight.wire.urls import WebUrl


@dataclass(frozen=True)
class Hello:
    """The first frame, both ways.

    A client adds its token (none over the local socket, where the peer's uid decides).
    """

    wire: int
    version: str
    role: str = "client"  # client | node | container | server
    token_id: str = ""
    token_secret: str = ""
    server_id: str = ""  # from the server: names its state, so that a client notices a different one


@dataclass(frozen=True)
class Open:
    """The head of an OPEN frame. ``container`` is set by nodes alone, and overwritten by them whatever came in."""

    method: str
    args: Dict[str, Any] = field(default_factory=dict)
    container: str = ""


# server.info: {} → ServerInfo


@dataclass(frozen=True)
class NodeSummary:
    """One machine as people see it."""

    node_id: str
    hostname: str
    engine: str
    cpus: float
    memory: int  # MiB
    gpus: Tuple[str, ...] = ()
    fake_gpus: bool = False
    containers: int = 0


@dataclass(frozen=True)
class ServerInfo:
    """What ``alight server status`` shows."""

    server_id: str
    version: str
    pid: int
    started_at: float
    home: str
    address: str
    fingerprint: str = ""
    nodes: Tuple[NodeSummary, ...] = ()


# apps


@dataclass(frozen=True)
class AppCreate:
    """app.create → AppCreated. ``kind`` is an AppState: running, detached or deployed."""

    name: str = ""
    description: str = ""
    environment: str = ""
    kind: str = "running"
    tags: Dict[str, str] = field(default_factory=dict)
    reuse: bool = False  # a lookup: return the app of this name if there is one


@dataclass(frozen=True)
class AppCreated:
    app_id: str
    environment: str


@dataclass(frozen=True)
class AppPublish:
    """app.publish → AppPublished: the app's functions, each new or changed. Idempotent by name.

    ``whole``: it has no others afterwards, and containers of what is different end at once; what they were at begins
    anew. For runs whose source changes while they go on.
    """

    app_id: str
    functions: Tuple[FunctionSpec, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class PublishedFunction:
    """``impossible`` is an error in its wire form: no machine here can ever run this function, and why."""

    name: str
    function_id: str
    impossible: Optional[Dict[str, Any]] = None
    warning: str = ""  # e.g. "asked for A100-40GB, gets RTX 4090 (24 GB … at least as much memory)"
    web: Tuple[WebUrl, ...] = ()  # where it answers requests


@dataclass(frozen=True)
class AppPublished:
    functions: Tuple[PublishedFunction, ...] = ()


@dataclass(frozen=True)
class FunctionLookup:
    """function.lookup → PublishedFunction; NotFoundError names the app's functions. Without ``app_id`` a container
    means its own app.

    Added for functions that call functions from inside containers, where only names are known.
    """

    name: str
    app_id: str = ""


@dataclass(frozen=True)
class AppWatch:
    """app.watch ⇉ AppEvent. Holds an ephemeral app: it is stopped when its holder is gone for two minutes.

    With ``hold=False`` it only listens (``alight app logs -f``). ``since`` (unix seconds) replays kept output first.
    With ``container`` only that one's output comes, and nothing more once it has ended.
    """

    app_id: str
    hold: bool = True
    logs: bool = True
    follow: bool = True
    since: float = 0.0
    tail: int = -1  # last N records only; -1 = all since
    container: str = ""


@dataclass(frozen=True)
class AppEvent:
    """``kind`` says which fields count.

    output: container, fd (1|2), time, offset (of the record's end in the container's log); body = the bytes.
    system: text (a line of Alight's own about this app: waiting, substituted GPU, restarted server …).
    container: container, function, state (ContainerState), text (why it ended).
    build: image_id, text = a log line of a build in progress; state = started|cached|finished|failed.
    stopped: text = why. The last event.
    """

    kind: str
    container: str = ""
    function: str = ""
    fd: int = 0
    time: float = 0.0
    offset: int = 0
    state: str = ""
    text: str = ""
    image_id: str = ""


@dataclass(frozen=True)
class AppStop:
    """app.stop → {}: cancels what waits and runs, ends its containers. Idempotent.

    ``wait``: answer when its containers are gone, or after this many seconds.
    """

    app_id: str
    reason: str = ""
    wait: float = 0.0


@dataclass(frozen=True)
class AppDetach:
    """app.detach → {}: from now on the app lives without a holder."""

    app_id: str


@dataclass(frozen=True)
class AppList:
    """app.list → AppListed, newest first."""

    environment: str = ""
    limit: int = 100
    name_or_id: str = ""  # only this one


@dataclass(frozen=True)
class AppSummary:
    app_id: str
    name: str
    description: str
    state: str
    environment: str
    containers: int
    created_at: float
    stopped_at: Optional[float] = None
    functions: Tuple[str, ...] = ()
    version: int = 0  # of a deployed one
    deployed_at: Optional[float] = None


@dataclass(frozen=True)
class AppListed:
    apps: Tuple[AppSummary, ...] = ()


# images: image.ensure ⇉ AppEvent(kind="build") …, the last message of the stream is ImageReady


@dataclass(frozen=True)
class ImageEnsure:
    app_id: str
    image: ImageSpec
    secrets: Tuple[str, ...] = ()
    python_version: str = ""  # the client's minor, for debian_slim(None)
    name: str = ""  # "name:tag" that it gets in the app's environment once it is built


@dataclass(frozen=True)
class ImageReady:
    image_id: str
    built: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class ImageGet:
    """image.get → ImageRecipe: how an image that the server knows is made. Its id, or "[environment]/name:tag"."""

    image_id: str


@dataclass(frozen=True)
class ImageRecipe:
    image: ImageSpec
    python_version: str = ""


# blobs: content by sha256


@dataclass(frozen=True)
class BlobMissing:
    """blob.missing → BlobMissing: of these digests, those that the server does not hold."""

    digests: Tuple[str, ...] = ()


@dataclass(frozen=True)
class BlobPut:
    """blob.put (a stream of bodies, then END) → BlobPut with the name that it has now.

    With a digest it is kept under that; one that does not fit the bytes is an error and nothing is kept. Without one
    the server makes up a name and reads no byte: values that travel once are not worth a hash. ``file``: the content
    lies in the ``incoming`` folder of blob.place under this name, ``size`` bytes, and nothing follows. ``keep``: the
    answer comes once it is on disk, for what nobody will send again.
    """

    digest: str = ""
    size: int = 0
    file: str = ""
    keep: bool = False


@dataclass(frozen=True)
class BlobPlace:
    """blob.place → BlobPlace: folders for those who may write in the server's state anyway, empty for all others.

    New content may be left in ``incoming``; content that the server named lies in ``given`` under its name.
    """

    incoming: str = ""
    given: str = ""


@dataclass(frozen=True)
class BlobGet:
    """blob.get ⇉ bodies."""

    digest: str


# functions


@dataclass(frozen=True)
class FunctionFind:
    """function.find → FunctionInfo: of a living app by the app's name. For classes ``name`` is "Class.*".

    Deployed apps come before detached and running ones, newer before older. NotFoundError says which apps or
    functions there are.
    """

    app: str
    name: str
    environment: str = ""


@dataclass(frozen=True)
class FunctionInfo:
    """What a handle needs to know of a function that was declared elsewhere."""

    function_id: str
    name: str
    app_id: str
    is_generator: bool = False
    is_web: bool = False
    class_name: str = ""
    methods: Tuple[MethodSpec, ...] = ()
    parameters: Tuple[ParameterSpec, ...] = ()


@dataclass(frozen=True)
class FunctionBind:
    """function.bind → PublishedFunction: a variant of a function with a pool of containers of its own.

    Body: the pickled keyword arguments of a class's constructor, or nothing. ``changes`` are fields of FunctionSpec in
    plain words; ``resources``, ``autoscaling`` and ``env`` are merged field by field, all others replace. The same
    changes and parameters are the same variant, for everybody. Idempotent. Bound to a variant, changes are merged with
    its own.

    ``given`` says of the body, which the server does not read, what it can check: names and types ("int", "str", …).
    """

    function_id: str
    changes: Dict[str, Any] = field(default_factory=dict)
    given: Optional[Dict[str, str]] = None


@dataclass(frozen=True)
class FunctionScale:
    """function.scale → FunctionScaling: settings in force; with ``changes`` (of Autoscaling, by field) set first.

    A change holds until the app is published anew. None as a value: back to what was declared.
    """

    function_id: str
    changes: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FunctionScaling:
    min_containers: int = 0
    max_containers: Optional[int] = None
    buffer_containers: int = 0
    scaledown_window: float = 60.0
    target_concurrent_inputs: Optional[int] = None
    scaleup_window: float = 0.0


@dataclass(frozen=True)
class FunctionStats:
    """function.stats {function_id} → FunctionStats, now. ``headroom``: inputs that could begin at once."""

    backlog: int = 0
    containers: int = 0
    running: int = 0
    headroom: int = 0
