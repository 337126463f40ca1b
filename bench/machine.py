"""What a figure was measured on: without it a figure says nothing."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path


def describe() -> list[str]:
    """The facts, a line each. Nothing that names the machine or its owner."""
    return [
        f"{dt.datetime.now(dt.timezone.utc):%Y-%m-%d}, Alight {version()}, Python {platform.python_version()}",
        f"{processor()}, {os.cpu_count()} cores, {memory_gib():.0f} GiB of memory, {platform.machine()}",
        f"{system()}, kernel {platform.release().partition('-')[0]}, cgroups {cgroups()}, {runtime()}",
        f"state directory on {filesystem('/var/tmp')}; load before the run {os.getloadavg()[0]:.1f}",
    ]


def version() -> str:
    """Alight's, with the commit when this is a checkout."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    from alight.wire.version import __version__

    commit = output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD")
    return f"{__version__} ({commit})" if commit else __version__


def processor() -> str:
    """The processor's name for itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return "a processor that does not say its name"


def memory_gib() -> float:
    """All memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def system() -> str:
    """The distribution."""
    try:
        words = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    except OSError:
        return platform.system()
    return words.get("PRETTY_NAME", platform.system()).strip('"')


def cgroups() -> str:
    """Which hierarchy holds the limits."""
    kind = output("stat", "-fc", "%T", "/sys/fs/cgroup")
    if kind == "cgroup2fs":
        return "v2"
    return "v1 and v2 (hybrid)" if Path("/sys/fs/cgroup/unified").exists() else "v1"


def runtime() -> str:
    """The OCI runtime that a container gets when nothing is set."""
    for name in ("runc", "crun"):
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found:
            return output(found, "--version").splitlines()[0].replace(" version", "")
    return "no OCI runtime"


def filesystem(path: str) -> str:
    """The kind of file system that holds a path, by the mount table: the longest mount point wins."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(point, kind) for point, kind in mounts if f"{path}/".startswith(f"{point.rstrip('/')}/")]
    return max(above, key=lambda one: len(one[0]))[1] if above else "an unknown file system"


def output(*command: str) -> str:
    """What a command prints, or nothing when it cannot run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
