"""An outer process with all that is in its namespace, and who is told when something in it ends.

Numbers here are those of the namespace. Runs in the spawner: single-threaded.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from alight.node import drop, kernel, outer
from alight.node.outer import Outer
from alight.node.users import Below, Users, child_of_host

if TYPE_CHECKING:
    from collections.abc import Callable

#: What ended before anybody asked for it: kept for so many seconds, and of so many processes.
_UNCLAIMED_SECONDS, _UNCLAIMED = 2.0, 256


class Family:
    """Of one owner and image. Made with the first container in it, ended after the last."""

    def __init__(self, key: str, base: int, directory: str) -> None:
        self.key = key
        self.members: set[str] = set()
        users, network = child_of_host(base)
        try:
            self.outer: Outer = outer.start(users, network, directory)
        except OSError:
            users.close()
            raise
        finally:
            os.close(network)
        self._below: Below | None = None
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._watched: dict[int, Callable[[int], None]] = {}
        self._unclaimed: OrderedDict[int, tuple[int, float]] = OrderedDict()

    @property
    def users(self) -> Users:
        """Of the outer process and the templates."""
        return self.outer.users

    @property
    def below(self) -> Below:
        """Makes the user namespaces of shells."""
        if self._below is None:
            self._below = Below(self.users)
        return self._below

    def watch(self, number: int, then: Callable[[int], None]) -> None:
        """Tell ``then`` the wait status of this process when it ended, at once if that was just now."""
        self.read()
        status, at = self._unclaimed.pop(number, (0, 0.0))
        if time.monotonic() - at < _UNCLAIMED_SECONDS:
            then(status)
        else:
            self._watched[number] = then

    def forget(self, number: int) -> None:
        """Tell nobody."""
        self._watched.pop(number, None)

    def read(self) -> None:
        """Tell whoever waits for what has ended."""
        for number, status in self.outer.ended():
            then = self._watched.pop(number, None)
            if then is not None:
                then(status)
                continue
            # Most are nobody's: what an OCI runtime left, or the spare child of a template that is no more.
            self._unclaimed[number] = status, time.monotonic()
            if len(self._unclaimed) > _UNCLAIMED:
                self._unclaimed.popitem(last=False)

    def fork(self) -> int:
        """``os.fork`` with a child that is in the namespace. It is our child all the same."""
        kernel.setns(self.outer.namespace, drop.CLONE_NEWPID)
        pid = 0
        try:
            pid = os.fork()
        except OSError:
            self._return()
            raise
        if pid:
            self._return()
        return pid

    def close(self) -> None:
        """Let go of what its end left."""
        if self._below is not None:
            self._below.close()
        self.outer.close()
        self.users.close()
        os.close(self._home)

    def _return(self) -> None:
        try:
            kernel.setns(self._home, drop.CLONE_NEWPID)
        except OSError:
            # Every later child would be in the family's namespace, out of our sight: dying is the safer end.
            os.abort()


def numbers(pid: int) -> list[int]:
    """A process's numbers, from our namespace inwards. Raises OSError when it is gone."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, rest = line.partition(":")
        if name == "NSpid":
            return [int(one) for one in rest.split()]
    return []
