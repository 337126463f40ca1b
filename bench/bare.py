"""The same root file system without Alight: a bare interpreter in it, and `podman run`."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_IMPORTS = {"nothing": "", "numpy": "import numpy; ", "torch": "import torch; "}
_PODMAN = (
    *("podman", "--cgroup-manager", "cgroupfs", "run", "--rm", "--net", "host"),
    *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"),  # its defaults want more than we may
)
_TIMEOUT_S = 120
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x20000, 0x4000, 0x40000, 2
_libc = ctypes.CDLL(None, use_errno=True)


class Bare:
    """An image's layers as one read-only root."""

    def __init__(self, home: Path, kind: str) -> None:
        layers, self._python = _image(home, kind)
        self._code = f"{_IMPORTS[kind]}import time; print(time.monotonic_ns())"
        self._folder = Path(tempfile.mkdtemp(prefix="alight-bench-bare-"))
        self.root = self._folder / "root"
        for name in ("root", "upper", "work"):
            (self._folder / name).mkdir()
        options = f"lowerdir={':'.join(layers)},upperdir={self._folder}/upper,workdir={self._folder}/work"
        subprocess.run(["mount", "-t", "overlay", "alight-bench", "-o", options, self.root], check=True)
        for name, minor in (("null", 3), ("zero", 5), ("urandom", 9)):  # torch wants random numbers
            node = self.root / "dev" / name
            node.unlink(missing_ok=True)
            os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, minor))

    def close(self) -> None:
        """Unmount and remove. A second time does nothing."""
        if self._folder.exists():
            subprocess.run(["umount", self.root], check=True)
            shutil.rmtree(self._folder)

    def python(self) -> float:
        """Milliseconds until the interpreter's first line, with no container around it."""
        return self._until_line(["chroot", str(self.root), self._python, "-c", self._code])

    def podman(self) -> float:
        """Milliseconds until the first line in a container of podman's."""
        hide = _hide_hybrid_cgroups if os.path.ismount("/sys/fs/cgroup/unified") else None
        return self._until_line([*_PODMAN, "--rootfs", str(self.root), self._python, "-c", self._code], hide)

    def _until_line(self, command: list[str], first: Callable[[], None] | None = None) -> float:
        began = time.monotonic_ns()
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, preexec_fn=first
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-1000:]}")
        return (int(done.stdout) - began) / 1e6


def _hide_hybrid_cgroups() -> None:
    """In the child, before podman: its runtime refuses machines whose control groups are of both versions."""
    _libc.unshare(_CLONE_NEWNS)
    _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _libc.umount2(b"/sys/fs/cgroup/unified", _MNT_DETACH)


def _image(home: Path, kind: str) -> tuple[list[str], str]:
    """The layers of the image that has what this kind imports, topmost first, and its interpreter."""
    for record in sorted((home / "node" / "images").glob("*.json"), key=lambda one: -one.stat().st_mtime):
        image = json.loads(record.read_text())
        titles = " ".join(step["title"] for step in image["steps"])
        wanted = kind in titles if kind != "nothing" else len(image["steps"]) == 1
        if wanted and image["python_version"].startswith("3.11."):
            return [str(home / "node" / "layers" / name) for name in image["layers"]], image["python"]
    raise RuntimeError(f"no image of the run holds {kind}")
