"""The spawner's side of a template: a real process tree, real packets, and the namespaces of the test."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from alight.wire import forks as wire
from alight.wire.commands import LinkReady
from tests.unit.runtime.conftest import MAIN, PYTHON, Node

WITHOUT_NAMESPACES = Path(__file__).with_name("template_main.py")
ALL = (1 << 64) - 1
#: A seccomp filter that allows everything.
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
_PR_SET_CHILD_SUBREAPER = 36
#: A template imports much; without this most of a test's time would be compiling it.
_PLACE = tempfile.TemporaryDirectory(prefix="alight-test-compiled-")
atexit.register(_PLACE.cleanup)
_COMPILED = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": _PLACE.name}


class Fork:
    """A fork on its way: ``pid`` when it is parked, ``said`` when it failed."""

    def __init__(self, control: socket.socket, out: int, error: int, directory: Path) -> None:
        self.control = control
        self.out = os.fdopen(out, "r")
        self.error = os.fdopen(error, "r")
        self.directory = directory
        self.node: Node | None = None
        self.pid = 0
        self.said = ""

    def hear(self) -> bytes:
        """The fork's first packet, with the kernel's word for who sent it."""
        data, extra, _, _ = self.control.recvmsg(wire.PACKET, socket.CMSG_SPACE(12))
        for level, kind, raw in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.pid = struct.unpack("3i", raw)[0]
        if data[:1] == wire.FAILED:
            self.said = data[1:].decode()
        return data[:1]

    def wake(self, cwd: str = "", *, given: bool = False, **env: str) -> Node:
        """A container's node, which has heard the fork's hello: at its listening socket, or at a connection that the
        fork was ``given``."""
        self.directory.mkdir(exist_ok=True)
        node = self.node = Node(self.directory)
        environment = {"PATH": os.environ["PATH"], "ALIGHT_LINK": str(node.path), **env}
        words = {"env": environment, "cwd": cwd or str(self.directory)}
        packet = wire.WAKE + json.dumps(words).encode()
        if given:
            ours, theirs = socket.socketpair()
            with theirs:
                socket.send_fds(self.control, [packet], [theirs.fileno()])
            node.take(ours)
        else:
            self.control.send(packet)
            node.accept()
        return node

    def end(self) -> int:
        """Wait for it. Its exit code, or less a signal."""
        ends = time.monotonic() + 15
        while True:
            try:
                _, status = os.waitpid(self.pid, 0)
                break
            except ChildProcessError:  # who bore it is on its way out, and until then it is not our child
                assert time.monotonic() < ends
                os.kill(self.pid, 0)  # raises when it is nobody's
                time.sleep(0.01)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        self.control.close()
        if self.node is not None:
            self.node.close()
        if self.pid:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, 9)
                self.end()
        self.out.close()
        self.error.close()


class Template:
    """Its own node hears what it says of itself. Made once for a test; ``close`` ends all that came of it."""

    def __init__(self, directory: Path) -> None:
        _subreaper()
        self.directory = directory
        self.node = Node(directory)
        self.forks: list[Fork] = []
        self.spec: dict[str, Any] = {}

    def up(
        self,
        code: str,
        qualname: str = "f",
        *,
        level: int = 2,
        main: Path = WITHOUT_NAMESPACES,
        env: dict[str, str] | None = None,
        **spec: Any,
    ) -> tuple[LinkReady, bytes]:
        """Start it with the user's module; what it said."""
        self.door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.spec = {"qualname": qualname, **spec}
        self.node.process = subprocess.Popen(
            [PYTHON, str(main), "template"],
            env={**os.environ, **_COMPILED, "ALIGHT_LINK": str(self.node.path), **(env or {})},
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.dup2(theirs.fileno(), wire.DESCRIPTOR),  # noqa: PLW1509  there are no threads
            pass_fds=(wire.DESCRIPTOR,),
        )
        theirs.close()
        self.node.accept()
        return self.node.start(code, template=level, **self.spec)

    def request(self, mask: int = ALL, files: int = 0, instructions: bytes = ALLOW, groups: Any = ()) -> Fork:
        """Ask for a fork. ``groups``: files that it writes "0" into."""
        ours, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        out, write_out = os.pipe()
        error, write_error = os.pipe()
        pidfd = os.pidfd_open(os.getpid())
        sent = [pidfd, control.fileno(), write_out, write_error, *groups]
        socket.send_fds(self.door, [wire.REQUEST.pack(mask, files) + instructions], sent)
        for number in (pidfd, write_out, write_error):
            os.close(number)
        control.close()
        fork = Fork(ours, out, error, self.directory / f"fork-{len(self.forks)}")
        self.forks.append(fork)
        return fork

    def park(self, **request: Any) -> Fork:
        fork = self.request(**request)
        word = fork.hear()
        assert word == wire.PARKED, (word, fork.said)
        return fork

    def container(
        self, fork: Fork | None = None, *, env: dict[str, str] | None = None, environ: dict[str, str] | None = None
    ) -> Node:
        """A container made of a fork of level 2, ready for inputs. ``env`` wakes it, ``environ`` comes on its link."""
        node = (fork or self.park()).wake(**env or {})
        source = str(self.directory / "usercode.py")
        spec = {**self.spec, "environ": environ or {}}
        node.ready, _ = node.start("", template=2, source_path=source, **spec)
        assert node.ready.failure is None, node.ready.failure
        return node

    @property
    def pid(self) -> int:
        assert self.node.process is not None
        return self.node.process.pid

    def spare(self) -> int:
        """The child that waits."""
        while True:
            found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            if found:
                return int(found[0])

    def close(self) -> None:
        for fork in self.forks:
            fork.close()
        if hasattr(self, "door"):
            self.door.close()
        self.node.close()


def _subreaper() -> None:
    """Forks lose their parent at once: then they are our children, whose ends can be waited for."""
    assert sys.platform == "linux"
    assert MAIN.exists()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
