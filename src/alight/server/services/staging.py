"""A version of an app that is tried before anybody can reach it.

Its functions are those of an app of its own, which nobody finds by the name and which ends with the trial: whatever
serves goes on as it is, and handles that people hold lead where they led.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alight.server.auth import Principal
from alight.server.services.apps import App, Apps
from alight.server.services.functions import Functions
from alight.server.services.published import spoken_name
from alight.server.services.secrets import Secrets
from alight.server.services.trials import outcome
from alight.store.base import Store
from alight.wire.messages import AppCreate, PublishedFunction
from alight.wire.record import replace
from alight.wire.spec import FunctionSpec


@dataclass(frozen=True)
class Tried:
    """``failed``: the function that did not come up, and the error. ``app_id``: whose log has what it printed."""

    app_id: str
    functions: tuple[PublishedFunction, ...]
    failed: tuple[str, dict[str, Any]] | None = None
    notes: tuple[str, ...] = ()


class Staging:
    """Tries versions out, one for whoever asks."""

    def __init__(self, store: Store, apps: Apps, functions: Functions, secrets: Secrets) -> None:
        self._store = store
        self._apps = apps
        self._functions = functions
        self._secrets = secrets

    async def try_out(self, app: App, what: str, specs: tuple[FunctionSpec, ...], who: Principal) -> Tried:
        """See whether these functions come up, with the secrets of ``app``. Nothing of it is left when it returns."""
        create = AppCreate(description=f"{what} (staged, being tried)", environment=app.environment)
        made = await self._apps.create(create, app.environment, who)
        self._apps.leases.forget(made.app_id)  # we hold it; a server that starts anew has it end by itself
        self._secrets.lent[made.app_id] = app.app_id
        try:
            async with self._functions.changing:
                hidden = tuple(unreachable(spec) for spec in specs)
                change = self._functions.plan(made.app_id, app.environment, who.owner, hidden)
                await self._store.write(change.statements)
                trials = self._functions.carry_out(change, trial=True)
            answers = tuple(replace(self._functions.answer(one), function_id="", web=()) for one in change.named)
            names = {one.function_id: spoken_name(one.key) for one in change.changed}
            failed, notes = await outcome({key: (names[key], trial) for key, trial in trials.items()})
            return Tried(made.app_id, answers, failed, notes)
        finally:
            await self._apps.stop(made.app_id, "its trial is over")
            self._secrets.lent.pop(made.app_id, None)


def unreachable(spec: FunctionSpec) -> FunctionSpec:
    """A function that starts like this one: without standing containers, and without names that requests find."""
    scaling = replace(spec.autoscaling, min_containers=0, buffer_containers=0)
    web = {
        name: {key: value for key, value in one.items() if key not in _NAMES} if isinstance(one, dict) else one
        for name, one in spec.web.items()
        if name not in _NAMES
    }
    return replace(spec, autoscaling=scaling, web=web, schedule={})


_NAMES = ("label", "custom_domains")
