"""Control groups, version 1, 2 or both: where a container's are, what they say, how they end.

The OCI runtime makes them; we name them, read them, kill what is in them and remove them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from alight.node.engine.base import Stats

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = "/sys/fs/cgroup"


def is_unified() -> bool:
    """Whether all controllers are in the version 2 tree."""
    return Path(_ROOT, "cgroup.controllers").exists()


@lru_cache(maxsize=1)
def trees() -> tuple[str, ...]:
    """Every mounted hierarchy."""
    if is_unified():
        return (_ROOT,)
    found: list[str] = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, path, kind = line.split(" ")[:3]
        if kind in {"cgroup", "cgroup2"} and path not in found:
            found.append(path)
    return tuple(found)


@contextlib.contextmanager
def expecting_moves() -> Iterator[Callable[[], None]]:
    """What is given has the kernel ready for a process that is about to be moved into a group. It blocks for some ms.

    The first move after a quiet moment waits for a grace period of the kernel (8 to 30 ms), moves soon after it do not.
    Moving ourselves to where we are begins that wait while everything else of a start still goes on. One system call
    each time: more than that would take the interpreter from the agent's loop, which has the start in hand.
    """
    place = _own_place()
    descriptor = -1
    if place:
        with contextlib.suppress(OSError):  # then the runtime waits, as it would have
            descriptor = os.open(place, os.O_WRONLY | os.O_CLOEXEC)

    def expect_move() -> None:
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.write(descriptor, b"0")  # whoever writes it

    try:
        yield expect_move
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _own_place() -> str:
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, group = line.split(":", 2)
        # One without a controller: nothing is charged or throttled anew.
        if controllers in {"", "name=systemd"}:
            tree = _ROOT if is_unified() else f"{_ROOT}/{'systemd' if controllers else 'unified'}"
            place = f"{tree}{group.rstrip('/')}/cgroup.procs"
            if os.access(place, os.W_OK):
                return place
    return ""


def processes(group: str) -> set[int]:
    """The processes in a group and below it, as this process numbers them."""
    found: set[int] = set()
    for path, _, _ in os.walk(_directory("pids", group)):
        with contextlib.suppress(OSError):
            found.update(int(line) for line in Path(path, "cgroup.procs").read_text(encoding="ascii").split())
    return found - {0}


def move(group: str, pid: int) -> None:
    """Move a process into a group of the version 2 tree, if it has one there. Waits for the kernel, up to some ten
    milliseconds."""
    tree = _ROOT if is_unified() else f"{_ROOT}/unified"
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(f"{tree}{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, str(pid).encode())
        finally:
            os.close(descriptor)


def signal_all(group: str, signum: int) -> int:
    """Signal every process in the group; how many there were."""
    with _hold(group) as held:
        for descriptor in held:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signum)
        return len(held)


def kill_all(group: str, seconds: float = 10.0) -> bool:
    """Kill until nobody is left. Blocks; False when somebody outlived ``seconds`` (stuck in the kernel)."""
    until = time.monotonic() + seconds
    while True:
        with _hold(group) as held:
            if not held:
                return True
            for descriptor in held:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            for descriptor in held:
                # One that only seems to be gone would keep the group busy.
                left = until - time.monotonic()
                if left < 0 or not _ends(descriptor, left):
                    return False


def _ends(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@contextlib.contextmanager
def _hold(group: str) -> Iterator[list[int]]:
    # Descriptors of all processes in the group. A number may have gone to another process before it was held: only
    # who is still listed is ours.
    held: dict[int, int] = {}
    try:
        for pid in processes(group):
            with contextlib.suppress(ProcessLookupError):
                held[pid] = os.pidfd_open(pid)
        yield [held[pid] for pid in processes(group) & held.keys()]
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def weigh(group: str, cpus: int) -> bool:
    """Make a group weigh as much as ``cpus`` busy programs of the host. False where this machine cannot say so.

    A container's soft share is small beside other containers; it must not be small beside the host's own programs, or a
    function that asked for nothing would starve whenever its owner compiles something.
    """
    try:
        if is_unified():
            Path(_ROOT, "cgroup.subtree_control").write_text("+cpu", encoding="ascii")
        directory = Path(_directory("cpu", group))
        directory.mkdir(exist_ok=True)
        if is_unified():
            (directory / "cpu.weight").write_text(str(min(10_000, 100 * cpus)), encoding="ascii")
        else:
            (directory / "cpu.shares").write_text(str(1024 * cpus), encoding="ascii")
    except OSError:
        return False
    return True


def remove(group: str) -> bool:
    """Remove the group from every hierarchy. False when some part is still in use; gone is fine."""
    gone = True
    for tree in trees():
        for path, _, _ in os.walk(f"{tree}{group}", topdown=False):
            try:
                Path(path).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
    return gone


def children(group: str) -> set[str]:
    """Names of the groups below one, in any hierarchy."""
    found: set[str] = set()
    for tree in trees():
        with contextlib.suppress(OSError):
            found.update(one.name for one in os.scandir(f"{tree}{group}") if one.is_dir())
    return found


def stats(group: str) -> Stats:
    """What the group uses. Zeros for what its machine cannot say."""
    memory = _directory("memory", group)
    if is_unified():
        usage = _fields(f"{memory}/cpu.stat").get("usage_usec", 0) / 1e6
        names = ("memory.current", "memory.peak")
        moved = _moved(f"{memory}/io.stat")
    else:
        usage = _number(f"{_directory('cpuacct', group)}/cpuacct.usage") / 1e9
        names = ("memory.usage_in_bytes", "memory.max_usage_in_bytes")
        # Version 1 counts what goes to the disk at once; what the kernel writes later it counts to nobody.
        moved = _moved_1(f"{_directory('blkio', group)}/blkio.throttle.io_service_bytes_recursive")
    now, peak = (_number(f"{memory}/{name}") for name in names)
    return Stats(usage, now, peak, _number(f"{_directory('pids', group)}/pids.current"), *moved)


def oom_kills(group: str) -> int:
    """How many processes of the group were killed for memory."""
    name = "memory.events" if is_unified() else "memory.oom_control"
    return _fields(f"{_directory('memory', group)}/{name}").get("oom_kill", 0)


def caps_swap() -> bool:
    """Whether this machine's groups can limit swap."""
    return is_unified() or Path(_directory("memory", ""), "memory.memsw.limit_in_bytes").exists()


