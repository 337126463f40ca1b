"""From a plan to what an OCI runtime reads. Pure: no files, no clock; the machine's facts come as an argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alight.node import mounts, users
from alight.node.engine import seccomp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alight.node.engine.base import ContainerPlan, Limits

# What Docker gives, but MKNOD: making devices is no business of a function.
CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PERIOD = 100_000
_NOFILE = 1 << 20


@dataclass(frozen=True)
class Machine:
    """What the configuration depends on beyond the plan."""

    memory_bytes: int
    reserve_bytes: int
    nofile: int
    """The hard limit of open files that the spawner may hand on."""
    memlock: int
    caps_swap: bool
    mounts_cgroup: bool
    """Whether the container sees its own control group (one mount; version 1 would take ten)."""


@dataclass(frozen=True)
class Place:
    """Where a container is put."""

    directory: str
    """Holds ``netns``, and ``userns`` where it has one."""
    group: str
    root: str
    etc: str
    """The directory of ``hostname``, ``hosts`` and ``resolv.conf``."""
    sources: tuple[str, ...] = ()
    """Where the source of each of the plan's binds is."""
    devices: tuple[tuple[str, int, int], ...] = ()
    """Kind (``c`` or ``b``), major and minor number of each device of the plan."""
    base: int = 0
    """The first id of its user namespace on the host. 0: it has none of its own."""


def config(plan: ContainerPlan, place: Place, machine: Machine) -> dict[str, Any]:
    """The bundle's ``config.json``."""
    linux: dict[str, Any] = {
        "cgroupsPath": place.group,
        "namespaces": [
            *({"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")),
            {"type": "network", "path": f"{place.directory}/netns"},
        ],
        "resources": _resources(plan, place, machine),
        "devices": [],
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READONLY),
    }
    if place.base:
        # By path, because its network belongs to it; runc wants to read the maps here, too.
        linux["namespaces"].append({"type": "user", "path": f"{place.directory}/userns"})
        ids = [{"containerID": 0, "hostID": place.base, "size": users.SIZE}]
        linux |= {"uidMappings": ids, "gidMappings": ids}
    profile = seccomp.profile()
    if profile is not None:
        linux["seccomp"] = profile
    return {
        "ociVersion": "1.0.2",
        "process": process(plan.argv, plan.env, plan.cwd, machine),
        "root": {"path": place.root, "readonly": plan.readonly},
        "hostname": plan.hostname,
        "mounts": _mounts(plan, place, machine),
        "linux": linux,
    }


def memory_cap(limits: Limits, machine: Machine) -> int:
    """Bytes at which the container is killed: its own limit, or the machine less a reserve."""
    most = max(machine.memory_bytes - machine.reserve_bytes, machine.memory_bytes // 2)
    return min(limits.memory_bytes or most, most)


def process(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    machine: Machine,
    *,
    terminal: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The first program of a container, or a later one that joins it: what it may do. ``terminal`` in rows and
    columns."""
    size = {} if terminal is None else {"consoleSize": {"height": terminal[0], "width": terminal[1]}}
    return {
        "terminal": terminal is not None,
        **size,
        "user": {"uid": 0, "gid": 0},
        "args": list(argv),
        "env": [f"{key}={value}" for key, value in env.items()],
        "cwd": cwd,
        "noNewPrivileges": True,
        "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
        "rlimits": [
            # Soft is hard: raised as far as it goes without CAP_SYS_RESOURCE.
            {"type": "RLIMIT_NOFILE", "hard": min(machine.nofile, _NOFILE), "soft": min(machine.nofile, _NOFILE)},
            {"type": "RLIMIT_MEMLOCK", "hard": machine.memlock, "soft": machine.memlock},
        ],
        # When the machine runs out of memory a container goes before the node does.
        "oomScoreAdj": 300,
    }


def _mounts(plan: ContainerPlan, place: Place, machine: Machine) -> list[dict[str, Any]]:
    quiet = ["nosuid", "noexec", "nodev"]
    shm = plan.limits.shm_bytes or memory_cap(plan.limits, machine) // 2
    found = [
        _mount("/proc", "proc", quiet),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        _mount("/dev/shm", "tmpfs", ["nosuid", "nodev", "mode=1777", f"size={shm}"]),
        _mount("/dev/mqueue", "mqueue", quiet),
        _mount("/sys", "sysfs", [*quiet, "ro"]),
    ]
    if machine.mounts_cgroup:
        found.append(_mount("/sys/fs/cgroup", "cgroup", [*quiet, "relatime", "ro"]))
    found += [
        _bind(f"{place.etc}/{name}", f"/etc/{name}", readonly=False) for name in ("hostname", "hosts", "resolv.conf")
    ]
    binds = zip(place.sources, plan.binds, strict=True)
    found += [_bind(source, one.target, readonly=one.readonly) for source, one in binds]
    found += [_device(path, place.base) for path in plan.devices]
    return found


def _mount(target: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": options}


def _bind(source: str, target: str, *, readonly: bool) -> dict[str, Any]:
    options = ["rbind", "rprivate", "nosuid", "nodev", "ro" if readonly else "rw"]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _device(path: str, base: int) -> dict[str, Any]:
    # Bound and not made: a user namespace may make none, and the host's node has the right numbers.
    source = mounts.shared_place(path, base) if base else path
    return {"destination": path, "type": "bind", "source": source, "options": ["bind", "rprivate", "nosuid", "noexec"]}


def _resources(plan: ContainerPlan, place: Place, machine: Machine) -> dict[str, Any]:
    limits = plan.limits
    cpu: dict[str, int] = {"shares": max(2, int(limits.cpu_shares * 1024))}
    if limits.cpu_quota is not None:
        cpu |= {"period": _PERIOD, "quota": max(1000, int(limits.cpu_quota * _PERIOD))}
    cap = memory_cap(limits, machine)
    memory = {"limit": cap} | ({"swap": cap} if machine.caps_swap else {})
    allowed = [
        {"allow": True, "access": "rw", "type": kind, "major": major, "minor": minor}
        for kind, major, minor in place.devices
    ]
    return {
        "cpu": cpu,
        "memory": memory,
        "pids": {"limit": limits.pids},
        "devices": [{"allow": False, "access": "rwm"}, *allowed],
    }
