"""What a user declared, as plain data: images, files, functions, apps.

The SDK writes these, the server keeps them, the node acts on them. Every field has a default or is named by position in
the docstring of its class; new fields need a default, so that yesterday's spec can still be read.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple

from alight.wire.codec import to_plain
from alight.wire.record import dataclass, field

# ---------------------------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class FileEntry:
    """One file of a tree. ``path`` is relative, '/'-separated, without '..'; ``digest`` is sha256 of the content.

    A symbolic link has ``link`` (its target, as it is) and no digest; an empty directory has ``directory``.
    """

    path: str
    mode: int = 0o644
    size: int = 0
    digest: str = ""
    link: Optional[str] = None
    directory: bool = False


def encode_tree(entries: List[FileEntry]) -> bytes:
    """The manifest of a tree: canonical JSON, sorted by path. Its sha256 is the tree's digest; it is kept as a blob."""
    rows = [to_plain(entry) for entry in sorted(entries, key=lambda entry: entry.path)]
    return json.dumps(rows, separators=(",", ":"), sort_keys=True).encode()


def digest_of(content: bytes) -> str:
    """sha256 in hex: the name of every blob, tree, image and layer."""
    import hashlib  # noqa: PLC0415  loads a cryptographic library: for those who upload, not for a container

    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class FilesAt:
    """A tree laid at an absolute path of the container.

    A file at ``path`` itself is a tree of one entry with ``path`` its parent.
    """

    tree: str
    path: str


# ---------------------------------------------------------------------------------------------------------- images


@dataclass(frozen=True)
class ImageSpec:
    """How to make an image: steps in order, each a dict with "op" and what the op needs.

    Ops: debian_slim {python}, pip_install {tool: pip|uv, packages, requirements: [{name, text}], find_links, index_url,
    extra_index_url, pre, extra_options}, apt_install {packages}, run {command}, env {vars}, workdir {path},
    copy {tree, to}, entrypoint/cmd/shell {args}, uv_sync {groups, extras, frozen, extra_options}, poetry_install {with,
    without, only, version, locked}, pip_private {packages, git_user}, micromamba {python}, micromamba_install
    {packages, channels, name}, dockerfile and from_dockerfile {build_args}, run_function {name, code}.
    Any may carry force, ignore (made anew for one run), env (while building), secrets (ids), gpu, context (a tree that
    the step sees and that decides what it makes), lent (a tree that decides nothing) and needs {volumes: [id, path,
    read only, sub path], cpu, memory, timeout}.
    """

    steps: Tuple[Dict[str, Any], ...] = ()

    @property
    def digest(self) -> str:
        """Names the recipe; what the network serves on the day of the build is not in it."""
        return digest_of(json.dumps(list(self.steps), separators=(",", ":"), sort_keys=True).encode())


# ---------------------------------------------------------------------------------------------------------- functions


@dataclass(frozen=True)
class Resources:
    """What a container needs.

    ``cpu`` cores (soft share) and ``memory`` MiB (reserved); limits are hard; None = Alight's default.
    """

    cpu: Optional[float] = None
    cpu_limit: Optional[float] = None
    memory: Optional[int] = None
    memory_limit: Optional[int] = None
    gpus: Tuple[str, ...] = ()  # in order of preference, "TYPE[:count]"; empty = none
    ephemeral_disk: Optional[int] = None


@dataclass(frozen=True)
class VolumeMount:
    """A volume at an absolute path of the container."""

    path: str
    volume_id: str
    read_only: bool = False
    sub_path: Optional[str] = None


@dataclass(frozen=True)
class BucketMount:
    """A bucket of an object store at an absolute path of the container.

    ``endpoint`` is a URL, "" for AWS. ``key_prefix`` is "" or ends with "/". ``secret_id`` holds the keys, "" for a
    bucket that is public.
    """

    path: str
    bucket: str
    endpoint: str = ""
    key_prefix: str = ""
    secret_id: str = ""
    read_only: bool = False
    requester_pays: bool = False
    force_path_style: bool = False


