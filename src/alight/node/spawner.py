"""The parent of every container of one instance: starts, reaps, keeps exit codes and output on disk.

It outlives the agent, so it must stay small: standard library, one thread, one loop, no user bytes but what passes
from a pipe to a file. It never decides anything; the engine (``engine/oci.py``) tells it what to do over one socket.

Messages are JSON, one per packet: ``{"n": 1, "op": "start", ...}`` is answered by ``{"n": 1, "ok": ...}`` or
``{"n": 1, "error": ...}``, later for a start. ``{"event": "exited", "state": ...}`` comes unasked to every client.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alight.node import kernel, mounts, moving, users
from alight.node.engine.base import EngineError
from alight.node.network import Names, Network
from alight.node.spawner_buckets import Buckets
from alight.node.spawner_client import Client
from alight.node.spawner_container import Container, Request, Runtime
from alight.node.spawner_exec import Programs
from alight.node.spawner_forks import Forks
from alight.node.spawner_inside import Inside
from alight.wire import errors

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("alight.spawner")

PACKET = 128 * 1024
PROTOCOL = 4
_MOST_DESCRIPTORS = 4
STATES_PER_PACKET = 200
_TICK_SECONDS = 5.0
_START_SECONDS = 60.0


def main() -> None:
    """``python -m alight.node.spawner HOME INSTANCE RUNTIME``, with the listening socket as descriptor 3."""
    home, instance, binary = sys.argv[1:4]
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"
    )
    listener = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    kernel.new_session_keyring()
    _raise_limits()
    host_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    mounts.private_namespace()
    if Path(binary).name == "crun":
        mounts.hide_hybrid_cgroups()
    byte = moving.Moving(moving.path_of(Path(home)))
    byte.end()  # an earlier spawner may have been killed in the middle
    runtime = Runtime(
        binary, str(Path(home) / "run" / "runtime"), byte, mounts.Shared(), users.possible(home), host_mounts
    )
    spawner = Spawner(listener, runtime, Names.of(instance))
    log.info("spawner %d is ready for instance %s, subnet %s", os.getpid(), instance, spawner.network.subnet)
    spawner.run()


def _raise_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # All containers go when this goes, so it is the last that the kernel should take; it needs a right to ask so.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-900", encoding="ascii")


class Spawner:
    """The loop and the commands."""

    def __init__(self, listener: socket.socket, runtime: Runtime, names: Names) -> None:
        self._listener = listener
        self._runtime = runtime
        self._names = names
        self.network = Network(names.prefix)
        self.containers: dict[str, Container] = {}
        self._starting: dict[int, tuple[Container, Client, int]] = {}
        self._running: dict[int, Container] = {}
        self._orphans: dict[int, int] = {}
        self._watched: dict[int, Callable[[], None]] = {}
        self._clients: dict[int, Client] = {}
        self._pipes: dict[int, Container] = {}
        self._poll = select.epoll()
        self._forks = Forks(self, runtime, self.network)
        self._programs = Programs(self, runtime)
        self._buckets = Buckets(self, runtime, self.network)
        self._ending: tuple[Client, int] | None = None
        self._stopping = False
        self._commands: dict[str, Callable[[Client, int, dict[str, Any]], bool]] = {
            "hello": self._do_hello,
            "start": self._do_start,
            "list": self._do_list,
            "signal": self._do_signal,
            "drain": self._do_drain,
            "stats": self._do_stats,
            "forget": self._do_forget,
            "dns": self._do_dns,
            "socket": self._do_socket,
            "gang": self._do_gang,
            "shutdown": self._do_shutdown,
            **self._forks.commands,
            **self._programs.commands,
            **self._buckets.commands,
        }
        self._wakeup, wakeup_writer = socket.socketpair()
        for one in (self._listener, self._wakeup, wakeup_writer):
            one.setblocking(False)
        self._wakeup_writer = wakeup_writer

    def run(self) -> None:
        """Serve until told to shut down and every container is gone."""
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._poll.register(self._listener, select.EPOLLIN)
        self._poll.register(self._wakeup, select.EPOLLIN)
        next_tick = 0.0
        while not (self._stopping and not self._running and not self._starting and self._forks.is_idle):
            patience = self._forks.patience()
            for descriptor, events in self._poll.poll(_TICK_SECONDS if patience is None else patience):
                self._serve(descriptor, events)
            self._reap()
            self._forks.end_hung()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK_SECONDS
                self._end_slow_starts()
                self._programs.end_slow_starts()
                self._buckets.end_slow_starts()
                self._runtime.remove_busy_groups()
                for container in self.containers.values():
                    container.save_if_needed()
        self._buckets.stop()
        log.info("spawner ends")
        if self._ending is not None:
            client, number = self._ending
            client.connection.setblocking(True)
            client.send({"n": number, "ok": None})

    def _serve(self, descriptor: int, events: int) -> None:
        if descriptor in self._pipes:
            container = self._pipes[descriptor]
            if descriptor in container.pipes and not container.pump_some(descriptor):
                del self._pipes[descriptor]
        elif descriptor == self._listener.fileno():
            self._accept()
        elif descriptor == self._wakeup.fileno():
            with contextlib.suppress(BlockingIOError):
                self._wakeup.recv(4096)
        elif descriptor in self._watched:
            self._watched[descriptor]()
        elif descriptor in self._clients:
            client = self._clients[descriptor]
            alive = client.flush() if events & select.EPOLLOUT else True
            if events & ~select.EPOLLOUT:
                alive = alive and self._receive(client)
            self._watch(client, alive=alive)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._clients[connection.fileno()] = Client(connection)
            self._poll.register(connection, select.EPOLLIN)

    def _receive(self, client: Client) -> bool:
        try:
            packet, given, _, _ = socket.recv_fds(client.connection, PACKET, _MOST_DESCRIPTORS)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not packet:
            return False
        number = -1
        try:
            message = json.loads(packet)
            number = int(message.pop("n"))
            if given:
                message["given"] = given
            return self._commands[message.pop("op")](client, number, message)
        except EngineError as error:
            failure = error
        except OSError as error:
            failure = EngineError(f"The spawner could not do it: {error.strerror}")
        except (KeyError, TypeError, ValueError) as error:
            # Nothing that a client says may end the parent of all containers.
            log.exception("a message makes no sense")
            failure = EngineError(f"The spawner does not understand this engine: {error!r}")
        finally:
            for one in given:
                os.close(one)
        return client.send({"n": number, "error": errors.to_wire(failure)})

    def _watch(self, client: Client, *, alive: bool) -> None:
        if alive:
            self._poll.modify(client.connection, select.EPOLLIN | (select.EPOLLOUT if client.queue else 0))
        elif self._clients.pop(client.connection.fileno(), None) is not None:
            client.close()
            self._programs.lost(client)

    # For the parts of this: `_forks`, `_programs`.

    def answer(self, client: Client, message: dict[str, Any], descriptors: list[int] | None = None) -> bool:
        """Say something to a client in a turn that is not its own. False when it is gone."""
        if client.connection.fileno() not in self._clients:
            return False
        alive = client.send(message, descriptors)
        self._watch(client, alive=alive)
        return alive

    def refuse(self, client: Client, number: int, error: Exception) -> None:
        """Answer with an error."""
        failure = error if isinstance(error, EngineError) else EngineError(f"The start went wrong: {error}")
        self.answer(client, {"n": number, "error": errors.to_wire(failure)})

    def tell(self, message: dict[str, Any]) -> None:
        """Say something to every client."""
        for client in list(self._clients.values()):
            self.answer(client, message)

    def watch(self, descriptor: int, then: Callable[[], None]) -> None:
        """Call ``then`` whenever there is something to read."""
        self._watched[descriptor] = then
        self._poll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """No more; before the descriptor is closed."""
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def launch(self, container: Container, client: Client, number: int) -> bool:
        """Begin to start it. The client is answered when the OCI runtime ended; whatever fails now is undone."""
        if self._stopping or container.request.id in self.containers:
            raise EngineError(f"The container {container.request.id} exists already, or the spawner is ending")
        try:
            container.launch()
        except (OSError, EngineError):
            container.release()
            raise
        assert container.launcher is not None
        self.containers[container.request.id] = container
        self._starting[container.launcher] = (container, client, number)
        # Read from the start: what waits in two pipes has lost its order.
        for pipe in container.pipes:
            self._pipes[pipe] = container
            self._poll.register(pipe, select.EPOLLIN)
        return True

    def abandon(self, container: Container) -> None:
        """End what did not come to be, or what nobody took; nothing is left of it but its directory."""
        self._drop_pipes(container)
        if isinstance(container, Inside):
            self._forks.before_abandon(container)
        container.abandon()
        self.containers.pop(container.request.id, None)
        if isinstance(container, Inside):
            self._forks.given_back(container)

    def ended(self, container: Container, status: int) -> None:
        """It is dead, and everybody is told."""
        self._drop_pipes(container)
        container.ended(status)
        self._programs.container_ended(container)
        self.tell({"event": "exited", "state": container.plain()})

    # Commands. Each answers, or remembers whom to answer; False when the client is gone.

    def _do_hello(self, client: Client, number: int, _: dict[str, Any]) -> bool:
        answer = {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "subnet": str(self.network.subnet),
            "users": self._runtime.users,
            "forks": self._forks.are_possible,
            "gangs": self._gangs(),
        }
        return client.send({"n": number, "ok": answer})

    def _do_start(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        return self.launch(Container(Request(**message), self._runtime, self.network), client, number)

    def _do_list(self, client: Client, number: int, _: dict[str, Any]) -> bool:
        states = [one.plain() for one in self.containers.values() if one.is_known]
        alive = True
        while len(states) > STATES_PER_PACKET:
            alive = client.send({"n": number, "part": states[:STATES_PER_PACKET]})
            states = states[STATES_PER_PACKET:]
        return alive and client.send({"n": number, "ok": states})

    def _do_signal(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        container = self._find(message)
        container.signal(int(message["signal"]), everyone=bool(message["everyone"]))
        return client.send({"n": number, "ok": None})

    def _do_drain(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        container = self._find(message)
        return client.send({"n": number, "ok": container.pump()})

    def _do_stats(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        return client.send({"n": number, "ok": asdict(self._find(message).stats())})

    def _do_forget(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        container = self.containers.get(str(message["id"]))
        if container is not None:
            if container.state.status == "running":
                raise EngineError(f"The container {container.request.id} still runs")
            container.release()
            del self.containers[container.state.id]
        self._buckets.drop(str(message["id"]))
        return client.send({"n": number, "ok": None})

    def _do_dns(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        space = self._find(message).space
        if space is None or space.dns is None:
            return client.send({"n": number, "ok": 0})
        return client.send({"n": number, "ok": 2}, [one.fileno() for one in space.dns])

    def _do_socket(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        container = self._find(message)
        if container.space is None:
            raise EngineError(f"The container {container.request.id} has ended, and its network with it")
        with self.network.socket_in(container.space, int(message["family"]), int(message["kind"])) as one:
            return client.send({"n": number, "ok": 1}, [one.fileno()])

    def _do_gang(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        found: list[tuple[str, str]] = []
        for name in message["ids"]:
            container = self._find({"id": name})
            space = container.space
            if space is None or space.address is None or space.device is None:
                raise EngineError(f"The container {name} has ended, or has no network")
            container.gang = str(message["gang"])
            found.append((space.address, space.device))
        return client.send({"n": number, "ok": found})

    def _gangs(self) -> dict[str, list[str]]:
        # For an engine that comes anew: which devices may reach each other.
        gangs: dict[str, list[str]] = {}
        for container in self.containers.values():
            if container.gang and container.space is not None and container.space.device is not None:
                gangs.setdefault(container.gang, []).append(container.space.device)
        return gangs

    def _do_shutdown(self, client: Client, number: int, _: dict[str, Any]) -> bool:
        self._ending = (client, number)
        self._stop()
        return True

    def _find(self, message: dict[str, Any]) -> Container:
        container = self.containers.get(str(message["id"]))
        if container is None:
            raise EngineError(f"There is no container {message['id']}")
        return container

    # What happens by itself.

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid, status = 0, 0
            if pid == 0:
                break
            if pid in self._starting:
                self._launched(*self._starting.pop(pid), status)
            elif pid in self._running:
                self.ended(self._running.pop(pid), status)
            elif not (
                self._forks.outer_ended(pid) or self._programs.reaped(pid, status) or self._buckets.reaped(pid, status)
            ):
                # Perhaps the first process of a container whose runtime has not ended yet.
                self._orphans[pid] = status
        if not self._starting:
            self._orphans.clear()

    def _end_slow_starts(self) -> None:
        for pid, (container, _, _) in self._starting.items():
            if time.time() - container.state.started_at > _START_SECONDS:
                log.error("the runtime hangs while it starts %s and is killed", container.request.id)
                os.kill(pid, signal.SIGKILL)

    def _launched(self, container: Container, client: Client, number: int, status: int) -> None:
        try:
            container.launched(status)
            if isinstance(container, Inside):
                self._forks.launched(container, client, number)
                return
        except (OSError, ValueError, EngineError) as error:
            self.abandon(container)
            self.refuse(client, number, error)
            return
        assert container.pid is not None
        self.answer(client, {"n": number, "ok": container.plain()})
        if self._stopping:
            container.signal(signal.SIGKILL, everyone=False)
        if container.pid in self._orphans:
            self.ended(container, self._orphans.pop(container.pid))
        else:
            self._running[container.pid] = container

    def _drop_pipes(self, container: Container) -> None:
        for pipe in container.pipes:
            self._pipes.pop(pipe, None)

    def _stop(self) -> None:
        self._stopping = True
        for container in self._running.values():
            container.signal(signal.SIGKILL, everyone=False)
        self._forks.stop()


if __name__ == "__main__":
    main()
