"""The seam between the agent and whatever runs containers.

The agent says what it wants as a ``ContainerPlan`` and knows nothing about namespaces; a filling (``oci``, ``process``)
does it. One contract test suite runs against every filling. This file must never do I/O.

Everything of one container lies in one directory, ``<home>/node/containers/<id>/``:

    state.json    what happened to it, survives everybody
    output.log    what it printed: records of ``alight.node.output``
    sock/         made by whoever wants sockets in it (the agent), bound into the container by the plan
    upper/        its private writable layer, unless the plan names another place
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from alight.wire import errors

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from alight.node.engine.execs import Exec, ExecPlan

DEFAULT_PIDS = 4096


def rank_name(rank: int) -> str:
    """What a container that works with others is called by them, and by itself."""
    return f"rank-{rank}"


class EngineError(errors.Error):
    """A container could not be started, reached or ended."""

    code = "engine"


@dataclass(frozen=True)
class Bind:
    """A path of the host shown inside. Always nosuid and nodev; the target is made when it is missing."""

    source: str
    target: str
    readonly: bool = True


@dataclass(frozen=True)
class BucketPlan:
    """A bucket shown inside as a directory: what rclone is told of it (``node/buckets.py``)."""

    number: int
    """Among those of its container."""
    target: str
    words: str
    """Which bucket it is, for messages."""
    remote: str
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Holds the keys."""
    hidden: tuple[str, ...] = field(default=(), repr=False)
    """What must stand in no log."""
    read_only: bool = False
    host_network: bool = False
    """Reached from the machine's own network, and not from that which all buckets have."""


@dataclass(frozen=True)
class Limits:
    """What a container may use. ``None`` means: no cap of its own (memory: the machine less a reserve)."""

    cpu_shares: float = 0.125
    """Cores it gets when the machine is full. Soft: an idle machine gives more."""
    cpu_quota: float | None = None
    """Cores it never exceeds."""
    memory_bytes: int | None = None
    """Bytes at which the kernel kills it."""
    pids: int = DEFAULT_PIDS
    shm_bytes: int | None = None
    """Size of /dev/shm. ``None``: half of the memory that it may use."""


@dataclass(frozen=True)
class ContainerPlan:
    """All that an engine needs to start one container."""

    id: str
    layers: tuple[str, ...]
    """Directories of the root filesystem, topmost first. Read-only, shared between containers."""
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str = "/root"
    hostname: str = "alight"
    binds: tuple[Bind, ...] = ()
    limits: Limits = field(default_factory=Limits)
    network: Literal["full", "none"] = "full"
    devices: tuple[str, ...] = ()
    """Device nodes of the host (GPUs) that it may use, under the same path."""
    upper: str | None = None
    """Where its writes go. ``None``: a directory that ``remove`` deletes. A path is kept, and free to be moved as soon
    as ``wait`` returned; it holds overlayfs whiteouts, and is not synced to the disk."""
    readonly: bool = False
    owner: str = ""
    """Whose it is. Containers of different owners have different ranges of user ids, and share no template."""
    users: Literal["mapped", "host"] = "mapped"
    """``mapped``: ids in the container are others on the host, where the machine can do that. ``host``: they are the
    same, for what is kept of ``upper``."""
    buckets: tuple[BucketPlan, ...] = ()
    own_layers: tuple[str, ...] = ()
    """Directories on top of ``layers`` whose files have the container's ids on disk already."""


@dataclass(frozen=True)
class ContainerState:
    """What is known of a container. Exactly one of ``exit_code`` and ``signal`` is set once it ended."""

    id: str
    status: Literal["running", "exited"]
    pid: int | None
    """Its first process, as the host numbers it."""
    started_at: float
    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    """Something in it was killed for memory, and it ended badly."""
    ended_at: float | None = None
    error: str | None = None
    """Why it ended when that was not its own doing, for example because its parent process was killed."""
    how: str = "plain"
    """How it came to be: ``plain``, ``forked`` (from a template, into a shell made for it) or ``parked`` (a fork
    waited)."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the engine spent on ``mounts``, ``network`` and ``exec`` or ``fork``."""

    def to_plain(self) -> dict[str, Any]:
        """The JSON form, as kept in ``state.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ContainerState:
        """The state in a JSON form. Keys of a newer version are ignored."""
        known = {one.name for one in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in plain.items() if key in known})


@dataclass(frozen=True)
class Stats:
    """What a container uses now; its last reading once it ended. An engine that cannot know says 0."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    pids: int = 0
    disk_read_bytes: int = 0
    disk_write_bytes: int = 0
    net_rx_bytes: int = 0
    net_tx_bytes: int = 0


