"""Starts this machine's own node again when it was killed: its containers run on, and somebody has to carry their
results.

A node leaves ``run/node.json`` (how it was started) and takes it away when it is told to end, so what is found there
without a process that holds ``run/node.lock`` was killed or crashed. Nodes of other machines are their own keepers'
business, and so is a service of this one.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import subprocess
from pathlib import Path

from alight.wire.version import __version__

log = logging.getLogger(__name__)

_FIRST_SECONDS = 0.5
_LAST_SECONDS = 30.0
_TRIES = 10
_SURE = 3  # looks, one after the other, that found somebody to be the node


class Reviver:
    """Watches over one state directory's node. ``look`` is told whenever a node has left."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._run = home / "run"
        self._task: asyncio.Task[None] | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def look(self, node_id: str = "") -> None:
        """Bring the node back if it was killed. At most one attempt is under way; soon after one comes the next."""
        del node_id  # there is one node to a state directory
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._bring_back())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _bring_back(self) -> None:
        wait, seen = _FIRST_SECONDS, 0
        for _ in range(_TRIES):
            await asyncio.sleep(wait)
            wait = min(2 * wait + 1.0, _LAST_SECONDS)
            argv = self._killed()
            if argv is None:
                return
            if self._held():
                # By a node that runs, or by one that was killed and takes its time to end: then one that was started
                # meanwhile has ended at once, since there was another.
                seen += 1
                if seen == _SURE:
                    return
                continue
            seen = 0
            if self._child is not None and self._child.poll() is None:
                continue  # it starts
            log.warning("the node of this machine was killed: starting it again")
            self._start(argv)
        log.error("the node of this machine ended again and again: `alight doctor` says what it lacks")

    def _killed(self) -> list[str] | None:
        """How to start the node again if it does not run; None when it was told to end, or never ran here."""
        if (self._run / "stopped").exists():
            return None
        try:
            said = json.loads((self._run / "node.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        if said.get("kept"):
            return None  # two that start it would get in each other's way
        argv = said.get("argv") if said.get("version") == __version__ else None
        return argv if isinstance(argv, list) and all(isinstance(word, str) for word in argv) else None

    def _held(self) -> bool:
        """Whether a process is this directory's node, or was until it has quite ended."""
        with (self._run / "node.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _start(self, argv: list[str]) -> None:
        # Of its own session, as whoever started it first did: it outlives this server.
        with (self._home / "log" / "node.log").open("ab") as out:
            self._child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=out, start_new_session=True
            )
