"""What templates there are, for people: run/templates.json of the state directory, which `alight doctor` reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

from alight.node.templates import Book, TemplateSettings


class Told:
    """The file. Written when something in it has changed."""

    def __init__(self, place: Path, told: TemplateSettings) -> None:
        self._place = place
        self._settings = told
        self._written = ""

    async def say(self, book: Book, parked: Mapping[str, Mapping[str, int]], *, possible: bool) -> None:
        """Leave what there is; ``parked`` are the forks that wait, by template and shape."""
        rows = [
            {
                "id": one.id,
                "for": one.name,
                "level": one.level,
                "ready": one.ready,
                "memory_bytes": one.memory_bytes,
                "forks": one.forks,
                "parked": sum(parked.get(one.id, {}).values()),
            }
            for one in book
        ]
        facts = {
            "level": self._settings.level,
            "possible": possible,
            "limit_bytes": self._settings.memory_bytes,
            "templates": rows,
        }
        text = json.dumps(facts)
        if text != self._written:
            # In a thread: to take another's place a file has to be on the disk first.
            await asyncio.to_thread(_replace, self._place, text + "\n")
            self._written = text

    def forget(self) -> None:
        """The agent leaves, and its templates with it."""
        self._place.unlink(missing_ok=True)


def _replace(place: Path, text: str) -> None:
    new = place.with_suffix(".new")
    new.write_text(text)
    new.replace(place)
