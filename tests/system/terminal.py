"""A pseudo-terminal around a command, as a user sits at one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

_POLITE = 10.0  # seconds that a command may take to end


class Terminal:
    """`alight WORDS…` in a terminal of its own."""

    def __init__(self, machine, *words):
        self._near, self.far = pty.openpty()
        self.resize(40, 100)
        self.modes = termios.tcgetattr(self.far)
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "alight", *map(str, words)],
            env=machine.environment(TERM="xterm"),
            stdin=self.far,
            stdout=self.far,
            stderr=self.far,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  nothing else runs here
        )
        self.drawn = b""
        self._seen = 0

    def until(self, text, seconds=60):
        """Wait until this is drawn, behind what was waited for before."""
        deadline = time.monotonic() + seconds
        while (at := self.drawn.find(text, self._seen)) < 0:
            ended = self.popen.poll() is not None
            got = self._read(0.0 if ended else 0.1)
            assert got or not (ended or time.monotonic() > deadline), f"no {text!r} in {self.drawn.decode()}"
        self._seen = at + len(text)

    def type(self, keys):
        os.write(self._near, keys)

    def resize(self, rows, columns):
        fcntl.ioctl(self._near, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def is_raw(self):
        return termios.tcgetattr(self.far) != self.modes

    def end(self, status=0, seconds=60):
        """Wait for the end of the command; the terminal must be as it was. Returns all that was drawn."""
        deadline = time.monotonic() + seconds
        while self.popen.poll() is None:
            self._read(0.1)
            assert time.monotonic() < deadline, self.drawn.decode()
        while self._read(0.1):
            pass
        assert self.popen.returncode == status, self.drawn.decode()
        assert not self.is_raw()
        return self.drawn.decode()

    def _read(self, seconds):
        if not select.select([self._near], [], [], seconds)[0]:
            return False
        self.drawn += os.read(self._near, 65536)
        return True

    def close(self):
        """End the command if it runs, and see that nothing of it is left, however the test ended."""
        children = _children(self.popen.pid)
        if self.popen.poll() is None:
            self.popen.terminate()  # it stops its app: containers are its children, too, in a way
            try:
                self.popen.wait(_POLITE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        os.close(self._near)
        os.close(self.far)
        deadline = time.monotonic() + _POLITE
        while left := [pid for pid in children if _runs(pid)]:
            if time.monotonic() > deadline:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"the command left processes: {[children[pid] for pid in left]}")
            time.sleep(0.01)  # nobody tells


def _children(pid):
    """The processes that this one started, with their command lines. Servers that it started are nobody's."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                words = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if "alight.server" not in words and "alight.node" not in words:
                    found[int(path.parent.name)] = words
    return found


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