class Engine(Protocol):
    """Starts containers and keeps every exit code and line of output, whatever happens to who asked.

    Every method may raise ``EngineError``. Methods are called from one event loop; containers outlive it.
    """

    name: str
    isolates: bool
    """Whether a container has files, processes and a network of its own. If not, plans carry paths of the host."""

    def directory(self, container_id: str) -> Path:
        """Where this container's files lie. Exists from ``start`` (or ``prepare``) to ``remove``."""
        ...

    def prepare(self, container_id: str) -> Path:
        """Make that directory before ``start``, for what the plan binds from it (sockets)."""
        ...

    async def open(self) -> None:
        """Find or start what runs containers, and adopt those that run. What is half gone is cleaned up here."""
        ...

    async def start(self, plan: ContainerPlan) -> ContainerState:
        """Start a container. It may have ended by the time this returns. On an error nothing is left of it."""
        ...

    async def signal(self, container_id: str, signum: int, *, everyone: bool = False) -> None:
        """Send a signal to the first process, or to all. Nothing happens to one that ended.

        As pid 1 the first process ignores what it has no handler for, but SIGKILL.
        """
        ...

    async def kill(self, container_id: str) -> None:
        """End everything in it; returns when it is dead. Nothing happens to one that ended."""
        ...

    async def wait(self, container_id: str) -> ContainerState:
        """The state after it ended, at once if it has. Its output is complete by then."""
        ...

    async def drain(self, container_id: str) -> int:
        """Move what it printed until now to ``output.log``; the size of that file after it."""
        ...

    def is_drained(self, container_id: str) -> bool:
        """Whether all that left its pipes is in ``output.log``. False where asking costs as much as ``drain``."""
        ...

    async def remove(self, container_id: str) -> None:
        """Forget a container and delete its directory, ``output.log`` too. Kills it when it runs; idempotent."""
        ...

    async def list(self) -> Sequence[ContainerState]:
        """All that were started and not removed, running or not."""
        ...

    async def stats(self, container_id: str) -> Stats:
        """What it uses."""
        ...

    async def inside(self, container_id: str) -> set[int]:
        """The host's numbers of the processes in it: who may speak on its sockets (SO_PEERCRED)."""
        ...

    async def exec(self, container_id: str, plan: ExecPlan) -> Exec:
        """Run another program in a running container. Raises ``ProgramError`` when it cannot be started there."""
        ...

    async def dns_sockets(self, container_id: str) -> tuple[socket.socket, socket.socket] | None:
        """The UDP socket and the TCP listener at 127.0.0.53:53 in its network; None where it needs none.

        The caller owns and closes them; the spawner keeps its own, so that another agent can ask again.
        """
        ...

    async def netns_socket(self, container_id: str, family: int, kind: int) -> socket.socket:
        """A new socket in its network, which reaches its 127.0.0.1. The caller closes it."""
        ...

    async def connect(self, gang: str, container_ids: Sequence[str]) -> tuple[str, ...]:
        """Let running containers reach each other on any port, until ``disconnect``; their addresses in that order.

        They find each other by the names "rank-0", "rank-1" … as well.
        """
        ...

    async def disconnect(self, gang: str) -> None:
        """Take back what ``connect`` did, for those that are left. Nothing happens to a gang that nobody knows."""
        ...

    async def close(self) -> None:
        """Let go. Containers run on and the next ``open`` finds them."""
        ...

    async def shutdown(self) -> None:
        """End all containers and what runs them; nothing is left but the directories of those that ended."""
        ...
