"""Where a process's time goes while a case runs: py-spy is attached to it, and the stacks are added up.

A budget that is missed is explained by what this shows. Needs `py-spy` beside the interpreter or on PATH.
"""

from __future__ import annotations

import collections
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Words that stand in the command line of each kind of process.
KINDS = {
    "server": b"alight.server",
    "node": b"alight.node",
    "spawner": b"alight.node.spawner",
    "client": b"/scripts/",
    "runtime": b"alight/runtime/__main__.py",
}
RATE_HZ = 500
SHOWN = 25


@contextlib.contextmanager
def sampled(kinds: list[str], home: Path, case: str) -> Iterator[None]:
    """Sample processes of these kinds that belong to the instance, from when they appear to when they end."""
    if not kinds:
        yield
        return
    tool = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if tool is None:
        raise RuntimeError("--profile needs py-spy: pip install py-spy")
    over = threading.Event()
    running: dict[tuple[str, int], tuple[subprocess.Popen[bytes], Path]] = {}
    folder = home / "profiles"
    folder.mkdir(exist_ok=True)

    def watch() -> None:
        while not over.is_set():
            for kind, pid in _found(kinds, home):
                if (kind, pid) not in running:
                    into = folder / f"{case}-{kind}-{pid}.stacks"
                    into.unlink(missing_ok=True)
                    running[kind, pid] = (_attach(tool, pid, into), into)
            over.wait(0.2)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for process, _ in running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)  # it writes what it has
        for process, _ in running.values():
            process.wait(30)
        for kind in kinds:
            _show(kind, case, [into for (one, _), (_, into) in running.items() if one == kind])


def _attach(tool: str, pid: int, into: Path) -> subprocess.Popen[bytes]:
    command = [tool, "record", "--pid", str(pid), "--rate", str(RATE_HZ), "--format", "raw", "--nonblocking"]
    return subprocess.Popen(
        [*command, "--duration", "3600", "--output", str(into)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _found(kinds: list[str], home: Path) -> list[tuple[str, int]]:
    """Kinds and ids of the processes that there are now. Those in containers are of the instance by their cgroup."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            around = command + (entry / "environ").read_bytes() + (entry / "mountinfo").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        for kind in kinds:
            mine = str(home).encode() in around
            if KINDS[kind] in command and mine and not (kind == "node" and KINDS["spawner"] in command):
                found.append((kind, int(entry.name)))
    return found


def _show(kind: str, case: str, files: list[Path]) -> None:
    """The functions in which most samples fell, and those below which most fell."""
    own: collections.Counter[str] = collections.Counter()
    below: collections.Counter[str] = collections.Counter()
    for file in files:
        for line in file.read_text().splitlines() if file.exists() else ():
            stack, _, count = line.rpartition(" ")
            frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
            own[frames[-1]] += int(count)
            for frame in set(frames):
                below[frame] += int(count)
    total = sum(own.values())
    print(f"\n# where {kind} was busy during {case}: {total} samples at {RATE_HZ} Hz", file=sys.stderr)
    for title, counts in (("in itself", own), ("with what it calls", below)):
        print(f"  {title}", file=sys.stderr)
        for frame, count in counts.most_common(SHOWN):
            print(f"  {100 * count / max(1, total):5.1f} %  {frame}", file=sys.stderr)
    for file in files:
        print(f"  stacks: {file}", file=sys.stderr)
