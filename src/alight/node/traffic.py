"""How many bytes a container has received and sent, as the kernel counts them at its network device."""

from __future__ import annotations

import os
from dataclasses import replace

from alight.node.engine.base import Stats

Bytes = tuple[int, int]
"""Received, sent; as the container sees it."""

_COLUMNS = 17  # of a line of /proc/net/dev: the name, eight numbers of what came, eight of what went


def of_process(pid: int | None) -> Bytes:
    """Of the network that a process is in, without its loopback. Zeros when it is gone."""
    if pid is None:
        return 0, 0
    try:
        text = _text(f"/proc/{pid}/net/dev")
    except OSError:
        return 0, 0
    return of_table(text)


def of_table(text: str) -> Bytes:
    """Of what /proc/net/dev says. Pure."""
    received = sent = 0
    for line in text.splitlines()[2:]:
        words = line.replace(":", " ", 1).split()
        if len(words) == _COLUMNS and words[0] != "lo":
            received += int(words[1])
            sent += int(words[9])
    return received, sent


def of_device(name: str | None) -> Bytes:
    """Of a container whose last process is gone: by the host's end of its device, where what it sent is received."""
    if not name:
        return 0, 0
    folder = f"/sys/class/net/{name}/statistics"
    try:
        return int(_text(f"{folder}/tx_bytes")), int(_text(f"{folder}/rx_bytes"))
    except (OSError, ValueError):
        return 0, 0


def add(stats: Stats, moved: Bytes) -> Stats:
    """A reading with these bytes in it."""
    return replace(stats, net_rx_bytes=moved[0], net_tx_bytes=moved[1])


def _text(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16).decode("ascii", "replace")
    finally:
        os.close(descriptor)
