"""Carries out what the server says. One function per word; none of them blocks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from alight.node.container import Container
from alight.node.surroundings import Surroundings
from alight.wire import chunk
from alight.wire.commands import Command, Report

log = logging.getLogger(__name__)

_LOOK_MOST = 60.0  # seconds for which one word has everything measured every second


class Commands:
    """The containers of this node, and what may be done to them."""

    def __init__(self, around: Surroundings, shut_down: Callable[[], None]) -> None:
        self.containers: dict[str, Container] = {}
        self._around = around
        self._shut_down = shut_down

    def carry_out(self, command: Command, body: bytes) -> None:
        """Do it. A word that a newer server knows and we don't is said and passed over."""
        kind = command.kind
        del body
        if kind == "ack":
            self._ack(command)
        elif kind == "start":
            self._start(command)
        elif kind == "template":
            if command.start is not None:
                self._around.keeper.foresee(command.start)
        elif kind == "cancel":
            self._with(command, lambda one: one.cancel(command.call_id, command.position))
        elif kind == "recall":
            self._with(command, lambda one: one.recall())
        elif kind == "stop":
            self._with(command, lambda one: one.stop(command.grace, command.reason))
        elif kind == "watch":
            self._watch(command)
        elif kind == "measure":
            self._around.gpu_use.until = max(self._around.gpu_use.until, time.time() + min(command.grace, _LOOK_MOST))
        elif kind == "gpu":
            self._around.gpus.restore(command.gpu)
        elif kind == "unkept" and command.container in self.containers:
            self.containers[command.container].on_log_unkept()
        elif kind == "shutdown":
            self._shut_down()
        else:
            log.warning("the server says %r, which this node does not know", kind)

    def give(self, inputs: chunk.Inputs, head: bytes, body: bytes) -> None:
        """Inputs for a container; ``head`` is what they were read from."""
        container = self.containers.get(inputs.container)
        if container is not None:
            container.give(inputs, head, body)
        else:
            self._not_here(inputs.container)

    def _ack(self, command: Command) -> None:
        container = self.containers.get(command.container) if command.container else None
        if container is not None:
            if command.serials or command.answered:
                container.on_outputs_acked(command.serials, command.answered)
            if command.offset:
                container.on_log_acked(command.offset)
            if command.ended:
                container.on_end_acked()

    def _start(self, command: Command) -> None:
        start = command.start
        if start is None or start.container_id in self.containers:
            return  # said again after a reconnect
        container = self.containers[start.container_id] = Container(start, self._around)
        container.begin()

    def _watch(self, command: Command) -> None:
        if not command.on:
            self._around.watched.discard(command.app_id)
            return
        self._around.watched.add(command.app_id)
        for container in self.containers.values():
            if container.app_id == command.app_id:
                container.on_watched()

    def _with(self, command: Command, act: Callable[[Container], None]) -> None:
        container = self.containers.get(command.container)
        if container is not None:
            act(container)
        elif command.container:
            self._not_here(command.container)

    def _not_here(self, container_id: str) -> None:
        """The server believes in a container that we don't have: it must hear so, or it waits for ever."""
        log.info("the server speaks of the container %s, which is not here", container_id)
        self._around.session.report_soon(Report("ended", container_id, text="the node does not have this container"))