@dataclass(frozen=True)
class Autoscaling:
    """How many containers. Seconds; None = Alight's default."""

    min_containers: int = 0
    max_containers: Optional[int] = None
    buffer_containers: int = 0
    scaledown_window: Optional[float] = None
    max_concurrent_inputs: int = 1
    target_concurrent_inputs: Optional[int] = None  # what scaling aims at; None = the most
    single_use: bool = False
    batch_size: int = 0  # most inputs in one run of the function; 0 = it is not batched
    batch_wait: float = 0.0  # seconds that a batch waits for company
    scaleup_window: float = 0.0  # of web requests: seconds for which containers have to be too few before more start


@dataclass(frozen=True)
class RetryPolicy:
    """Seconds. ``max_retries`` counts the attempts after the first."""

    max_retries: int = 0
    backoff_coefficient: float = 1.0
    initial_delay: float = 1.0
    max_delay: float = 60.0


@dataclass(frozen=True)
class MethodSpec:
    """One method of a class, as handles elsewhere need it."""

    name: str
    is_generator: bool = False
    is_web: bool = False


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a class's constructor. ``type`` is str, int, bytes or bool."""

    name: str
    type: str = "str"
    required: bool = True


@dataclass(frozen=True)
class FunctionSpec:
    """One function: where its code is, what it needs, how it runs.

    ``definition`` is "file" (import ``source_path``, a path in the container, under the name ``module``), "module"
    (import ``module`` by name) or "serialized" (unpickle the blob ``serialized``).
    """

    name: str
    definition: str = "file"
    module: str = ""
    qualname: str = ""
    source_path: str = ""
    serialized: str = ""
    python_version: str = ""  # minor, "3.11": the client's, which must match for serialized functions
    image: ImageSpec = field(default_factory=ImageSpec)
    files: Tuple[FilesAt, ...] = ()
    resources: Resources = field(default_factory=Resources)
    secrets: Tuple[str, ...] = ()  # ids, later ones win
    env: Dict[str, str] = field(default_factory=dict)  # wins over secrets
    volumes: Tuple[VolumeMount, ...] = ()
    buckets: Tuple[BucketMount, ...] = ()
    timeout: float = 300.0
    startup_timeout: Optional[float] = None  # None = timeout
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    autoscaling: Autoscaling = field(default_factory=Autoscaling)
    is_generator: bool = False
    is_async: bool = False
    is_web: bool = False  # it answers requests of the world, not calls
    # Of a web function (of a class: by method's name): "kind" (asgi_app, wsgi_app, fastapi_endpoint, web_server),
    # "label", "custom_domains", "requires_proxy_auth", and what the kind has: "method", "docs", "port",
    # "startup_timeout".
    web: Dict[str, Any] = field(default_factory=dict)
    block_network: bool = False
    restrict_access: bool = False
    enable_memory_snapshot: bool = False
    # A class is one function named "Class.*", whose inputs name their method.
    class_name: str = ""
    methods: Tuple[MethodSpec, ...] = ()
    class_parameters: Tuple[ParameterSpec, ...] = ()
    parameters: str = ""  # of a variant: the constructor's keyword arguments, pickled (wire.payload), in base64
    # When it runs by itself once it is deployed: {"cron": text, "timezone": name} or {"period": {"hours": 6, …}}.
    schedule: Dict[str, Any] = field(default_factory=dict)
    cluster: int = 0  # containers that work on each input together; 0: one alone
    hosted_only: Dict[str, Any] = field(default_factory=dict)  # region, cloud, …: kept to show, without effect


@dataclass(frozen=True)
class AppSpec:
    """What ``app.publish`` sends: the functions of an app."""

    app_id: str
    functions: Tuple[FunctionSpec, ...] = ()
