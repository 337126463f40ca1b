"""A version of an app that is to prove itself, and what was before: kept until it has, whoever ends meanwhile."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from alight.server.services.apps import App
from alight.server.services.functions import Trial
from alight.server.services.published import Change, Published, restored, row_of
from alight.store.base import Statement


@dataclass(frozen=True)
class Before:
    """What an app was before a version of it was published."""

    version: int
    tags: dict[str, str]
    deployed_at: float | None
    deployed_by: str

    @classmethod
    def of(cls, app: App) -> Before:
        """As it is now."""
        return cls(app.version, dict(app.tags), app.deployed_at, app.deployed_by)

    @property
    def row(self) -> dict[str, Any]:
        """For the statement `app_version`."""
        return {
            "version": self.version,
            "now": self.deployed_at,
            "who": self.deployed_by,
            "tags": json.dumps(self.tags),
        }

    def restore(self, app: App) -> None:
        """Make the app so again."""
        app.version, app.tags = self.version, dict(self.tags)
        app.deployed_at, app.deployed_by = self.deployed_at, self.deployed_by


@dataclass(frozen=True)
class Attempt:
    """One version of an app that is to prove itself. ``who`` asked for it; ``renew``: it has no number of its own."""

    app: App
    name: str
    number: int
    who: str
    before: Before
    change: Change
    renew: bool = False

    @property
    def what(self) -> str:
        """It within a sentence."""
        return f"a fresh container of {self.name}" if self.renew else f"v{self.number} of {self.name}"

    @property
    def begin(self) -> Statement:
        """How the store keeps it until it is over."""
        functions = {
            function_id: None if old is None else row_of(old) for function_id, old in self.change.before.items()
        }
        app = {
            "version": self.before.version,
            "tags": self.before.tags,
            "deployed_at": self.before.deployed_at,
            "deployed_by": self.before.deployed_by,
        }
        row = {
            "app_id": self.app.app_id,
            "version": self.number,
            "renew": int(self.renew),
            "who": self.who,
            "before": json.dumps({"app": app, "functions": functions}),
        }
        return "trial_begin", row

    @property
    def over(self) -> Statement:
        """It has proved itself, or was taken back."""
        return "trial_over", {"app_id": self.app.app_id}


async def outcome(trials: dict[str, tuple[str, Trial]]) -> tuple[tuple[str, dict[str, Any]] | None, tuple[str, ...]]:
    """The first function that did not come up and why, or None when all did; and what there is to say beside it."""
    names = {trial: name for name, trial in trials.values()}
    notes: list[str] = []
    left = set(names)
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for trial in done:
            error, said = trial.result()
            if error is not None:
                return (names[trial], error), tuple(notes)
            if said and said not in notes:
                notes.append(said)
    return None, tuple(notes)


def taken_up(row: Any, app: App, by_id: dict[str, Published]) -> Attempt:
    """The attempt that an earlier server process did not see the end of."""
    kept = json.loads(row["before"])
    before = Before(**kept["app"])
    functions: dict[str, Published | None] = {
        function_id: None if old is None else restored(old, app.environment, app.owner, deployed=True)
        for function_id, old in kept["functions"].items()
        if function_id in by_id
    }
    now = [by_id[function_id] for function_id in functions]
    changed = tuple(one for one in now if not one.gone)
    gone = tuple(one for one in now if one.gone)
    named = tuple(one for one in by_id.values() if one.app_id == app.app_id and not one.base and not one.gone)
    change = Change(named, changed, gone, functions)
    return Attempt(app, app.name, row["version"], row["who"], before, change, bool(row["renew"]))
