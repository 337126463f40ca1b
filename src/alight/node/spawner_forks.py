"""Templates, shells and forks (decision 0012), as commands of the spawner.

What each is, is for ``spawner_inside`` and ``spawner_shell``. A fork comes to be in steps, between which the spawner
does other things: ``shell`` has the OCI runtime make one (``launched``), which asks the template (``_arrives``) and is
answered when the fork waits; ``wake`` makes it a container.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alight.node import pause
from alight.node.engine.base import EngineError
from alight.node.family import Family
from alight.node.spawner_container import Request, Runtime
from alight.node.spawner_inside import Inside, Template
from alight.node.spawner_shell import Shell

if TYPE_CHECKING:
    from collections.abc import Callable

    from alight.node.network import Network
    from alight.node.spawner import Spawner
    from alight.node.spawner_client import Client

log = logging.getLogger("alight.spawner")

#: Seconds that a template may take for a fork before it counts as hung.
_PARK_SECONDS = 5.0


class Forks:
    """What the spawner has of them. ``spawner`` is the loop that this is a part of."""

    def __init__(self, spawner: Spawner, runtime: Runtime, network: Network) -> None:
        self._spawner = spawner
        self._runtime = runtime
        self._network = network
        self._families: dict[str, Family] = {}
        self._stopping = False
        self._arriving: dict[Shell, tuple[Client, int, float]] = {}
        self.commands: dict[str, Callable[[Client, int, dict[str, Any]], bool]] = {
            "template": self._do_template,
            "shell": self._do_shell,
            "freeze": self._do_freeze,
            "wake": self._do_wake,
            "discard": self._do_discard,
            "drop": self._do_drop,
        }

    # Commands

    def _do_template(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        key = str(message.pop("family"))
        request = Request(**message)
        family = self._families.get(key)
        if family is None:
            family = Family(key, request.base, self._runtime.root.rpartition("/")[0])
            self._families[key] = family
            self._spawner.watch(family.outer.reports, family.read)
        return self._launch(Template(request, self._runtime, self._network, family, self._ended), client, number)

    def _do_shell(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        template = self._template(str(message.pop("template")))
        capabilities = int(message.pop("capabilities"))
        shell = Shell(Request(**message), self._runtime, self._network, template, capabilities, self._ended)
        return self._launch(shell, client, number)

    def _do_freeze(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        self._template(str(message["id"])).freeze()
        return client.send({"n": number, "ok": None})

    def _do_wake(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        shell = self._shell(str(message["id"]))
        name, made_as = str(message["name"]), shell.request.id
        if name != made_as and name in self._spawner.containers:
            raise EngineError(f"The container {name} exists already")
        told = {"env": message["env"], "cwd": str(message["cwd"])}
        shell.wake(name, str(message["directory"]), told, message.get("given", []))
        self._spawner.containers[name] = self._spawner.containers.pop(made_as)
        return client.send({"n": number, "ok": shell.plain()})

    def _do_discard(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        with contextlib.suppress(EngineError):
            self._spawner.abandon(self._shell(str(message["id"])))
        return client.send({"n": number, "ok": None})

    def _do_drop(self, client: Client, number: int, _: dict[str, Any]) -> bool:
        for one in list(self._spawner.containers.values()):
            if isinstance(one, Template) or (isinstance(one, Shell) and not one.is_awake):
                self._spawner.abandon(one)
        return client.send({"n": number, "ok": None})

    # What the loop tells

    def launched(self, container: Inside, client: Client, number: int) -> None:
        """The OCI runtime has started it. Raises when it cannot be what it is to be."""
        if not isinstance(container, Shell):
            self._spawner.answer(client, {"n": number, "ok": container.plain()})
            return
        control = container.ask(self._template(container.template_id))
        self._arriving[container] = client, number, time.monotonic() + _PARK_SECONDS
        self._spawner.watch(control, lambda: self._arrives(container))

    def patience(self) -> float | None:
        """Seconds until a template counts as hung; None while none is asked for anything."""
        if not self._arriving:
            return None
        return max(0.0, min(until for _, _, until in self._arriving.values()) - time.monotonic())

    def end_hung(self) -> None:
        """Kill templates that took too long."""
        now = time.monotonic()
        for shell, (_, _, until) in list(self._arriving.items()):
            if now >= until:
                reason = f"The template {shell.template_id} made no fork within {_PARK_SECONDS:.0f} s and is killed"
                log.error("%s", reason)
                template = self._spawner.containers.get(shell.template_id)
                if template is not None:
                    template.signal(signal.SIGKILL, everyone=True)
                self._fails(shell, EngineError(reason))

    def outer_ended(self, pid: int) -> bool:
        """Whether this was an outer process: all that was in its namespace is dead then."""
        family = next((one for one in self._families.values() if one.outer.pid == pid), None)
        if family is None:
            return False
        family.read()
        self._close(family)
        if family.members and not self._stopping:
            log.error("an outer process was killed, and %d containers with it", len(family.members))
        for container in list(self._spawner.containers.values()):
            if isinstance(container, Inside) and container.family is family and container.launcher is None:
                container.outer_ended()
        return True

    def given_back(self, container: Inside) -> None:
        """It is no more. The last of a family takes the outer process along."""
        family = container.family
        if not family.members and self._families.get(family.key) is family:
            # Reaped like any child; nobody is interested in how it ended.
            os.kill(family.outer.pid, signal.SIGKILL)
            self._close(family)

    def stop(self) -> None:
        """Kill everything. The loop is told of each outer process's end."""
        self._stopping = True
        for family in self._families.values():
            os.kill(family.outer.pid, signal.SIGKILL)

    @property
    def are_possible(self) -> bool:
        """Whether this machine can have any."""
        return self._runtime.users and pause.is_known()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left."""
        return not self._families

    # Inside

    def _launch(self, container: Inside, client: Client, number: int) -> bool:
        try:
            return self._spawner.launch(container, client, number)
        except (OSError, EngineError):
            self.given_back(container)
            raise

    def _arrives(self, shell: Shell) -> None:
        client, number, _ = self._arriving[shell]
        try:
            if not shell.arrived():
                return
        except EngineError as error:
            self._fails(shell, error)
            return
        self._settle(shell)
        self._spawner.answer(client, {"n": number, "ok": shell.plain()})

    def _fails(self, shell: Shell, error: EngineError) -> None:
        client, number, _ = self._arriving[shell]
        self._spawner.abandon(shell)
        self._spawner.refuse(client, number, error)

    def _settle(self, shell: Shell) -> None:
        # Nothing more is expected on its control socket: when it dies, the outer process says so.
        if self._arriving.pop(shell, None) is not None and shell.control is not None:
            self._spawner.unwatch(shell.control.fileno())

    def before_abandon(self, container: Inside) -> None:
        """The loop is about to end what did not come to be, or is not wanted any more."""
        if isinstance(container, Shell):
            self._settle(container)

    def _ended(self, container: Inside, status: int, error: str | None) -> None:
        if not isinstance(container, Shell) or container.is_awake:
            container.state = replace(container.state, error=error)
            self._spawner.ended(container, status)
            self.given_back(container)
        elif container in self._arriving:
            self._fails(container, EngineError(f"The container {container.request.id} was killed before it began"))
        elif container.is_parked:
            self._spawner.abandon(container)
            self._spawner.tell({"event": "gone", "id": container.request.id})

    def _close(self, family: Family) -> None:
        del self._families[family.key]
        self._spawner.unwatch(family.outer.reports)
        family.close()

    def _template(self, name: str) -> Template:
        found = self._spawner.containers.get(name)
        if not isinstance(found, Template) or found.state.status != "running":
            raise EngineError(f"There is no template {name}")
        return found

    def _shell(self, name: str) -> Shell:
        found = self._spawner.containers.get(name)
        if not isinstance(found, Shell) or found.is_awake:
            raise EngineError(f"No fork waits in {name}")
        return found
