"""`@web_server`: user code starts a server of its own on a port; here it is waited for, and watched."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from _thread import start_new_thread

from alight.wire.errors import ExecutionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Tuple

#: Where the node connects to, inside the container's network.
HOST = "127.0.0.1"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
_LOOK = 1.0
_LOOKS = 3  # in vain, one after the other: then it is gone
_LISTENING = "0A"
_ESTABLISHED = "01"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


class WebServer:
    """``launch`` runs the user's function, ``start`` waits for the port, ``watch`` ends when nothing listens any
    more."""

    def __init__(self, call: Callable[[], Any], said: Dict[str, Any], what: str) -> None:
        self._call = call
        self._what = what
        self._port: int = said["port"]
        self._patience: float = said.get("startup_timeout", 5.0)
        self._exit_grace: float = said.get("exit_grace_period") or 0.0
        self._begun: Any = None
        self._returned = False

    def launch(self) -> None:
        """Outside of the event loop, because the function may run one of its own. Raises what it raises."""
        start_new_thread(self._note_if_it_blocks, ())
        self._begun = self._call()
        if not hasattr(self._begun, "__await__"):
            self._returned = True

    async def start(self) -> None:
        """Raises what a coroutine raises, and ExecutionError when nothing listens in time."""
        if not self._returned:
            await self._begun
            self._returned = True
        deadline, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        while not is_reachable(self._port):
            if time.monotonic() >= deadline:
                raise ExecutionError(_words(self._what, self._port, self._patience, listening()))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def watch(self) -> str:
        """Returns a sentence when the server is gone. Never, where the kernel does not say who listens."""
        vain = 0
        while vain < _LOOKS:
            await asyncio.sleep(_LOOK)
            found = listening()
            vain = vain + 1 if found is not None and all(port != self._port for _, port in found) else 0
        return f"nothing listens on port {self._port} any more: the server that {self._what} started has ended"

    async def finish(self, seconds: float) -> None:
        """Let the server end the requests that it has, within its exit_grace_period and so many seconds."""
        deadline, pause = time.monotonic() + min(self._exit_grace, seconds), _FIRST_PAUSE
        while time.monotonic() < deadline and has_connections(self._port):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    async def stop(self) -> None:
        """It ends with the container, or in an exit hook."""

    def running(self) -> List[Any]:
        """Its requests are not ours."""
        return []

    def _note_if_it_blocks(self) -> None:
        time.sleep(self._patience)
        if not self._returned:
            print(
                f"alight: {self._what} has not returned for {self._patience:g} s. A @web_server() function starts its "
                "server in the background (a thread, subprocess.Popen) and returns.",
                file=sys.stderr,
                flush=True,
            )


def is_reachable(port: int) -> bool:
    """Whether a connection to the port can be made as the node makes it."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False


def listening() -> Any:
    """Addresses and ports that something listens on in this network; None where that cannot be seen."""
    return _sockets(_LISTENING)


def has_connections(port: int) -> bool:
    """Whether somebody is connected to a server on this port."""
    return any(at == port for _, at in _sockets(_ESTABLISHED) or ())


def _sockets(wanted: str) -> Any:
    """Our own addresses and ports of connections in a state; None where that cannot be seen."""
    found: List[Tuple[str, int]] = []
    seen = False
    for table in _TABLES:
        try:
            with open(table, encoding="ascii") as file:
                rows = file.read().splitlines()[1:]
        except OSError:
            continue  # no IPv6, or no /proc
        seen = True
        for row in rows:
            _, local, _, state = row.split(None, 4)[:4]
            if state == wanted:
                address, _, port = local.partition(":")
                found.append((_address(address), int(port, 16)))
    return found if seen else None


def _address(text: str) -> str:
    """ "0100007F" → "127.0.0.1": words of four bytes, each in the machine's order."""
    words = bytes.fromhex(text)
    raw = b"".join(struct.pack("!I", *struct.unpack("=I", words[at : at + 4])) for at in range(0, len(words), 4))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def _words(what: str, port: int, patience: float, found: Any) -> str:
    """The sentence for a port that was waited for in vain."""
    begin = f"{what} was to start a server on port {port} within {patience:g} s"
    if not found:
        return f"{begin}, and nothing listens in its container. Did the server end at once? See the log above"
    there = [address for address, at in found if at == port]
    if there:
        seen = ", ".join(sorted(set(there)))
        return f"{begin}; it listens on {seen} only, which cannot be reached: let it bind to 0.0.0.0 or {HOST}"
    seen = ", ".join(sorted({f"{f'[{address}]' if ':' in address else address}:{at}" for address, at in found}))
    return f"{begin}, and nothing listens on that port. What listens in its container: {seen}"
