"""How a spawner begins and ends, and what is done about one that was killed. The agent's side.

A spawner's mounts and networks end with it; its containers do not, so they are found by their control groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alight.node import cgroups
from alight.node.engine.base import ContainerState, EngineError
from alight.node.engine.oci_client import SpawnerClient, SpawnerGone, connect, short_path
from alight.node.network import Names
from alight.node.spawner import PROTOCOL

log = logging.getLogger("alight.node.engine")

OnEvent = Callable[[dict[str, Any]], None]
OnLost = Callable[[SpawnerClient], None]

_HELLO_SECONDS = 10.0
_DETACH_SECONDS = 10.0
_SHUTDOWN_SECONDS = 20.0
_POLITE_SECONDS = 5.0
_MODULE = b"alight.node.spawner"
_SPAWNER_DIED = "its parent process on the node was killed"

# Hands the socket on as descriptor 3, and makes the spawner nobody's child, so that it is not ours to reap.
_DETACHED = """
import os, sys
descriptor = int(sys.argv[1])
if descriptor != 3:
    os.dup2(descriptor, 3)
os.set_inheritable(3, True)
if os.fork():
    os._exit(0)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Place:
    """Whose spawner it is."""

    home: Path
    instance: str
    names: Names
    runtime: str


async def join_or_spawn(place: Place, on_event: OnEvent, on_lost: OnLost) -> tuple[SpawnerClient, dict[str, Any]]:
    """A connection to the spawner of a home, with its hello; a new spawner when none answers. What an earlier one left
    is given back then. Raises EngineError."""
    home = place.home
    with contextlib.suppress(SpawnerGone):
        return await join(home, on_event, on_lost)
    await asyncio.to_thread(reclaim, home, place.names)
    try:
        connection = await asyncio.to_thread(spawn, home, place.instance, place.runtime)
        return await _greet(home, SpawnerClient(connection, on_event, on_lost))
    except SpawnerGone as error:
        raise EngineError(
            f"The spawner of this node ends as soon as it starts: {last_words(home)}",
            hint=f"Read {home}/log/spawner.log",
        ) from error


async def join(home: Path, on_event: OnEvent, on_lost: OnLost) -> tuple[SpawnerClient, dict[str, Any]]:
    """A connection to the spawner that there is. Raises SpawnerGone, EngineError."""
    return await _greet(home, SpawnerClient(connect(socket_path(home)), on_event, on_lost))


async def _greet(home: Path, client: SpawnerClient) -> tuple[SpawnerClient, dict[str, Any]]:
    try:
        hello = await asyncio.wait_for(client.ask("hello"), _HELLO_SECONDS)
    except TimeoutError as error:
        client.close()
        raise EngineError(
            f"The spawner of this node does not answer: {last_words(home)}",
            hint=f"Read {home}/log/spawner.log",
        ) from error
    if hello.get("protocol") != PROTOCOL:
        client.close()
        raise EngineError(
            "The containers of this node belong to another version of Alight",
            hint=f"End the process {hello.get('pid')} and its containers, then start the node again",
        )
    return client, hello


def socket_path(home: Path) -> Path:
    """Where a home's spawner listens."""
    return home / "run" / "spawner.sock"


def spawn(home: Path, instance: str, runtime: str) -> socket.socket:
    """Start a spawner that nobody is the parent of; a connection to it. Blocks until it is on its own."""
    path = socket_path(home)
    command = [sys.executable, "-m", "alight.node.spawner", str(home), instance, runtime]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    with (
        (home / "log" / "spawner.log").open("ab") as log_file,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as listener,
    ):
        path.unlink(missing_ok=True)
        listener.bind(short_path(path))
        listener.listen(16)
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _DETACHED, str(listener.fileno()), *command],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            pass_fds=[listener.fileno()],
            start_new_session=True,
            check=True,
            timeout=_DETACH_SECONDS,
        )
    return connect(path)


def reclaim(home: Path, names: Names) -> None:
    """End what a spawner left that is no more. Its mounts and networks ended with it and its containers."""
    for name in cgroups.children(names.group):
        if not cgroups.kill_all(f"{names.group}/{name}"):
            raise EngineError(
                f"Processes of the container {name} cannot be killed",
                hint="They wait for a device or file system that does not answer: see `dmesg`",
            )
    cgroups.remove(names.group)
    shutil.rmtree(home / "run" / "runtime", ignore_errors=True)
    containers = home / "node" / "containers"
    for path in containers.iterdir() if containers.exists() else ():
        state = state_on_disk(path)
        if state is None:
            # The spawner died before it started, so nobody was told of it.
            shutil.rmtree(path, ignore_errors=True)
        elif state.status == "running":
            ended = replace(state, status="exited", signal=signal.SIGKILL, ended_at=time.time(), error=_SPAWNER_DIED)
            (path / "state.json").write_text(json.dumps(ended.to_plain()), encoding="utf-8")


async def end(client: SpawnerClient, pid: int) -> None:
    """Ask it to end its containers and itself, and wait until it is gone."""
    # Its mounts go with its process and not with its last word, so the process is what is waited for.
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, gone.set)
    try:
        async with asyncio.timeout(_SHUTDOWN_SECONDS):
            with contextlib.suppress(SpawnerGone):
                await client.ask("shutdown")
            await gone.wait()
    except TimeoutError:
        log.warning("the spawner did not end in %d s and is killed", _SHUTDOWN_SECONDS)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def running(home: Path) -> list[int]:
    """Processes that are, or are about to be, this directory's spawner, and those of its children that look like it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = (path / "cmdline").read_bytes().split(b"\0")
            if _MODULE not in words[:-1] or words[words.index(_MODULE) + 1] != os.fsencode(home):
                continue
            # One in a container may serve a directory of this name, too: its own.
            if os.path.samestat((path / "root" / str(home).lstrip("/")).stat(), home.stat()):
                found.append(int(path.name))
    return found


def kill(home: Path) -> None:
    """End a spawner that cannot be talked to: politely, for it ends its containers then; after some seconds not so.
    Blocks."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + _POLITE_SECONDS
        for pid in running(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while running(home) and time.monotonic() < until:
            time.sleep(0.02)


def state_on_disk(directory: Path) -> ContainerState | None:
    """What ``state.json`` says; None when the container never came to run."""
    try:
        return ContainerState.from_plain(json.loads((directory / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def last_words(home: Path) -> str:
    """The last line of its log."""
    try:
        return (home / "log" / "spawner.log").read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
    except OSError:
        return "it wrote no log"
