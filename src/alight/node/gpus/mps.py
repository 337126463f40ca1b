"""NVIDIA's MPS: one control daemon for each GPU that several containers share, so that they run side by side.

The daemon belongs to the node: it is started for the first container, outlives the agent as containers do, and ends
with the last one. Containers find it by its directory of pipes, which is shown to them together with a /dev/shm that
its clients have in common. MPS serves one user at a time, so containers of others than the first one's owner are sent
away.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alight.node.engine.base import Bind
from alight.node.gpus.base import Injection
from alight.wire.gpus import Grant

log = logging.getLogger(__name__)

PROGRAM = "nvidia-cuda-mps-control"
PIPES = "/run/alight-mps"
_SOCKET_MOST = 80  # bytes of a directory in which the daemon binds its sockets
_START, _END = 10.0, 5.0  # seconds


@dataclass
class _Daemon:
    owner: str
    clients: set[str] = field(default_factory=set)


class Mps:
    """The daemons of one node. Blocks: call it in a thread."""

    def __init__(self, folder: Path, program: str = PROGRAM) -> None:
        self._folder = folder
        self._program = shutil.which(program) or ""
        self._daemons: dict[str, _Daemon] = {}

    def enter(self, container_id: str, owner: str, grant: Grant) -> Injection | str:
        """What a container needs to be a client for its part of a GPU; or why it cannot be one."""
        if not self._program:
            return f"this machine has no {PROGRAM}"
        place = self._place(grant.uuid)
        if len(os.fsencode(place)) > _SOCKET_MOST:
            return f"the path {place} is too long for MPS"
        daemon = self._daemons.get(grant.uuid)
        if daemon is not None and daemon.owner != owner:
            return "MPS serves somebody else's containers on this GPU"
        if daemon is None or not self._pid(grant.uuid):
            why = self._start(grant.uuid)
            if why:
                return why
            daemon = self._daemons.setdefault(grant.uuid, _Daemon(owner))
        daemon.clients.add(container_id)
        env = {
            "CUDA_MPS_PIPE_DIRECTORY": PIPES,
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"0={grant.memory}M",
            "CUDA_VISIBLE_DEVICES": "0",
        }
        if grant.percent:
            env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(grant.percent)
        binds = (Bind(str(place / "pipe"), PIPES, readonly=False), Bind(str(place / "shm"), "/dev/shm", readonly=False))
        return Injection(binds=binds, env=env)

    def adopt(self, container_id: str, owner: str, grant: Grant) -> None:
        """A container that an earlier agent started may be a client still."""
        if self._pid(grant.uuid):
            self._daemons.setdefault(grant.uuid, _Daemon(owner)).clients.add(container_id)

    def leave(self, container_id: str) -> None:
        """A container is gone; a daemon without clients ends."""
        for uuid, daemon in list(self._daemons.items()):
            daemon.clients.discard(container_id)
            if not daemon.clients:
                del self._daemons[uuid]
                self._end(uuid)

    def end(self, *, unused: bool = False) -> None:
        """End all daemons of this node, or those that an earlier agent left and nobody uses."""
        if self._folder.is_dir():
            for place in list(self._folder.iterdir()):
                if not unused or place.name not in self._daemons:
                    self._end(place.name)

    def _start(self, uuid: str) -> str:
        """Returns why not; "" when it runs."""
        place = self._place(uuid)
        for name, mode in (("pipe", 0o755), ("log", 0o755), ("shm", 0o1777)):
            (place / name).mkdir(parents=True, exist_ok=True)
            (place / name).chmod(mode)
        env = {**os.environ, **self._names(place), "CUDA_VISIBLE_DEVICES": uuid}
        try:
            done = subprocess.run(
                [self._program, "-d"],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_START,
                check=False,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{PROGRAM} did not start: {error}"
        if done.returncode or not self._pid(uuid):
            said = done.stderr.decode("utf-8", "replace").strip()[-300:] or f"exit code {done.returncode}"
            return f"{PROGRAM} did not start: {said}"
        log.info("an MPS daemon for %s was started", uuid)
        return ""

    def _end(self, uuid: str) -> None:
        place, pid = self._place(uuid), self._pid(uuid)
        if pid:
            env = {**os.environ, **self._names(place)}
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [self._program], input=b"quit -t 1\n", env=env, capture_output=True, timeout=_END, check=False
                )
            until = time.monotonic() + _END
            while self._pid(uuid) and time.monotonic() < until:
                time.sleep(0.05)
            if self._pid(uuid):
                log.warning("the MPS daemon of %s does not end when asked: it is killed", uuid)
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(place, ignore_errors=True)

    def _pid(self, uuid: str) -> int:
        """The daemon's process; 0 when there is none."""
        try:
            pid = int((self._place(uuid) / "pipe" / f"{PROGRAM}.pid").read_text())
            # By its name, for the number may be somebody else's by now. The kernel keeps 15 letters.
            alive = Path(f"/proc/{pid}/comm").read_text().strip() == Path(self._program or PROGRAM).name[:15]
        except (OSError, ValueError):
            return 0
        return pid if alive else 0

    def _place(self, uuid: str) -> Path:
        return self._folder / uuid

    @staticmethod
    def _names(place: Path) -> Mapping[str, str]:
        return {"CUDA_MPS_PIPE_DIRECTORY": str(place / "pipe"), "CUDA_MPS_LOG_DIRECTORY": str(place / "log")}
