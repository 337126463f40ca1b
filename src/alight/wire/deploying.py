"""What clients and the server say to each other about deployed apps and environments. See ``messages``."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from alight.wire.messages import PublishedFunction
from alight.wire.record import dataclass, field
from alight.wire.spec import FunctionSpec
from alight.wire.urls import WebUrl

ROLLING = "rolling"  # old containers finish what they have begun
RECREATE = "recreate"  # old containers end at once
STRATEGIES = (ROLLING, RECREATE)


@dataclass(frozen=True)
class DeployBegin:
    """deploy.begin → DeployBegun: the deployed app of this name, or a new one that nobody can find yet.

    The new one lives while a client holds it (app.watch), until its first version is published.
    """

    name: str
    environment: str = ""


@dataclass(frozen=True)
class DeployBegun:
    """``version``: of the app that is there; 0 for a new one, and for one of which nothing serves. ``found``: it was
    there before."""

    app_id: str
    environment: str
    version: int = 0
    found: bool = False


@dataclass(frozen=True)
class DeployPublish:
    """deploy.publish → DeployDone: all functions of an app at once, as its next version.

    Answered when the new version serves. ConflictError when the app is not at version ``base`` any more. ``deploy_id``
    is made by the client, which may send the message again after a lost connection. ``tags`` None keeps those there
    are. ``staged``: answered when it has come up; it serves nothing until it is promoted.
    """

    app_id: str
    name: str
    base: int
    deploy_id: str
    functions: Tuple[FunctionSpec, ...] = ()
    tags: Optional[Dict[str, str]] = None
    tag: str = ""
    strategy: str = ROLLING
    commit: str = ""
    dirty: bool = False
    client: str = ""  # its version
    staged: bool = False


@dataclass(frozen=True)
class DeployDone:
    """``changed`` False: nothing was different, and there is no new version. ``gone``: names of functions that are in
    it no more. ``notes``: sentences for people. ``staged``: functions of it have no ids, since nobody can call them."""

    app_id: str
    version: int
    changed: bool = True
    functions: Tuple[PublishedFunction, ...] = ()
    gone: Tuple[str, ...] = ()
    notes: Tuple[str, ...] = ()
    staged: bool = False


@dataclass(frozen=True)
class DeployBack:
    """deploy.rollback → DeployDone: an earlier version again, under a new number. ``version`` 0: the one before.

    deploy.promote → DeployDone: the same with a staged version, which has to be named.
    """

    app: str  # name or id
    environment: str = ""
    version: int = 0
    strategy: str = ROLLING
    client: str = ""
    deploy_id: str = ""


@dataclass(frozen=True)
class DeployOver:
    """deploy.rollover → DeployDone: the same version in fresh containers."""

    app: str
    environment: str = ""
    strategy: str = ROLLING


@dataclass(frozen=True)
class DeployHistory:
    """deploy.history → DeployVersions, newest first. Of a stopped app by its id, or by its name when none lives."""

    app: str
    environment: str = ""
    limit: int = 100


@dataclass(frozen=True)
class DeployVersion:
    """One version. ``kept``: the app can go back to it. ``failed``: why it was taken back. ``staged``: it never served
    under this number."""

    version: int
    deployed_at: float
    deployed_by: str = ""
    tag: str = ""
    commit: str = ""
    dirty: bool = False
    client: str = ""
    strategy: str = ROLLING
    origin: int = 0  # the version that it goes back to
    failed: str = ""
    kept: bool = False
    staged: bool = False


@dataclass(frozen=True)
class DeployVersions:
    """``current``: the version that serves."""

    app_id: str
    name: str
    current: int = 0
    versions: Tuple[DeployVersion, ...] = ()


@dataclass(frozen=True)
class AppFind:
    """app.find → AppDescribed: an app by name (of a deployed one, else of the newest that lives) or id.

    NotFoundError unless ``create_if_missing``, which makes a deployed app without functions.
    """

    app: str
    environment: str = ""
    create_if_missing: bool = False


@dataclass(frozen=True)
class FunctionLine:
    """One function as people see it."""

    name: str
    function_id: str
    methods: Tuple[str, ...] = ()
    is_web: bool = False
    containers: int = 0
    schedule: Dict[str, Any] = field(default_factory=dict)  # as declared, see FunctionSpec
    web: Tuple[WebUrl, ...] = ()  # where it answers requests
    is_server: bool = False  # a class that serves a port, and no function or class with web methods


@dataclass(frozen=True)
class AppDescribed:
    app_id: str
    name: str
    description: str
    environment: str
    state: str
    version: int = 0
    created_at: float = 0.0
    created_by: str = ""
    deployed_at: Optional[float] = None
    deployed_by: str = ""
    stopped_at: Optional[float] = None
    stopped_by: str = ""
    stop_reason: str = ""
    tags: Dict[str, str] = field(default_factory=dict)
    functions: Tuple[FunctionLine, ...] = ()


@dataclass(frozen=True)
class AppTags:
    """app.tags → {}: these tags in place of those there are."""

    app_id: str
    tags: Dict[str, str] = field(default_factory=dict)


# environments


@dataclass(frozen=True)
class EnvironmentSummary:
    name: str
    created_at: float
    owner: str = ""
    apps: int = 0  # that live
    volumes: int = 0
    secrets: int = 0


@dataclass(frozen=True)
class EnvironmentListed:
    """environment.list {} → EnvironmentListed, by name."""

    environments: Tuple[EnvironmentSummary, ...] = ()


@dataclass(frozen=True)
class EnvironmentNamed:
    """environment.create → {}: AlreadyExistsError unless ``allow_existing``.

    environment.delete → {}: stops its apps, forgets its secrets and names of images. NotFoundError; ConflictError
    while it has volumes.
    """

    name: str
    allow_existing: bool = False
