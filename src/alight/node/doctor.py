"""What this machine can do and what it cannot: facts with a sentence each, and the command that would help.

Looks only. Whatever is changed is changed by whoever runs the commands, after having seen them. Commands are for Debian
and its children; elsewhere the sentence says what is needed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alight.builder import HostConfig
from alight.node import cgroups, machine
from alight.node.gpus import NvmlGpus, cdi, trouble
from alight.node.gpus.nvml import answer
from alight.wire.commands import GpuInfo

OK = "ok"
WARNING = "warning"
MISSING = "missing"

_GIB = 1 << 30
_NETWORK_SECONDS = 3.0


@dataclass(frozen=True)
class Check:
    """One finding. ``level``: "ok", "warning" (works, could be better), "missing" (containers won't run without it).

    ``fix`` are shell commands, in order; empty when there is nothing to run.
    """

    name: str
    level: str
    sentence: str
    fix: tuple[str, ...] = ()


def examine(home: Path) -> list[Check]:
    """All checks for a node with its state in ``home``, in the order in which a person wants to read them."""
    home = Path(home)
    checks: list[Callable[[], Check]] = [
        _user,
        _kernel,
        _cgroups,
        lambda: _overlay(home),
        _runtime,
        _nft,
        _mmdebstrap,
        _uv,
        lambda: _image_tools(Path("/")),
        lambda: _buckets(Path("/")),
        _forwarding,
        _firewalls,
        lambda: _disk(home),
        _memory,
        lambda: _templates(home),
        lambda: _gpus(home),
        _dns,
        _index,
    ]
    return [check() for check in checks]


def _user() -> Check:
    if os.geteuid() == 0:
        return Check("user", OK, "root: containers with full isolation")
    return Check(
        "user",
        MISSING,
        "containers need root on this machine: run the node as root once",
        ("sudo alight server install",),
    )


def _kernel() -> Check:
    release = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version >= (5, 11):
        return Check("kernel", OK, f"Linux {release}")
    if version >= (4, 18):
        return Check("kernel", WARNING, f"Linux {release} is old: 5.11 or newer is what Alight is tested on")
    return Check("kernel", MISSING, f"Linux {release} is too old: overlayfs and namespaces need 5.11 or newer")


def _cgroups() -> Check:
    if not Path("/sys/fs/cgroup").is_dir():
        return Check("cgroups", MISSING, "no control groups are mounted at /sys/fs/cgroup")
    if cgroups.is_unified():
        controllers = set(Path("/sys/fs/cgroup/cgroup.controllers").read_text().split())
        lacking = {"cpu", "memory", "pids"} - controllers
        if lacking:
            return Check("cgroups", MISSING, f"cgroup v2 lacks the controllers {', '.join(sorted(lacking))}")
        return Check("cgroups", OK, "cgroup v2")
    lacking = {name for name in ("cpu", "memory", "pids") if not Path("/sys/fs/cgroup", name).is_dir()}
    if lacking:
        return Check("cgroups", MISSING, f"cgroup v1 lacks the controllers {', '.join(sorted(lacking))}")
    return Check("cgroups", OK, "cgroup v1: works, v2 counts memory better")


def _overlay(home: Path) -> Check:
    """A real mount, in a mount namespace that ends with the process that tries."""
    if os.geteuid() != 0:
        return Check("overlayfs", WARNING, "only root can try it")
    place = home
    while not place.exists():
        place = place.parent
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as folder:
        for name in ("lower", "upper", "work", "merged"):
            Path(folder, name).mkdir()
        options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        done = _run("unshare", "-m", "mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/merged")
    if done is None:
        return Check("overlayfs", WARNING, "the program unshare is not here, so it was not tried", _apt("util-linux"))
    if done.returncode == 0:
        return Check("overlayfs", OK, f"works on the file system of {place}")
    return Check(
        "overlayfs",
        MISSING,
        f"cannot be mounted on the file system of {place}: {done.stderr.strip() or 'no reason given'}; "
        "set ALIGHT_HOME to a directory on ext4, xfs or btrfs",
        ("modprobe overlay",) if "unknown filesystem" in done.stderr else (),
    )


def _runtime() -> Check:
    name = "crun" if shutil.which("crun") else "runc"
    return _program(name, "runs containers", ("--version",), _apt("runc"))


def _nft() -> Check:
    check = _program("nft", "guards the containers' network", ("--version",), _apt("nftables"))
    if check.level == OK and os.geteuid() == 0:
        done = _run("nft", "list", "tables")
        if done is not None and done.returncode != 0:
            return Check("nft", MISSING, f"the kernel refuses nftables: {done.stderr.strip()}", ("modprobe nf_tables",))
    return check


def _mmdebstrap() -> Check:
    check = _program("mmdebstrap", "makes the base of images", ("--version",), _apt("mmdebstrap"))
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if check.level == OK and not keyring.exists():
        return Check(
            "mmdebstrap",
            MISSING,
            "Debian's keys are not here, so its packages cannot be verified",
            _apt("debian-archive-keyring"),
        )
    return check


def _uv() -> Check:
    try:
        import uv  # noqa: PLC0415  a dependency that may have been left out

        path = uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
        if found is None:
            return Check("uv", MISSING, "not found: it installs packages into images", ("pip install uv",))
        path = found
    done = _run(path, "--version")
    return Check("uv", OK, (done.stdout.strip() if done is not None else "") or path)


def _image_tools(root: Path) -> Check:
    """What only some images need: Dockerfiles, and images as files."""
    lacking = {
        "buildah": "Dockerfiles cannot be built",
        "mkfs.erofs": "images cannot be exported",
    }
    packages = {"buildah": "buildah", "mkfs.erofs": "erofs-utils"}
    gone = [name for name in lacking if _run(name, "--version") is None]
    said = [f"no {name}: {lacking[name]}" for name in gone]
    if not _knows_erofs(root):
        said.append("no EROFS in the kernel: images cannot be imported")
    if not said:
        return Check("image tools", OK, "Dockerfiles, export and import of images work")
    fix = _apt(*(packages[name] for name in gone)) if gone else ()
    return Check("image tools", WARNING, "; ".join(said), fix)


def _buckets(root: Path) -> Check:
    """What mounting buckets of object stores needs."""
    if _run("rclone", "version") is None:
        return Check("buckets", WARNING, "no rclone: CloudBucketMount cannot be mounted", _apt("rclone"))
    if not (root / "dev/fuse").exists():
        return Check("buckets", WARNING, "no /dev/fuse: CloudBucketMount cannot be mounted", ("modprobe fuse",))
    return Check("buckets", OK, "can be mounted, by rclone")


def _knows_erofs(root: Path) -> bool:
    """Whether the kernel mounts EROFS: built in, loaded, or a module that a mount would load."""
    if any(line.split()[-1:] == ["erofs"] for line in _lines(root / "proc/filesystems")):
        return True
    modules = root / "lib/modules" / os.uname().release
    return any("/erofs.ko" in line for name in ("modules.dep", "modules.builtin") for line in _lines(modules / name))


def _forwarding() -> Check:
    path = Path("/proc/sys/net/ipv4/ip_forward")
    if path.exists() and path.read_text().strip() == "1":
        return Check("ip_forward", OK, "on: containers reach the network")
    return Check(
        "ip_forward",
        WARNING,
        "off: the node switches it on when it starts; to keep it on across reboots, set it for good",
        ("echo net.ipv4.ip_forward=1 > /etc/sysctl.d/90-alight.conf", "sysctl -w net.ipv4.ip_forward=1"),
    )


def _firewalls() -> Check:
    found = [name for name, path in _FIREWALLS if Path(path).exists()]
    if not found:
        return Check("firewall", OK, "no other firewall was found")
    return Check(
        "firewall", OK, f"{' and '.join(found)} runs here: Alight adds marked rules beside it and takes them out again"
    )


_FIREWALLS = (
    ("Docker", "/var/run/docker.sock"),
    ("firewalld", "/run/firewalld"),
    ("ufw", "/run/ufw.lock"),
)


def _disk(home: Path) -> Check:
    place = home
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    free = usage.free / _GIB
    files = os.statvfs(place)
    if files.f_files and files.f_favail < 50_000:
        return Check("disk", WARNING, f"only {files.f_favail} more files fit on the disk of {place}: images need many")
    if free < 2:
        return Check("disk", MISSING, f"{free:.1f} GiB free for {home}: an image needs about one and room to build it")
    if free < 10:
        return Check("disk", WARNING, f"{free:.1f} GiB free for {home}: enough for a few images")
    return Check("disk", OK, f"{free:.0f} GiB free for {home}")


def _memory() -> Check:
    facts = machine.facts()
    gib = facts.memory_mib / 1024
    sentence = f"{gib:.1f} GiB for containers, {facts.cpus:g} cores"
    if gib < 0.5:
        return Check("memory", MISSING, f"{sentence}: too little to run containers")
    return Check("memory", OK if gib >= 2 else WARNING, sentence)


def _templates(home: Path) -> Check:
    """What the node that runs here keeps ready, as it says itself."""
    try:
        said = json.loads((home / "run" / "templates.json").read_text())
        rows, level, possible, limit = said["templates"], said["level"], said["possible"], int(said["limit_bytes"])
        used = sum(int(row["memory_bytes"]) for row in rows)
        waiting = sum(int(row["parked"]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError):
        return Check("templates", OK, "none: no node runs here now")
    if not level:
        return Check("templates", OK, "none: ALIGHT_TEMPLATES is off, and containers start plainly")
    if not possible:
        return Check(
            "templates", WARNING, "containers start plainly: the node's log (log/node.log) says what they lack"
        )
    ready = [row for row in rows if row["ready"]]
    sentence = f"{len(ready)} with {used >> 20} MiB of {limit >> 20} that they may use; {waiting} forks wait"
    largest = max(ready, key=lambda row: row["memory_bytes"], default=None)
    if largest is not None:
        sentence += f"; the largest is {largest['for']} with {largest['memory_bytes'] >> 20} MiB"
    return Check("templates", OK, sentence)


def _kind(gpu: GpuInfo) -> str:
    return f"{gpu.type} MIG {gpu.mig}" if gpu.mig else gpu.type


def _out_of_service(home: Path) -> dict[str, str]:
    """What the node that runs here says of its GPUs: nobody else knows what the driver told it once."""
    try:
        said = json.loads((home / "run" / "gpus.json").read_text())["out"]
        return {str(uuid): str(why) for uuid, why in said.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def _pretended(home: Path) -> list[str]:
    """The types of the GPUs that the node which runs here pretends to have."""
    try:
        return [str(one) for one in json.loads((home / "run" / "gpus.json").read_text())["fake"]]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []


def _counted(kinds: list[str]) -> str:
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


def _gpus(home: Path) -> Check:
    provider = NvmlGpus()
    gpus = provider.gpus()
    broken = "; ".join(f"{uuid} is out of service: {why}" for uuid, why in _out_of_service(home).items())
    if gpus:
        named = _counted([_kind(gpu) for gpu in gpus])
        if gpus[0].driver:
            named += f", driver {gpus[0].driver}"
        if broken:
            return Check("gpus", WARNING, f"{named}; {broken}", ("nvidia-smi -q",))
        if provider.problem():
            return Check("gpus", WARNING, f"{named}; {provider.problem()}")
        missing = [path for path in ("/dev/nvidiactl", "/dev/nvidia-uvm") if not Path(path).exists()]
        if missing and not Path("/dev/dxg").exists():
            return Check("gpus", WARNING, f"{named}, and {missing[0]} is missing", ("nvidia-modprobe -u -c 0",))
        stale = cdi.stale()
        if stale:
            return Check(
                "gpus",
                WARNING,
                f"{named}; the CDI description is of another driver ({stale} is not there), and is not followed",
                ("sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",),
            )
        return Check("gpus", OK, named)
    wrong = trouble.find(answer())
    if wrong.sentence or provider.problem():
        return Check("gpus", WARNING, wrong.sentence or provider.problem(), wrong.fix)
    pretended = _pretended(home)
    if pretended:
        shown = f"pretended: {_counted(pretended)} (the node here was started with --fake-gpus)"
        return Check("gpus", WARNING if broken else OK, f"{shown}; {broken}" if broken else shown)
    return Check("gpus", OK, "none: functions that ask for one need --gpu none, or --fake-gpus to try schedules")


def _dns() -> Check:
    hosts = [host for host in (_index_host(), "deb.debian.org") if host]
    for host in hosts:
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            continue
        return Check("dns", OK, f"{host} resolves")
    servers = [line.split()[1] for line in _lines(Path("/etc/resolv.conf")) if line.startswith("nameserver ")]
    if not servers:
        return Check("dns", WARNING, "/etc/resolv.conf names no server: containers will resolve no names")
    return Check("dns", WARNING, f"names do not resolve by {', '.join(servers)}: builds may not find their packages")


def _index() -> Check:
    """Whether packages can be had, by this machine's own settings."""
    host = HostConfig.read()
    if host.no_index:
        places = ", ".join(host.indexes.find_links) or "nowhere"
        return Check("package index", OK, f"switched off by this machine's settings: packages come from {places}")
    indexes = [host.indexes.index_url] if host.indexes.index_url else []
    where = indexes[0] if indexes else "https://pypi.org/simple/"
    shown = re.sub(r"(?<=://)[^/@]*@", "", where)
    if where.startswith("file:"):
        path = Path(where.removeprefix("file://"))
        level = OK if path.exists() else WARNING
        return Check("package index", level, f"{shown} {'is there' if level == OK else 'is not there'}")
    request = urllib.request.Request(where, method="HEAD")  # noqa: S310  the machine's own index, or PyPI
    try:
        with urllib.request.urlopen(request, timeout=_NETWORK_SECONDS):  # noqa: S310  as above
            return Check("package index", OK, f"{shown} answers")
    except urllib.error.HTTPError as error:
        if error.code < 500:
            return Check("package index", OK, f"{shown} answers")
        return Check("package index", WARNING, f"{shown} answers with an error: {error.code}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Check(
            "package index",
            WARNING,
            f"{shown} does not answer ({reason}): images that install packages need it, or an index in pip's settings",
        )


def _index_host() -> str:
    where = HostConfig.read().indexes.index_url or "https://pypi.org/simple/"
    found = re.match(r"https?://(?:[^/@]*@)?([^/:]+)", where)
    return found[1] if found else ""


def _program(name: str, purpose: str, arguments: tuple[str, ...], fix: tuple[str, ...]) -> Check:
    done = _run(name, *arguments)
    if done is None:
        return Check(name, MISSING, f"not found: it {purpose}", fix)
    if done.returncode != 0:
        return Check(name, MISSING, f"does not run: {done.stderr.strip() or done.returncode}", fix)
    return Check(name, OK, done.stdout.strip().splitlines()[0] if done.stdout.strip() else "is here")


def _apt(*packages: str) -> tuple[str, ...]:
    """The commands that install Debian packages; none where there is no apt."""
    if shutil.which("apt-get") is None:
        return ()
    sudo = "" if os.geteuid() == 0 else "sudo "
    return (f"{sudo}apt-get update", f"{sudo}apt-get install -y {' '.join(packages)}")


def _run(*words: str) -> subprocess.CompletedProcess[str] | None:
    """A program's answer; None when it is not there."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=20, env=environment)
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(words, 1, "", f"no answer within {error.timeout:g} s")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
