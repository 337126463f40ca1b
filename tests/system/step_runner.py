"""A step runner for tests of the builder alone: overlay and chroot in private namespaces, with the host's network.

No isolation worth the name: the node's engine is the real one. It keeps the contract of ``StepRunner``: nothing is left
mounted or running, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from alight.builder import StepRun

_CHROOT = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin") or "chroot"  # a step may have any PATH


class ChrootRunner:
    """Runs steps one after another or at once; ``steps`` remembers them."""

    def __init__(self) -> None:
        self.steps: list[StepRun] = []

    async def run(self, step: StepRun, on_output: Callable[[bytes], None]) -> int:
        self.steps.append(step)
        place = Path(step.upper).parent
        for name in ("work", "root"):
            (place / name).mkdir(exist_ok=True)
        binds = [("/etc/resolv.conf", "/etc/resolv.conf", True), ("/etc/hosts", "/etc/hosts", True), *step.binds]
        root = shlex.quote(str(place / "root"))
        lines = [
            "set -e",
            f"mount -t overlay -o lowerdir={':'.join(step.layers)},upperdir={step.upper},workdir={place}/work x {root}",
            f"mkdir -p {root}/proc {root}/dev {root}/sys",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
        ]
        for source, target, readonly in binds:
            at = f"{root}{shlex.quote(target)}"
            file = f"mkdir -p $(dirname {at}); [ -e {at} ] || : > {at}"
            lines.append(f"if [ -d {shlex.quote(source)} ]; then mkdir -p {at}; else {file}; fi")
            lines += [f"mount --bind {shlex.quote(source)} {at}"]
            lines += [f"mount -o remount,bind,ro {at}"] if readonly else []
        in_place = ["/bin/sh", "-c", 'mkdir -p "$0"; cd "$0"; exec "$@"', step.cwd]
        enter = shlex.join([_CHROOT, str(place / "root"), *in_place, *step.argv])
        environment = shlex.join(["env", "-i", *(f"{name}={value}" for name, value in step.env.items())])
        lines.append(f"exec {environment} {enter}")
        process = await asyncio.create_subprocess_exec(
            "unshare", "--mount", "--pid", "--fork", "--kill-child", *([] if step.network else ["--net"]),
            "sh", "-c", "\n".join(lines), start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout
        try:
            while piece := await process.stdout.read(65536):
                on_output(piece)
            return await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
