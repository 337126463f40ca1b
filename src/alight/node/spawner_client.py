"""One connection of an engine, as the spawner knows it: what is said waits here for an engine that reads slowly."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections import deque
from typing import Any

log = logging.getLogger("alight.spawner")

_QUEUE_LIMIT = 20_000


class Client:
    """One connection of an engine."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.queue: deque[tuple[bytes, list[int]]] = deque()

    def send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> bool:
        """Send or queue. False when this client is gone, or so slow that it must come again."""
        packet = json.dumps(message, separators=(",", ":")).encode()
        self.queue.append((packet, [os.dup(one) for one in descriptors or []]))
        return self.flush()

    def flush(self) -> bool:
        while self.queue:
            packet, descriptors = self.queue[0]
            try:
                if descriptors:
                    socket.send_fds(self.connection, [packet], descriptors)
                else:
                    self.connection.send(packet)
            except BlockingIOError:
                return len(self.queue) < _QUEUE_LIMIT
            except OSError as error:
                log.info("an engine is gone: %s", error)
                return False
            for one in descriptors:
                os.close(one)
            self.queue.popleft()
        return True

    def close(self) -> None:
        for _, descriptors in self.queue:
            for one in descriptors:
                os.close(one)
        self.connection.close()
