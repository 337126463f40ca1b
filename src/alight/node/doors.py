"""The ways into one container: the runtime's link, and the SDK's socket.

A plain container's runtime dials the link. A fork is woken with its end of a link that is open already, and finds in it
what it is for: it has nobody to wait for. If that connection breaks, it dials like any other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from alight.node import channel
from alight.node.session import Session


class Doors:
    """``folder`` is the container's. ``inside`` says, once it runs, which processes are in it."""

    def __init__(self, folder: Path, owner: channel.LinkOwner, inside: channel.Inside) -> None:
        self._folder = folder / "sock"
        self._owner = owner
        self._inside = inside
        self._servers: list[asyncio.AbstractServer | channel.SdkSocket] = []
        self._given: channel.RuntimeLink | None = None

    async def open(self, session: Session | None) -> None:
        """Listen; for the SDK, too, when there is a session to carry what it says."""
        self._servers.append(await channel.serve_link(self._folder, self._owner, self._inside))
        if session is not None:
            self._servers.append(await channel.serve_sdk(self._folder, self._owner.id, self._inside, session))

    async def give(self, pid: Callable[[], Awaitable[int]]) -> tuple[channel.RuntimeLink, socket.socket]:
        """A link and its other end, for a fork to be woken with; the caller closes that. What comes from it counts once
        ``pid`` says whose it is."""
        self.take_back()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._given = await channel.given_link(ours, self._owner, self._inside, pid)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return self._given, theirs

    @property
    def has_given(self) -> bool:
        """Whether a fork has the other end of a link."""
        return self._given is not None

    def take_back(self) -> None:
        """The fork that was to get the link did not come about."""
        if self._given is not None:
            self._given.abandon()
            self._given = None

    def close(self) -> None:
        """Nobody comes in any more."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self.take_back()
