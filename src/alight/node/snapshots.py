"""Files that templates wrote before they were frozen: layers of their forks, kept until the last of these is gone.

They lie apart from the template, which may end long before its forks. Which container uses which is written into the
container's directory, for the agent after this one.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

#: The file in a container's directory that names what it uses.
_USED = "snapshot"


class Snapshots:
    """The directories under ``home``."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._users: dict[str, set[str]] = {}
        self._live: set[str] = set()

    def keep(self, template_id: str, upper: str) -> str:
        """Take what a template wrote; "" when that is nothing. Its directory is moved. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if any(Path(upper).iterdir()):
                self._home.mkdir(mode=0o711, parents=True, exist_ok=True)
                place = self._home / template_id
                Path(upper).rename(place)
                self._live.add(str(place))
                return str(place)
        return ""

    def use(self, path: str, container_id: str, folder: Path) -> None:
        """A container has it in its layers, until ``release``. Raises OSError."""
        (folder / _USED).write_text(path)
        self._users.setdefault(path, set()).add(container_id)

    def adopt(self, container_id: str, folder: Path) -> None:
        """The same, of a container that an earlier agent started."""
        with contextlib.suppress(OSError):
            self._users.setdefault((folder / _USED).read_text(), set()).add(container_id)

    def release(self, container_id: str) -> None:
        """That container is gone."""
        for path, users in list(self._users.items()):
            users.discard(container_id)
            self._remove_unused(path)

    def drop(self, path: str) -> None:
        """Its template is gone."""
        self._live.discard(path)
        self._remove_unused(path)

    def sweep(self) -> None:
        """Remove what a killed agent left and nobody uses."""
        if self._home.is_dir():
            for one in self._home.iterdir():
                self._remove_unused(str(one))

    def clear(self) -> None:
        """Remove all: no container is left."""
        shutil.rmtree(self._home, ignore_errors=True)

    def _remove_unused(self, path: str) -> None:
        if path not in self._live and not self._users.get(path):
            self._users.pop(path, None)
            shutil.rmtree(path, ignore_errors=True)
