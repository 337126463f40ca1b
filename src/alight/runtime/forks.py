"""Forks on request (``wire.forks``): in the template a spare child at all times, in a fork its way into its container.

    template ──bare fork──▶ spare: waits for a request, enters the shell's namespaces, drops what a container has not
                              └──os.fork──▶ fork: parked, until it is woken

The spare drops everything before it forks, so that whatever user code has registered for forks (with Python or with the
C library) runs with a container's rights. It exits when it has forked; the template makes the next one. Nothing here is
asynchronous, and nothing that a spare or a fork does can end the template.
"""

from __future__ import annotations

import os
import struct
import sys
import time

from alight.runtime import confine, init, reseed
from alight.runtime.quick_json import decode
from alight.wire import forks as wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, Dict, List, Optional, Sequence, Tuple

    from alight.runtime.pools import Pools
else:
    import _socket as socket

#: How a spare says that the spawner's end of the template's socket is closed.
_CLOSED = 3
_INT = struct.calcsize("i")
_MOST_DESCRIPTORS = 64
_FIRST_PID = 2  # after a shell's own
_LONGEST_PAUSE = 1.0


class Forks:
    """``keep`` are descriptors that forks share with the template; ``pools`` get their threads back in each."""

    def __init__(self, descriptor: int, keep: Sequence[int], pools: Pools) -> None:
        self._descriptor = descriptor
        self._keep = list(keep)
        self._pools = pools
        self._template = os.getpid()

    def serve(self) -> Optional[Dict[str, Any]]:
        """In the template: for ever, and None when the spawner has closed the socket. In a fork: what it was woken
        with."""
        pause = 0.0
        while True:
            time.sleep(pause)
            try:
                spare = confine.bare_fork()
            except OSError as error:
                print(f"alight: this template cannot fork: {error.strerror}", file=sys.stderr, flush=True)
                pause = min(pause * 2 + 0.01, _LONGEST_PAUSE)
                continue
            if spare == 0:
                woken = self._spare()
                if woken is not None:
                    return woken
            _, status = os.waitpid(spare, 0)
            code = init.code_of(status)
            if code == _CLOSED:
                return None
            # A spare that ends in any other way than after its fork may end so again.
            pause = 0.0 if code == 0 else min(pause * 2 + 0.01, _LONGEST_PAUSE)

    def _spare(self) -> Optional[Dict[str, Any]]:
        """Returns in the fork only, when it is woken."""
        control = -1
        spare = os.getpid()
        try:
            confine.die_with_parent(self._template)
            request, received = self._request()
            if not request:
                os._exit(_CLOSED)
            # Whatever happens from here on is for who asked to hear.
            if len(received) > 1:
                control = received[1]
            control = self._enter(request, received)
            if self._template == _FIRST_PID:
                # Libraries know a fork by its pid, which would be the template's own number in there.
                burnt = confine.bare_fork()
                if burnt == 0:
                    os._exit(0)
                os.waitpid(burnt, 0)
            if os.fork():
                os._exit(0)
            return self._park(control)
        except BaseException as error:  # noqa: BLE001  said to who asked; this process was made for nothing else
            try:
                _tell(control, error, "the template's spare" if os.getpid() == spare else "the fork")
            finally:
                os._exit(1)

    def _request(self) -> Tuple[bytes, List[int]]:
        """The next packet and its descriptors; an empty one when nobody is there any more."""
        door = socket.socket(fileno=self._descriptor)
        try:
            data, extra, flags, _ = door.recvmsg(
                wire.PACKET, socket.CMSG_SPACE(_MOST_DESCRIPTORS * _INT), socket.MSG_CMSG_CLOEXEC
            )
        finally:
            door.detach()
        received = _descriptors(extra)
        if data and flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise OSError("a request was longer than it may be")
        return data, received

    def _enter(self, request: bytes, received: List[int]) -> int:
        """Be in the shell, with a container's rights and descriptors. Returns the control socket."""
        capabilities, files = wire.REQUEST.unpack_from(request)
        instructions = request[wire.REQUEST.size :]
        pidfd, control, out, error, *groups = received
        for group in groups:
            os.write(group, b"0")  # this process; the fork is born there
        confine.enter_namespaces(pidfd)
        os.chdir("/")
        nothing = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((nothing, 0), (out, 1), (error, 2), (control, self._descriptor)):
            os.dup2(source, target, inheritable=target != self._descriptor)
        confine.close_all_but({0, 1, 2, self._descriptor, *self._keep})
        if files:
            confine.limit_files(files)
        os.umask(0o022)
        confine.drop(capabilities, instructions)
        return self._descriptor

    def _park(self, control: int) -> Dict[str, Any]:
        """In the fork: make it differ from its brothers, say that it is there, wait."""
        os.setsid()
        reseed.reseed()
        door = socket.socket(fileno=control)
        self._pools.restore()
        door.send(wire.PARKED)
        data, extra, _, _ = door.recvmsg(wire.PACKET, socket.CMSG_SPACE(_INT), socket.MSG_CMSG_CLOEXEC)
        if data[:1] != wire.WAKE:
            os._exit(0)  # it was closed: this fork is not needed
        door.close()
        woken: Dict[str, Any] = decode(data[1:].decode())
        woken["link"] = (_descriptors(extra) or [-1])[0]
        return woken


def _descriptors(extra: Sequence[Tuple[int, int, bytes]]) -> List[int]:
    received: List[int] = []
    for level, kind, raw in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received += struct.unpack(f"{len(raw) // _INT}i", raw[: len(raw) - len(raw) % _INT])
    return received


def _tell(control: int, error: BaseException, who: str) -> None:
    """Say what went wrong to who asked, or in the template's own output."""
    said = f"{who} failed: {type(error).__name__}: {error}"
    if control >= 0:
        try:
            door = socket.socket(fileno=control)
            door.send(wire.FAILED + said.encode()[:4000])
            return
        except OSError as gone:
            said += f" (and could not say so: {gone})"
    os.write(2, f"alight: {said}\n".encode())
