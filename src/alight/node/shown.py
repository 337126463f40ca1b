"""The output of one container on its way to the server: soon while somebody watches its app, unhurried else."""

from __future__ import annotations

import contextlib
from pathlib import Path

from alight.node.logs import OutputTail
from alight.node.surroundings import Surroundings

_FILE = "output.log"
#: How soon output is carried to the server: while somebody watches, and else.
_PROMPT = 0.004
_UNHURRIED = 0.25


class Shown:
    """``folder`` is the container's, ``app_id`` whose watchers see it."""

    def __init__(self, container_id: str, app_id: str, folder: Path, around: Surroundings) -> None:
        self._path = folder / _FILE
        self._app_id = app_id
        self._around = around
        self._watch = -1
        self.tail = OutputTail(container_id, self._path, around.session.report)

    @property
    def watched(self) -> bool:
        """Whether somebody looks at it."""
        return self._app_id in self._around.watched

    @property
    def is_kept(self) -> bool:
        """Whether the server keeps all of it."""
        return self.tail.acked >= self.tail.size()

    def follow(self) -> None:
        """Carry what is there, and what comes."""
        with contextlib.suppress(FileNotFoundError):
            self._watch = self._around.notices.watch(self._path, self._grew)
        self._grew()

    def close(self) -> None:
        """All is said, and nothing more comes."""
        self.tail.close()
        if self._watch >= 0:
            self._around.notices.forget(self._watch)

    def _grew(self) -> None:
        self.tail.notice(_PROMPT if self.watched else _UNHURRIED)