def _directory(controller: str, group: str) -> str:
    return f"{_ROOT}{group}" if is_unified() else f"{_ROOT}/{controller}{group}"


def _moved(path: str) -> tuple[int, int]:
    """Bytes read and written, of lines like `259:0 rbytes=4096 wbytes=0 rios=1 …`."""
    read = written = 0
    with contextlib.suppress(OSError, ValueError):
        for word in _text(path).split():
            if word.startswith("rbytes="):
                read += int(word[7:])
            elif word.startswith("wbytes="):
                written += int(word[7:])
    return read, written


def _moved_1(path: str) -> tuple[int, int]:
    """The same, of lines like `259:0 Read 4096`."""
    read = written = 0
    with contextlib.suppress(OSError, ValueError):
        for line in _text(path).splitlines():
            words = line.split()
            if len(words) == 3 and words[1] == "Read":
                read += int(words[2])
            elif len(words) == 3 and words[1] == "Write":
                written += int(words[2])
    return read, written


def _text(path: str) -> str:
    """A small file. Ten of these are read for each container and measurement: as few system calls as can be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16).decode("ascii", "replace")
    finally:
        os.close(descriptor)


def _number(path: str) -> int:
    try:
        return int(_text(path))
    except (OSError, ValueError):
        return 0


def _fields(path: str) -> dict[str, int]:
    try:
        lines = _text(path).splitlines()
        return {key: int(value) for key, value in map(str.split, lines)}
    except (OSError, ValueError):
        return {}
